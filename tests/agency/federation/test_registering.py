"""How Vendor Agents get into the directory: with what they sell, and without it while they do not know."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from agency.federation import registering
from agency.federation.directory import DirectoryAgent
from agency.federation.registering import stay_registered
from agency.messaging.agent import RoleAgent
from agency.messaging.links.in_process import InProcessLink
from agency.trust.site import Site
from descriptors.base import utc_now
from descriptors.directory import Registration
from tests.agency.messaging.conftest import Hire
from tests.agency.toys import Cloud, CloudModule, toy_module
from vendor_modules.resources import Catalogue

DIRECTORY = "directory@test"
SOON = 30.0
LEFT = Registration(vendor="alpine", agent="vendor-alpine@test", until=utc_now())


class Slow(CloudModule):
    """A module whose provider says what it sells when it is let."""

    let: asyncio.Event

    async def catalogue(self) -> Catalogue:
        await self.let.wait()
        return await super().catalogue()


@pytest.fixture
async def directory(link: InProcessLink, site: Site) -> AsyncIterator[DirectoryAgent]:
    """The directory of the site."""
    agent = DirectoryAgent(DIRECTORY, link, site)
    await agent.start()
    yield agent
    await agent.stop()


@pytest.fixture
async def vendor(hire: Hire) -> RoleAgent:
    """The agent that is to be found."""
    return await hire("vendor-alpine")


async def first(directory: DirectoryAgent) -> Registration:
    """The registration that comes next."""
    directory.known.register(LEFT, utc_now())
    async with asyncio.timeout(SOON):
        await directory.known.has_all(["alpine"])
    (found,) = directory.known.alive(utc_now())
    return found


async def test_the_first_registration_says_what_the_vendor_sells(directory: DirectoryAgent, vendor: RoleAgent) -> None:
    """As soon as a vendor is found at all, it is known which calls it could serve."""
    vendor.work(stay_registered(vendor, DIRECTORY, toy_module(Cloud(name="alpine"))))
    found = await first(directory)
    assert (found.currency, found.regions, found.services) == ("EUR", ("eu-west",), ("compute", "block", "object"))


async def test_a_vendor_that_is_slow_is_found_all_the_same(
    directory: DirectoryAgent, vendor: RoleAgent, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who does not say in time what it sells is found without that, and with it as soon as it has said so."""
    monkeypatch.setattr(registering, "DESCRIBED_WITHIN", 0.01)
    module = toy_module(Cloud(name="alpine"))
    slow = Slow("alpine", module.settings, module.services)
    slow.cloud, slow.let = module.cloud, asyncio.Event()
    vendor.work(stay_registered(vendor, DIRECTORY, slow))
    assert (await first(directory)).services == ()
    slow.let.set()
    assert (await first(directory)).services == ("compute", "block", "object")
