"""The conformance suite: what every Vendor Module must do, checked on a real account. A vendor author's test file::

    import pytest
    from my_module import MyModule, MySettings
    from vendor_modules import conformance
    from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
    from vendor_modules.services.credentials import PasswordCredentials

    @pytest.fixture(scope="module")
    def subject():
        return conformance.Subject(MyModule, MySettings(url=…), PasswordCredentials(username=…, password=…))

    @pytest.mark.parametrize("check", conformance.checks_for(MyModule), ids=str)
    async def test_conformance(check, subject, lender):
        result = await conformance.run_check(check, subject, lender)
        assert result.outcome != "failed", result.reason

The checks may run in any order; with the ``lender`` they share what is slow to make, a machine first of all. ``agency
vendor check`` runs all of them with :func:`check_vendor`. ``docs/conformance.md`` lists them.
"""

from vendor_modules.conformance.lender import Lender
from vendor_modules.conformance.registry import Check
from vendor_modules.conformance.subject import Subject, ordinary_user_data
from vendor_modules.conformance.suite import Report, Result, check_vendor, checks_for, run_check

__all__ = [
    "Check",
    "Lender",
    "Report",
    "Result",
    "Subject",
    "check_vendor",
    "checks_for",
    "ordinary_user_data",
    "run_check",
]
