"""What a running agency logged is shown beside a test that failed."""

from __future__ import annotations

from collections.abc import Generator

import pytest

from tests.labs.agency import log_tails


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport() -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """Add the log tails to the report of a failure."""
    report = yield
    if report.failed:
        report.sections.append(("The agency's log", log_tails()))
    return report
