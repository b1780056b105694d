"""The conformance suite: what every Vendor Module must do, checked on a real account. A vendor author's test file::

    import pytest
    from my_module import MyModule, MySettings
    from vendor_modules import conformance
    from vendor_modules.services.credentials import PasswordCredentials

    @pytest.fixture
    def subject():
        return conformance.Subject(MyModule, MySettings(url=…), PasswordCredentials(username=…, password=…))

    @pytest.mark.parametrize("check", conformance.checks_for(MyModule), ids=str)
    async def test_conformance(check, subject):
        result = await conformance.run_check(check, subject)
        assert result.outcome != "failed", result.reason

``agency vendor check`` runs all of them with :func:`check_vendor`.
"""

from vendor_modules.conformance.registry import Check
from vendor_modules.conformance.subject import Subject, ordinary_user_data
from vendor_modules.conformance.suite import Report, Result, check_vendor, checks_for, run_check

__all__ = ["Check", "Report", "Result", "Subject", "check_vendor", "checks_for", "ordinary_user_data", "run_check"]
