"""The OpenStack module does all that the conformance suite asks, at two real clouds with real guests.

Both clouds are examined at the same time, which the clouds' own waiting makes nearly as quick as one; each result is a
test of its own.
"""

from __future__ import annotations

import asyncio

import pytest

from tests.vendor_modules.openstack.subjects import FewAtOnce, module_of, subject_of
from vendor_modules import conformance
from vendor_modules.conformance.suite import LEAK_CHECK

CLOUDS = ("cloud-a", "cloud-b")


async def _examined(name, account):
    async with module_of(account) as module:
        guest = next(image.id for image in await module.list_images() if image.name == "guest")
    report = await conformance.check_vendor(subject_of(name, account, guest))
    return {result.name: result for result in report.checks}


@pytest.fixture(scope="module")
def reports(openstack_clouds):
    """The suite's results at each cloud."""

    async def both():
        results = await asyncio.gather(*(_examined(name, openstack_clouds.account(name)) for name in CLOUDS))
        return dict(zip(CLOUDS, results, strict=True))

    return asyncio.run(both())


@pytest.mark.integration
@pytest.mark.parametrize("check", [*(c.name for c in conformance.checks_for(FewAtOnce)), LEAK_CHECK])
@pytest.mark.parametrize("cloud", CLOUDS)
def test_conformance(cloud, check, reports):
    """What the check's contract says holds at this cloud."""
    result = reports[cloud][check]
    assert result.outcome != "failed", result.reason
