"""What all tests share: Hypothesis profiles, and the rule that nothing may be missing in CI.

``HYPOTHESIS_PROFILE=ci`` searches longer. ``AGENCY_TEST_ALL=1`` turns a test that is skipped because a part of the
machine is missing into a failure; without it, pytest's closing summary says what was left out and why.
"""

from __future__ import annotations

import gc
import os
import tempfile
from collections.abc import Generator

import pytest
from hypothesis import HealthCheck, settings

from tests.labs.sharing import keep_together
from tests.labs.xmpp import _ejabberd, _prosody, _two_sites, ejabberd, prosody, two_sites, xmpp_server  # noqa: F401 - fixtures for all

settings.register_profile("dev", max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.register_profile("ci", max_examples=100, deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


def pytest_configure(config: pytest.Config) -> None:
    """The user's own state directory is no test's affair."""
    place = tempfile.TemporaryDirectory(prefix="agency-tests-state-")
    config.add_cleanup(place.cleanup)
    os.environ["XDG_STATE_HOME"] = place.name
    os.environ.pop("AGENCY_STATE", None)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each lab is for one worker; ``make test`` has several."""
    keep_together(items)


def pytest_collection_finish() -> None:
    """Thousands of tests stay for good: no collection need look at them, which stops everything for a second."""
    gc.collect()
    gc.freeze()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Make a skipped test fail where everything must be there."""
    report = yield
    if report.skipped and os.environ.get("AGENCY_TEST_ALL"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome = "failed"
        report.longrepr = f"AGENCY_TEST_ALL is set, and a part is missing: {reason}"
    return report
