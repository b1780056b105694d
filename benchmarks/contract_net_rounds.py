"""Contract Net rounds in several ways, each beside its floor: what a round of each takes.

*In process*: broker and vendors here, and the same decisions without agents as the floor. Over a real ejabberd: the
broker here, all vendors in another process (:mod:`benchmarks.contract_net_vendors`) on one component link, offers
signed and verified; the broker is on a component link as well (*component*), or on a client link (*client*). The floor,
in turn with *component*: bare components (:mod:`benchmarks.bare`) that exchange as many bytes and sign and verify as
often, with raw Ed25519, and know no agent, document or conversation. The *peer*: stock SPADE 4 agents
(:mod:`benchmarks.stock`) with a connection each, which sign nothing. Client and peer take turns with the floor, too.
"""

from __future__ import annotations

import asyncio
import statistics
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from pydantic import SecretStr

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links import Link
from agency.messaging.links.client import client_link
from agency.messaging.links.component import component_link
from agency.messaging.links.in_process import InProcessLink
from agency.running import settle
from agency.settings import DOMAIN
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from benchmarks.bare import SIGNATURE_DIGITS, BareComponent, VerifyingBroker, vendor_keys
from benchmarks.processes import Child, cpu_seconds
from benchmarks.sellers import Seller, call_for, example
from benchmarks.servers import DOMAINS, accounts, server_with
from broker.comparison import compare
from descriptors.base import utc_now
from descriptors.documents import Form, dump

PASSWORD = "benchmark"  # noqa: S105 - of accounts on a server that lives as long as the benchmark
FEW = 3
"""Rounds of what is slower than the rest."""


@dataclass(frozen=True)
class Row:
    """What was measured with so many vendors in one way."""

    way: str
    vendors: int
    seconds: float
    """Of a round, the median."""
    cpu: dict[str, float]
    """Seconds of the processor that a round took in each process, on average."""
    ratio_to_floor: float | None = None
    started: float | None = None
    """Seconds until all vendor agents had started."""
    bytes_per_agent: float | None = None
    """Resident memory of the vendors' process that each agent added."""
    growth_per_round: float | None = None
    """Bytes by which the vendors' process grew in a round, after the first third of them."""


@dataclass
class Contestant:
    """One of those that take turns: what it does in a round, and the processes (by name, with their ids) in which."""

    way: str
    round: Callable[[], Awaitable[object]]
    processes: dict[str, int | str]
    seconds: list[float] = field(default_factory=list)
    cpu: dict[str, float] = field(default_factory=dict)

    async def turn(self) -> None:
        """One round, measured."""
        before = {name: cpu_seconds(pid) for name, pid in self.processes.items()}
        started = time.perf_counter()
        await self.round()
        self.seconds.append(time.perf_counter() - started)
        for name, pid in self.processes.items():
            self.cpu[name] = self.cpu.get(name, 0.0) + cpu_seconds(pid) - before[name]

    def row(self, vendors: int, floor: Contestant | None = None, **more: float) -> Row:
        """What came of it."""
        median = statistics.median(self.seconds)
        cpu = {name: round(seconds / len(self.seconds), 4) for name, seconds in self.cpu.items()}
        ratio = round(median / statistics.median(floor.seconds), 3) if floor else None
        return Row(self.way, vendors, median, cpu, ratio, **more)


class Calling:
    """The broker's round: calls all vendors (JIDs: names), and compares what they offer."""

    def __init__(self, net: Initiator, vendors: dict[str, str]) -> None:
        self._net, self._vendors = net, vendors
        self._application = example()
        self.words = "", ""
        """The last call, and an offer, as they were said."""

    async def round(self) -> None:
        """Once; all make offers that qualify."""
        call = call_for(self._application)
        heard = await self._net.ask(call.id, dict.fromkeys(self._vendors, call), call.reply_by)
        comparison = compare(call, {self._vendors[jid]: each.answer for jid, each in heard.items()}, utc_now())
        if sum(1 for row in comparison.rows if row.offer) != len(self._vendors) or comparison.chosen is None:
            raise RuntimeError(f"not all {len(self._vendors)} vendors made an offer that qualifies")
        self.words = dump(call, Form.JSON), next(each.said.body for each in heard.values() if each.said)


@asynccontextmanager
async def _calling(link: Link, site: Site, vendors: dict[str, str]) -> AsyncIterator[Calling]:
    broker = RoleAgent(link.address(addresses.BROKER), link)
    calling = Calling(Initiator(broker, site, Conversations()), vendors)
    await broker.start()
    yield calling
    await broker.stop()


async def in_process(count: int, rounds: int) -> list[Row]:
    """Measure with so many vendors, all here."""
    link, key, application = InProcessLink(), SiteKey.generate(DOMAIN), example()
    site, conversations = Site(key, TrustedKeys([(DOMAIN, key.public)]), Replays(), store=None), Conversations()
    names = {link.address(addresses.vendor(f"v{number}")): f"v{number}" for number in range(count)}
    sellers = {name: Seller(name, number) for number, name in enumerate(names.values())}

    async def decide() -> None:
        call = call_for(application)
        compare(call, {name: await seller.propose(call) for name, seller in sellers.items()}, utc_now())

    async with _calling(link, site, names) as calling:
        started, agents = time.perf_counter(), [RoleAgent(jid, link) for jid in names]
        for agent, seller in zip(agents, sellers.values(), strict=True):
            Participant(agent, seller, site, conversations)
            await agent.start()
        started = time.perf_counter() - started
        ours = Contestant("in process", calling.round, {"all": "self"})
        floor = Contestant("the decisions alone", decide, {"all": "self"})
        for _ in range(rounds):
            await ours.turn()
            await floor.turn()
        for agent in agents:
            await agent.stop()
    return [ours.row(count, floor, started=started), floor.row(count)]


async def over_xmpp(count: int, rounds: int, *, peer: bool) -> list[Row]:
    """Measure with so many vendors over a server of their own; stock agents as well, if ``peer``."""
    with ExitStack() as stack:
        field = _Field(stack, count)
        server, agents = field.server, field.agents
        component = component_link(server.agents, *server.component, SecretStr(server.secret))
        async with component as link, _calling(link, field.sites[server.agents], field.names) as calling:
            await calling.round()
            settle()  # as an agency that has started does; the floor, in the same process, has as much of it
            async with field.floor(calling.words) as floor:
                ours = Contestant("component", calling.round, field.processes(agents))
                grown = await _in_turn([ours, floor], rounds, agents)
                started, each = agents.told["seconds"], agents.told["bytes"] / count
                rows = [
                    ours.row(count, floor, started=started, bytes_per_agent=each, growth_per_round=grown),
                    floor.row(count),
                    await field.on_a_client_link(floor),
                ]
                return [*rows, await field.stock(calling.words, floor)] if peer else rows


async def _in_turn(contestants: list[Contestant], rounds: int, agents: Child) -> float:
    """Have them take turns; gives by how much the vendors' process grew in a round once it was warm."""
    warm = max(1, rounds // 3)
    before = 0
    for number in range(rounds):
        if number == warm:
            before = agents.ask({})["resident"]
        for each in contestants:
            await each.turn()
    grown: float = (agents.ask({})["resident"] - before) / max(1, rounds - warm)
    return grown


class _Field:
    """A server and the vendors' process: what the ways over XMPP share; all ends with the stack."""

    def __init__(self, stack: ExitStack, count: int) -> None:
        self._stack, self._count = stack, count
        self.server, ports = stack.enter_context(server_with(DOMAINS))
        keys = [SiteKey.generate(domain) for domain in (self.server.agents, self.server.domain, DOMAINS[0])]
        trusted = [(key.name, key.public) for key in keys]
        self.sites = {key.name: Site(key, TrustedKeys(trusted), Replays(), store=None) for key in keys}
        self._ports, self._told = ports, {"host": "127.0.0.1", "secret": self.server.secret, "trusted": trusted}
        self.agents = self._vendors(kind="agents", port=ports[DOMAINS[0]], site=keys[-1].secret())
        self.names = {f"{addresses.vendor(f'v{number}')}@{DOMAINS[0]}": f"v{number}" for number in range(count)}

    def _vendors(self, **what: Any) -> Child:
        return self._child("benchmarks.contract_net_vendors", count=self._count, **self._told, **what)

    def _child(self, module: str, **what: Any) -> Child:
        child = Child(module, **what)
        self._stack.callback(child.end)
        return child

    def processes(self, vendors: Child, broker: int | str = "self") -> dict[str, int | str]:
        """Those whose processor time is looked at."""
        return {"broker": broker, "ejabberd": self.server.pid, "vendors": vendors.pid}

    @asynccontextmanager
    async def floor(self, words: tuple[str, str]) -> AsyncIterator[Contestant]:
        """Bare components, here and in a process of their own, that say as much."""
        answer = "x" * (len(words[1]) - SIGNATURE_DIGITS)
        bare = self._vendors(kind="bare", port=self._ports[DOMAINS[2]], answer=answer)
        async with BareComponent(DOMAINS[1], self.server.secret, "127.0.0.1", self._ports[DOMAINS[1]]) as component:
            keys = vendor_keys(self._count, DOMAINS[2])
            broker = VerifyingBroker(component, f"broker@{DOMAINS[1]}", keys, words[0])
            yield Contestant("floor: bare components", broker.round, self.processes(bare))

    async def on_a_client_link(self, floor: Contestant) -> Row:
        """The broker with an account at the server, TLS and SCRAM; the vendors stay as they are."""
        server = self.server
        accounts(server, [addresses.BROKER], PASSWORD)

        async def password(_: str) -> SecretStr:
            return SecretStr(PASSWORD)

        async with (
            client_link(server.domain, server.c2s, server.ca, password) as link,
            _calling(link, self.sites[server.domain], self.names) as calling,
        ):
            return await self._beside(floor, Contestant("client", calling.round, self.processes(self.agents)))

    async def stock(self, words: tuple[str, str], floor: Contestant) -> Row:
        """Stock SPADE agents that say as much."""
        server, names = self.server, [f"stock-{number}" for number in range(self._count)]
        accounts(server, ["stock-broker", *names], PASSWORD)
        told = {
            "password": PASSWORD, "ca": str(server.ca), "c2s": server.c2s, "call": words[0], "answer": words[1],
            "broker": f"stock-broker@{server.domain}", "vendors": [f"{name}@{server.domain}" for name in names],
        }  # fmt: skip
        vendors, broker = (self._child("benchmarks.stock", kind=kind, **told) for kind in ("vendors", "broker"))

        async def one_round() -> None:
            await asyncio.to_thread(broker.ask, {})

        stock = Contestant("peer: stock SPADE 4, unsigned", one_round, self.processes(vendors, broker.pid))
        return await self._beside(floor, stock, started=vendors.told["seconds"])

    async def _beside(self, floor: Contestant, contestant: Contestant, **more: float) -> Row:
        """A few rounds, in turn with the floor's, once it is warm."""
        await contestant.round()
        again = Contestant(floor.way, floor.round, floor.processes)
        for _ in range(FEW):
            await contestant.turn()
            await again.turn()
        return contestant.row(self._count, again, **more)
