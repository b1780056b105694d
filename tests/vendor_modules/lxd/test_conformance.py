"""The LXD module does all that the conformance suite asks, on real containers."""

import pytest

from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.lxd.module import LxdModule

NOT_COUNTED = {f"{kind}-counts-in-the-quota" for kind in ("volume", "snapshot", "image")}
"""LXD limits machines, cores, memory, disk space and networks, and does not count these."""


@pytest.fixture(scope="module")
def subject(lab):
    return conformance.Subject(LxdModule, lab.settings, lab.credentials)


@pytest.mark.integration
@pytest.mark.parametrize("check", conformance.checks_for(LxdModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome == ("skipped" if check.name in NOT_COUNTED else "passed"), result.reason
