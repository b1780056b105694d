"""The LXD module does all that the conformance suite asks, on real containers."""

import pytest

from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.lxd.module import LxdModule


@pytest.fixture(scope="module")
def subject(lab):
    return conformance.Subject(LxdModule, lab.settings, lab.credentials)


@pytest.mark.integration
@pytest.mark.parametrize("check", conformance.checks_for(LxdModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome == "passed", result.reason
