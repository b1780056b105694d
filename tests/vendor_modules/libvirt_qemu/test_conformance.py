"""The libvirt module does all that the conformance suite asks, on real QEMU guests."""

import pytest

from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.libvirt_qemu.module import LibvirtModule


@pytest.fixture(scope="module")
def subject(lab):
    return conformance.Subject(LibvirtModule, lab.settings, lab.credentials, patience=3)


@pytest.mark.integration
@pytest.mark.parametrize("check", conformance.checks_for(LibvirtModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome == "passed", result.reason
