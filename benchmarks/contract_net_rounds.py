"""Contract Net rounds over a real ejabberd: the broker in this process, all vendors in another
(:mod:`benchmarks.contract_net_vendors`), each process on one component link, offers signed and verified.

The floor of the same run, in turn with ours: bare components (:mod:`benchmarks.bare`) that exchange as many bytes and
sign and verify as often, with raw Ed25519, and know no agent, document or conversation.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from contextlib import ExitStack
from dataclasses import dataclass, field

from pydantic import SecretStr

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.component import component_link
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from benchmarks.bare import BareComponent, VerifyingBroker, vendor_keys
from benchmarks.processes import Child, cpu_seconds
from benchmarks.sellers import call_for, example
from benchmarks.servers import DOMAINS, server_with
from broker.comparison import compare
from descriptors.base import utc_now
from descriptors.documents import Form, dump


@dataclass(frozen=True)
class Rounds:
    """What was measured with so many vendors. Times are medians of rounds, ours and the floor's in turn, in seconds."""

    vendors: int
    ours: float
    floor: float
    cpu: dict[str, float]
    """Seconds of the processor that a round of ours took in each process, on average."""
    floor_cpu: dict[str, float]
    started: float
    """Until all vendor agents had started."""
    bytes_per_agent: float
    """Resident memory of the vendors' process that each agent added."""
    growth_per_round: float
    """Bytes by which the vendors' process grew in a round, after the first third of them."""

    @property
    def ratio(self) -> float:
        """Ours over the floor's."""
        return round(self.ours / self.floor, 3)


@dataclass
class Contestant:
    """One of those that take turns: what it does in a round, and the processes (by name, with their ids) in which."""

    round: Callable[[], Awaitable[None]]
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

    @property
    def median(self) -> float:
        """Of the rounds, in seconds."""
        return statistics.median(self.seconds)

    @property
    def cpu_per_round(self) -> dict[str, float]:
        """Seconds of the processor by process."""
        return {name: round(seconds / len(self.seconds), 4) for name, seconds in self.cpu.items()}


async def over_xmpp(count: int, rounds: int) -> Rounds:
    """Measure with so many vendors."""
    application = example()
    with ExitStack() as stack:
        server, ports = stack.enter_context(server_with(DOMAINS))
        ours, theirs = SiteKey.generate(server.agents), SiteKey.generate(DOMAINS[0])
        keys = [(site.name, site.public) for site in (ours, theirs)]
        told = {"count": count, "host": "127.0.0.1", "secret": server.secret, "trusted": keys}
        vendors = "benchmarks.contract_net_vendors"
        agents = Child(vendors, kind="agents", port=ports[DOMAINS[0]], site=theirs.secret(), **told)
        stack.callback(agents.end)
        site = Site(ours, TrustedKeys(keys), Replays(), store=None)
        component = component_link(server.agents, "127.0.0.1", ports[server.agents], SecretStr(server.secret))
        async with component as link:
            broker = RoleAgent(link.address(addresses.BROKER), link)
            net = Initiator(broker, site, Conversations())
            await broker.start()
            names = {f"{addresses.vendor(f'v{number}')}@{DOMAINS[0]}": f"v{number}" for number in range(count)}
            words: list[str] = []

            async def round_of_agents() -> None:
                call = call_for(application)
                heard = await net.ask(call.id, dict.fromkeys(names, call), call.reply_by)
                comparison = compare(call, {names[jid]: each.answer for jid, each in heard.items()}, utc_now())
                if sum(1 for row in comparison.rows if row.offer) != count or comparison.chosen is None:
                    raise RuntimeError(f"not all {count} vendors made an offer that qualifies")
                words[:] = [dump(call, Form.JSON), next(each.said.body for each in heard.values() if each.said)]

            await round_of_agents()
            call, token = words
            bare = Child(vendors, kind="bare", port=ports[DOMAINS[2]], answer="x" * (len(token) - 128), **told)
            stack.callback(bare.end)
            async with BareComponent(DOMAINS[1], server.secret, "127.0.0.1", ports[DOMAINS[1]]) as floor_component:
                floor = VerifyingBroker(floor_component, f"broker@{DOMAINS[1]}", vendor_keys(count, DOMAINS[2]), call)
                here = {"broker": "self", "ejabberd": server.pid}
                mine = Contestant(round_of_agents, {**here, "vendors": agents.pid})
                bares = Contestant(floor.round, {**here, "vendors": bare.pid})
                grown = await _in_turn([mine, bares], rounds, agents)
            await broker.stop()
    return Rounds(
        count, mine.median, bares.median, mine.cpu_per_round, bares.cpu_per_round, started=agents.told["seconds"],
        bytes_per_agent=agents.told["bytes"] / count, growth_per_round=grown,
    )  # fmt: skip


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
