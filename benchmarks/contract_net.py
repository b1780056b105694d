"""Contract Net rounds. In process: N Vendor agents with catalogues of their own, beside the same decisions alone.

``python -m benchmarks.contract_net [--json]`` also measures rounds over a real ejabberd: the broker in this process,
all vendors in another (:mod:`benchmarks.contract_net_vendors`), each process on one component link, offers signed and
verified. The floor of the same run, in turn with ours: bare components (:mod:`benchmarks.bare`) that exchange as many
bytes and sign and verify as often, with raw Ed25519, and know no agent, document or conversation.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import yaml
from pydantic import SecretStr

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.component import component_link
from agency.messaging.links.in_process import InProcessLink
from agency.settings import DOMAIN
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from benchmarks.bare import BareComponent, VerifyingBroker, vendor_keys
from benchmarks.measuring import Figure, in_turn
from broker.comparison import compare
from descriptors.application import Application
from descriptors.base import new_id, utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import Form, dump, load
from descriptors.sla import Agreement, CounterOffer, Offer, Refusal
from descriptors.trust import Acceptance
from vendor_modules.proposals import propose
from vendor_modules.resources import Catalogue, Size


def _catalogue(number: int) -> Catalogue:
    size = Size(name="small", cores=1, memory_mib=1024, price_per_hour=Decimal(number + 1) / 1000)
    price = Decimal("0.1")
    return Catalogue(
        region="desk", jurisdiction="EU", currency="EUR", sizes=(size,), block_gib_month=price, object_gib_month=price
    )


def _call(application: Application) -> CallForProposals:
    now = utc_now()
    return CallForProposals(
        id=new_id("call"), application=application.name, purpose="deployment", issued=now,
        reply_by=now + timedelta(seconds=20), resources=application.resources,
    )  # fmt: skip


class Seller:
    """A bidder with a catalogue, that nobody accepts anything of."""

    def __init__(self, name: str, number: int) -> None:
        self._name = name
        self._catalogue = _catalogue(number)

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        """What the catalogue gives."""
        return propose(self._name, call, self._catalogue)

    async def revise(self, counter: CounterOffer) -> Offer | Refusal:
        """Never."""
        raise AssertionError(f"nobody haggles here: {counter.id}")

    async def accept(self, acceptance: Acceptance) -> Agreement:
        """Never."""
        raise AssertionError(f"nobody accepts {acceptance.offer} here")


async def _round(count: int, application: Application) -> Figure:
    link, key = InProcessLink(), SiteKey.generate(DOMAIN)
    site = Site(key, TrustedKeys([(DOMAIN, key.public)]), Replays(), store=None)
    broker = RoleAgent(link.address(addresses.BROKER), link)
    net, conversations = Initiator(broker, site, Conversations()), Conversations()
    vendors = {link.address(addresses.vendor(f"v{number}")): f"v{number}" for number in range(count)}
    agents = [broker, *(RoleAgent(jid, link) for jid in vendors)]
    sellers = {name: Seller(name, number) for number, name in enumerate(vendors.values())}
    for agent, name in zip(agents[1:], vendors.values(), strict=True):
        Participant(agent, sellers[name], site, conversations)
    for agent in agents:
        await agent.start()

    async def ours() -> None:
        call = _call(application)
        heard = await net.ask(call.id, dict.fromkeys(vendors, call), call.reply_by)
        compare(call, {vendors[jid]: each.answer for jid, each in heard.items()}, utc_now())

    async def bare() -> None:
        call = _call(application)
        compare(call, {name: await seller.propose(call) for name, seller in sellers.items()}, utc_now())

    try:
        return await in_turn(f"Contract Net, {count} vendors", ours, "the decisions alone", bare, 7)
    finally:
        for agent in agents:
            await agent.stop()


async def run() -> list[Figure]:
    """Rounds with 10 and 100 vendors."""
    return [await _round(count, _application()) for count in (10, 100)]


def _application() -> Application:
    path = Path(__file__).parent.parent / "examples" / "guestbook" / "application.xml"
    return load(path, expect=Application)


# --- over XMPP ---

SIZES = (10, 100, 1000)
ROUNDS = 15
DOMAINS = ("vendors.a.test", "floor-broker.a.test", "floor-vendors.a.test")
"""Components of the server beside that of its agency, which is the broker's."""


@dataclass(frozen=True)
class Rounds:
    """What was measured with so many vendors. Times are medians of rounds, ours and the floor's in turn, in seconds."""

    vendors: int
    ours: float
    floor: float
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


@contextmanager
def _server() -> Iterator[tuple[Any, dict[str, int]]]:
    """An ejabberd as `agency server init` sets it up, with more components; gives it, and their ports."""
    from tests.labs.xmpp import free_ports, server_set_up

    with server_set_up("ejabberd") as server:
        ports = dict(zip(DOMAINS, free_ports(len(DOMAINS)), strict=True))
        file = server.directory / "ejabberd.yml"
        configuration = yaml.safe_load(file.read_text())
        service = next(each for each in configuration["listen"] if each["module"] == "ejabberd_service")
        for domain, port in ports.items():
            hosts = {domain: {"password": server.secret}}
            configuration["listen"].append(service | {"port": port, "hosts": hosts})
        file.write_text(yaml.safe_dump(configuration))
        server.start()
        yield server, {**ports, server.agents: server.component[1]}


class _Vendors:
    """The vendors' process: spoken to in lines."""

    def __init__(self, **what: Any) -> None:
        command = [sys.executable, "-m", "benchmarks.contract_net_vendors"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.told = self.ask(what)

    def ask(self, line: dict[str, Any]) -> dict[str, Any]:
        """Say something and read the answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it is spoken to through pipes")
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Have it end."""
        self._process.communicate()


async def over_xmpp(count: int, rounds: int) -> Rounds:
    """Measure with so many vendors."""
    application = _application()
    with ExitStack() as stack:
        server, ports = stack.enter_context(_server())
        ours, theirs = SiteKey.generate(server.agents), SiteKey.generate(DOMAINS[0])
        keys = [(site.name, site.public) for site in (ours, theirs)]
        told = {"count": count, "host": "127.0.0.1", "secret": server.secret, "trusted": keys}
        agents = _Vendors(kind="agents", port=ports[DOMAINS[0]], site=theirs.secret(), **told)
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
                call = _call(application)
                heard = await net.ask(call.id, dict.fromkeys(names, call), call.reply_by)
                comparison = compare(call, {names[jid]: each.answer for jid, each in heard.items()}, utc_now())
                if sum(1 for row in comparison.rows if row.offer) != count or comparison.chosen is None:
                    raise RuntimeError(f"not all {count} vendors made an offer that qualifies")
                words[:] = [dump(call, Form.JSON), next(each.said.body for each in heard.values() if each.said)]

            await round_of_agents()
            call, token = words
            bare = _Vendors(kind="bare", port=ports[DOMAINS[2]], answer="x" * (len(token) - 128), **told)
            stack.callback(bare.end)
            async with BareComponent(DOMAINS[1], server.secret, "127.0.0.1", ports[DOMAINS[1]]) as floor_component:
                floor = VerifyingBroker(floor_component, f"broker@{DOMAINS[1]}", vendor_keys(count, DOMAINS[2]), call)
                times, grown = await _in_turn(round_of_agents, floor.round, rounds, agents)
            await broker.stop()
    return Rounds(
        count, *times, started=agents.told["seconds"], bytes_per_agent=agents.told["bytes"] / count,
        growth_per_round=grown,
    )  # fmt: skip


async def _in_turn(
    ours: Callable[[], Awaitable[None]], floor: Callable[[], Awaitable[None]], rounds: int, agents: _Vendors
) -> tuple[tuple[float, float], float]:
    """The medians of both, and by how much the vendors' process grew in a round once it was warm."""
    taken: tuple[list[float], list[float]] = [], []
    warm = max(1, rounds // 3)
    before = 0
    for number in range(rounds):
        if number == warm:
            before = agents.ask({})["resident"]
        for job, seconds in zip((ours, floor), taken, strict=True):
            started = time.perf_counter()
            await job()
            seconds.append(time.perf_counter() - started)
    grown = (agents.ask({})["resident"] - before) / max(1, rounds - warm)
    return (statistics.median(taken[0]), statistics.median(taken[1])), grown


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.contract_net", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of vendors")
    options = parser.parse_args()
    in_process = asyncio.run(run())
    found = [asyncio.run(over_xmpp(size, options.rounds)) for size in options.sizes]
    largest = max(found, key=lambda each: each.vendors)
    if options.json:
        report = {
            "in_process": [vars(figure) | {"ratio": figure.ratio} for figure in in_process],
            "component": [vars(each) | {"ratio_to_floor": each.ratio} for each in found],
            f"ratio_to_floor_at_{largest.vendors}": largest.ratio,
        }
        sys.stdout.write(json.dumps(report, indent=2) + "\n")
        return
    for figure in in_process:
        milliseconds = 1000 * figure.seconds
        sys.stdout.write(f"{figure.what}, in process: {milliseconds:.1f} ms, {figure.ratio} of {figure.floor}\n")
    sys.stdout.write("over ejabberd, component link, signed: vendors, ours, floor, ratio, started, per agent, growth\n")
    for each in found:
        sys.stdout.write(
            f"{each.vendors:6d} {1000 * each.ours:8.1f} ms {1000 * each.floor:8.1f} ms {each.ratio:6.2f} "
            f"{each.started:6.2f} s "
            f"{each.bytes_per_agent / 1000:6.1f} kB {each.growth_per_round / 1000:8.1f} kB a round\n"
        )


if __name__ == "__main__":
    main()
