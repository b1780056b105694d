"""The directory knows who is alive: over real servers, from a vendor's own word, its server's, and what comes back."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Callable
from datetime import datetime
from pathlib import Path

import pytest
from pydantic import SecretStr

from agency.agents import addresses
from agency.agreements import unsettled
from agency.federation.directory import Directory, DirectoryAgent
from agency.messaging.contract_net import SETTLE_WITHIN
from agency.messaging.links.component import component_link
from agency.messaging.request import ask
from agency.problems import AgencyError
from agency.running import _society
from agency.trust.site import Site
from descriptors.base import utc_now
from descriptors.comparison import Comparison
from descriptors.directory import Registration
from descriptors.messages import Request
from descriptors.sla import Agreement
from tests.agency.conftest import in_memory, workshop_at
from tests.agency.toys import Cloud, notebook
from tests.integration.test_links import clients
from tests.labs.xmpp import XmppServer

pytestmark = pytest.mark.integration

SOON = 60.0
"""Seconds; the machine that tests run on may be busy."""


async def until(directory: Directory, holds: Callable[[], bool]) -> None:
    """Wait until that holds of the directory."""
    async with asyncio.timeout(SOON):
        while not holds():
            directory._changed.clear()
            await directory._changed.wait()


class LoneVendor:
    """A Vendor agent in a process of its own, a client of the server's, as the directory sees it."""

    def __init__(self, server: XmppServer, known: Directory, name: str) -> None:
        self.known, self.name = known, name
        _, self._password = server.account(addresses.vendor(name))
        where = [server.domain, server.c2s[0], str(server.c2s[1]), str(server.ca), name]
        self._command = [sys.executable, "-m", "tests.labs.lone_vendor", *where]
        self.begin()

    def begin(self) -> None:
        """Start a process."""
        root = Path(__file__).parent.parent.parent
        self._process = subprocess.Popen(self._command, cwd=root, stdin=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        with self._process.stdin as stdin:
            stdin.write(f"{self._password}\n")

    def end(self, *, in_order: bool = False) -> None:
        """End its process; as a power cut would, unless in order."""
        (self._process.terminate if in_order else self._process.kill)()
        self._process.wait()

    async def comes_to(self, *, there: bool, later_than: datetime | None = None) -> Registration:
        """Wait until the directory has it so, under a lease that ends later than that; gives what it has."""

        def found() -> list[Registration]:
            mine = (each for each in self.known.all(utc_now()) if each.vendor == self.name)
            return [
                each
                for each in mine
                if (each.gone is None) is there and (later_than is None or each.until > later_than)
            ]

        await until(self.known, lambda: bool(found()))
        return found()[0]


async def comes_and_goes(vendor: LoneVendor) -> None:
    """It runs, dies, is started again at once, and ends in order."""
    before = await vendor.comes_to(there=True)
    await asyncio.to_thread(vendor.end)
    vendor.begin()
    await vendor.comes_to(there=True, later_than=before.until)
    await asyncio.to_thread(vendor.end, in_order=True)
    await vendor.comes_to(there=False)


async def is_killed(vendor: LoneVendor) -> None:
    """It runs, and dies: nobody waits for the end of its lease."""
    await vendor.comes_to(there=True)
    await asyncio.to_thread(vendor.end)
    left = await vendor.comes_to(there=False)
    assert left.gone is not None
    assert left.gone < left.until


async def lives_and_dies(server: XmppServer, site: Site) -> None:
    """The life of two lone vendors."""
    async with clients(server) as link:
        directory = DirectoryAgent(link.address(addresses.DIRECTORY), link, site)
        await directory.start()
        vendors = [await asyncio.to_thread(LoneVendor, server, directory.known, name) for name in ("alpha", "beta")]
        try:
            await asyncio.gather(comes_and_goes(vendors[0]), is_killed(vendors[1]))
        finally:
            for vendor in vendors:
                await asyncio.to_thread(vendor.end)
            await directory.stop()


async def test_a_vendor_that_runs_alone_is_seen_to_come_and_go(ejabberd: XmppServer, prosody: XmppServer) -> None:
    """A Vendor agent that is a client of the server is known when it runs, gone when it has ended, in order or by kill
    -9 (as soon as the server holds its session no longer, long before its lease ends), and there as soon as it runs
    again, also where the server held the old session still."""
    with in_memory() as state:
        async with workshop_at(state, domain="a.test") as workshop:
            await asyncio.gather(*(lives_and_dies(server, workshop.site) for server in (ejabberd, prosody)))


async def test_a_vendor_on_a_component_is_seen_to_come_and_go(xmpp_server: XmppServer) -> None:
    """A Vendor agent on a component tells the directory when it ends. One that dies without a word is found out when a
    call for it comes back, and is not asked again; who is gone has a row in the comparison that says so."""
    secret = SecretStr(xmpp_server.secret)
    with in_memory() as state:
        async with (
            workshop_at(state, Cloud(name="alpha"), Cloud(name="beta"), domain=xmpp_server.agents) as workshop,
            component_link(xmpp_server.agents, *xmpp_server.component, secret) as link,
            _society(workshop, link, 30) as deployer,
        ):

            async def left_out() -> dict[str, str]:
                found = await ask(deployer, link.address(addresses.MEDIATOR), notebook(), Comparison)
                return {row.vendor: row.excluded_because[0].code for row in found.rows if row.excluded_because}

            directory = link._agents[link.address(addresses.DIRECTORY)]
            assert isinstance(directory, DirectoryAgent)
            assert await left_out() == {}
            await link._agents[link.address("vendor-alpha")].stop()  # type: ignore[attr-defined]
            await until(directory.known, lambda: [each.vendor for each in directory.known.alive(utc_now())] == ["beta"])
            assert await left_out() == {"alpha": "away"}
            del link._agents[link.address("vendor-beta")]
            assert await left_out() == {"alpha": "away", "beta": "no-such-agent"}
            assert await left_out() == {"alpha": "away", "beta": "away"}


async def test_who_dies_before_its_offer_is_accepted_keeps_nobody(xmpp_server: XmppServer) -> None:
    """An acceptance that comes back is told of at once; the offer of another vendor can be had from a new call, at once
    as well, and then the first acceptance is withdrawn."""
    secret = SecretStr(xmpp_server.secret)
    with in_memory() as state:
        async with (
            workshop_at(state, Cloud(name="alpha"), Cloud(name="beta"), domain=xmpp_server.agents) as workshop,
            component_link(xmpp_server.agents, *xmpp_server.component, secret) as link,
            _society(workshop, link, 5) as deployer,
        ):

            async def offers() -> dict[str, str]:
                found = await ask(deployer, link.address(addresses.MEDIATOR), notebook(), Comparison)
                return {row.vendor: row.offer.id for row in found.rows if row.offer}

            async def accept(offer: str) -> Agreement:
                async with asyncio.timeout(SETTLE_WITHIN / 2):
                    return await deployer.request(Request(action="accept", subject=offer), Agreement)

            first = await offers()
            del link._agents[link.address("vendor-alpha")]
            with pytest.raises(AgencyError, match=r"vendor-alpha@.* cannot be reached; it is told until"):
                await accept(first["alpha"])
            with pytest.raises(AgencyError, match="has not confirmed yet"):
                await accept(first["beta"])
            assert (await accept((await offers())["beta"])).provider == "beta"
            assert await unsettled(workshop, "notes") == {"alpha": "pending"}
