"""The directory: which Vendor Agents there are, what they serve, and who is alive (FIPA's DF, SC00023K).

Vendor Agents register with the directory of their site, and again before their lease ends: who does not is gone. So is
who says so, or whose server says so, by presence (RFC 6121), and to whom no message can be brought; until it registers
again or announces itself. Nobody asks who is gone, or waits for it.

The directories of sites that trust each other answer each other's searches; whom they name is believed to be an agent
of theirs, and no more: what it offers, it signs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from types import MappingProxyType
from typing import NamedTuple

import structlog
from slixmpp import JID

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link
from agency.messaging.request import Responder, ask
from agency.problems import AgencyError, refuse
from agency.trust.site import Site
from broker.discovery import search_for, unable
from descriptors.base import Document, utc_now
from descriptors.cfp import CallForProposals
from descriptors.directory import Registration, Search, SearchResult
from descriptors.resources import Reason

LEASE = timedelta(seconds=300)
"""How long a registration is good."""
LONGEST_LEASE = timedelta(hours=1)
"""What a directory grants at most, whatever it is asked for."""
MOST_AGENTS = 20_000
"""That register at one site."""
SEARCH_WITHIN = 2.0
"""Seconds in which another site's directory must answer; what it said last is used where it does not."""
REMEMBERED = timedelta(minutes=10)
"""How long that is good."""

log = structlog.get_logger("agency")


class Found(NamedTuple):
    """The outcome of a search: whom to ask (addresses by vendor), and who would be asked in vain."""

    agents: dict[str, str]
    unable: dict[str, Reason]


class Directory:
    """The registrations of one site, in memory: after a restart, whoever serves registers again."""

    def __init__(self) -> None:
        self._registered: dict[str, Registration] = {}
        self._changed = asyncio.Event()

    def register(self, registration: Registration, now: datetime) -> None:
        """Take an agent in, in place of what it said before: it is there. One whose lease has ended leaves."""
        if registration.until <= now:
            self._registered.pop(registration.agent, None)
            return
        if registration.agent not in self._registered and len(self._registered) >= MOST_AGENTS:
            self._registered = {each.agent: each for each in self.alive(now)}
        if registration.agent in self._registered or len(self._registered) < MOST_AGENTS:
            until = min(registration.until, now + LONGEST_LEASE)
            granted = registration.model_copy(update={"until": until, "gone": None})
            self._registered[registration.agent] = granted
            self._changed.set()

    async def has_all(self, vendors: Iterable[str]) -> None:
        """Wait until agents of all these vendors have registered."""
        while not set(vendors) <= {each.vendor for each in self._registered.values() if each.gone is None}:
            self._changed.clear()
            await self._changed.wait()

    def gone(self, agent: str, now: datetime) -> None:
        """The agent is there no more, or cannot be reached."""
        self._mark(agent, now)

    def back(self, agent: str) -> None:
        """The agent is there again, and serves what it served before."""
        self._mark(agent, None)

    def _mark(self, agent: str, gone: datetime | None) -> None:
        known = self._registered.get(agent)
        if known is not None and (known.gone is None) != (gone is None):
            self._registered[agent] = known.model_copy(update={"gone": gone})
            log.info("vendor agent is gone" if gone else "vendor agent is back", agent=agent)
            self._changed.set()

    def alive(self, now: datetime) -> list[Registration]:
        """All who are there and whose lease has not ended, by name."""
        return [each for each in self.all(now) if each.gone is None]

    def all(self, now: datetime) -> list[Registration]:
        """All whose lease has not ended, those who are gone, too, by name."""
        found = (each for each in self._registered.values() if each.until > now)
        return sorted(found, key=lambda each: (each.vendor, each.agent))


@dataclass
class _Peer:
    """What another site's directory said last, and when."""

    when: datetime
    registrations: tuple[Registration, ...] = field(default=())


class DirectoryAgent(RoleAgent):
    """Takes registrations from the agents of its own site, and answers searches: those of trusted sites, too."""

    def __init__(self, jid: str, link: Link, site: Site, speakers: Mapping[str, str] = MappingProxyType({})) -> None:
        """``site`` knows which others are trusted: their directories are asked, and answered. ``speakers``: the one
        agent (JID) that speaks for a vendor, by vendor, where there is an account with it here."""
        super().__init__(jid, link)
        self._speakers = speakers
        self.known = Directory()
        self._site = site
        self._peers: dict[tuple[str, Search], _Peer] = {}

    async def setup(self) -> None:
        """Answer registrations and searches."""
        Responder.install(self, {Registration: self.register, Search: self.search}, self._may)

    def _may(self, sender: JID, content: Document) -> bool:
        """An agent registers itself, at its own site; a search comes from there, or from a trusted site's directory,
        for which no third one is asked."""
        if sender.domain == self.jid.domain:
            return not isinstance(content, Registration) or content.agent == sender.bare
        theirs = isinstance(content, Search) and content.site is None
        return theirs and sender.local == self.jid.local and self._site.knows(sender)

    def saw(self, whom: JID, *, there: bool) -> None:
        """Take note of who is there and who is not."""
        if there:
            self.known.back(whom.bare)
        else:
            self.known.gone(whom.bare, utc_now())

    async def register(self, registration: Registration) -> Registration:
        """Take the registration; the answer is what was made of it."""
        self.known.register(registration, utc_now())
        return registration

    async def search(self, search: Search) -> SearchResult:
        """Those of this site, or of the trusted one that is named, that could serve what is searched for."""
        if search.site is not None and search.site != self._site.key.name:
            self._check_trusted(search.site)
            there = f"{addresses.DIRECTORY}@{search.site}"
            return await ask(self, there, search.model_copy(update={"site": None}), SearchResult)
        known = self.known.all(utc_now()) if search.gone else self.known.alive(utc_now())
        return SearchResult(registrations=tuple(each for each in known if unable(each, search) is None))

    def _check_trusted(self, site: str) -> None:
        others = self._site.others()
        if site not in others:
            raise refuse(
                "not-trusted",
                f"{site} is no site that is trusted here; these are: {', '.join(sorted(others)) or 'none'}",
                f"`agency trust add {site} KEY`",
            )

    async def find(self, call: CallForProposals) -> Found:
        """Whom to ask for a call, here and at the trusted sites. Where several have a vendor of one name, the one that
        our account is with counts, then the first by its site's name."""
        search = search_for(call)
        found = Found({}, {})
        for registration in self.known.alive(utc_now()):
            self._sort(registration, search, found)
        for registration in await self._elsewhere(search):
            self._sort(registration, search, found)
        for registration in self.known.all(utc_now()):
            if registration.gone and registration.vendor not in found.agents:
                found.unable.setdefault(registration.vendor, _gone(registration.gone))
        return found

    def _sort(self, registration: Registration, search: Search, found: Found) -> None:
        vendor = registration.vendor
        speaker = self._speakers.get(vendor, registration.agent)
        if registration.agent != speaker or vendor in found.agents or vendor in found.unable:
            log.warning("another vendor has that name", vendor=vendor, agent=registration.agent)
        elif reason := unable(registration, search):
            found.unable[vendor] = reason
        else:
            found.agents[vendor] = registration.agent

    async def _elsewhere(self, search: Search) -> list[Registration]:
        results = await asyncio.gather(*(self._at(site, search) for site in sorted(self._site.others())))
        return [each for registrations in results for each in registrations]

    async def _at(self, site: str, search: Search) -> tuple[Registration, ...]:
        """Another site's answer; what it said last where it gives none in time: a site may be away."""
        directory = f"{addresses.DIRECTORY}@{site}"
        try:
            async with asyncio.timeout(SEARCH_WITHIN):
                result = await ask(self, directory, search, SearchResult)
        except (AgencyError, TimeoutError) as error:
            log.warning("directory of another site does not answer", site=site, error=str(error) or "no answer in time")
            known = self._peers.get((site, search))
            return known.registrations if known and known.when > utc_now() - REMEMBERED else ()
        theirs = tuple(each for each in result.registrations if JID(each.agent).domain == site)
        self._peers = {key: peer for key, peer in self._peers.items() if peer.when > utc_now() - REMEMBERED}
        self._peers[site, search] = _Peer(utc_now(), theirs)
        return theirs


def _gone(since: datetime) -> Reason:
    return Reason(code="away", message=f"was not asked: its agent is gone since {since:%H:%M:%S %Z}")
