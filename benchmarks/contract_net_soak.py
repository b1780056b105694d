"""A soak: rounds over a real ejabberd while vendors are killed every second, and the server twice.

``python -m benchmarks.contract_net_soak [--seconds 600] [--vendors 10] [--json]``

The broker is in this process, on the component link, with a store; each vendor is a process, a site and a component of
its own (:mod:`benchmarks.contract_net_soak_vendors`), killed by SIGKILL and started anew. Once a second the best
offers of the latest rounds are accepted, often just while their vendor is killed, and often the second best as well,
which must not lead to a second agreement.

What must hold is looked at in the end, on both sides' stores (:mod:`benchmarks.contract_net_soak_audit`). Exit status
1: something did not hold; the report says what, in ``broken``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import sys
import tempfile
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from agency import logs
from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.contract_net import Heard, Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.component import component_link
from agency.problems import AgencyError
from agency.settings import Settings
from agency.state import opened
from agency.store.store import Store
from agency.trust.site import Site, add_site
from benchmarks.contract_net_soak_audit import Memory, Trial, broken, errors_logged
from benchmarks.contract_net_soak_vendors import STEADY, domain_of, jid_of, state_of
from benchmarks.processes import Child
from benchmarks.sellers import call_for, example
from benchmarks.servers import server_with
from broker.comparison import compare
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.sla import Offer

REPLY_WITHIN = timedelta(seconds=8)
AT_ONCE = 3
"""Rounds under way side by side, each of an application of its own."""
PAUSE = 0.2
"""Seconds between two rounds of a worker."""
DOWN_FOR = 1.0
"""Seconds at most until a vendor that was killed is started again."""
THERE_WITHIN = 60.0
"""Seconds in which all vendors must have started, before anything is counted."""
SETTLED_WITHIN = 150.0
"""Seconds after the last round in which all that was begun must have come to its end: pauses between two repetitions
grow to a minute."""


@dataclass
class Run:
    """What is under way, and what has been counted."""

    net: Initiator
    names: list[str]
    vendors: list[str]
    """Their JIDs, in the same order."""
    nursery: Child
    server: Any
    trial: Trial = field(default_factory=Trial)
    latest: list[tuple[CallForProposals, dict[str, Heard]]] = field(default_factory=list)
    """Rounds that are over, and of which nothing has been accepted yet."""
    down: set[int] = field(default_factory=set)
    over: bool = False
    _ordering: asyncio.Lock = field(default_factory=asyncio.Lock)

    # --- rounds ---

    async def all_there(self) -> None:
        """Wait until all vendors answer; TimeoutError if they never do."""
        async with asyncio.timeout(THERE_WITHIN):
            while self.trial.answers["offer"] < len(self.vendors):
                await asyncio.sleep(PAUSE)
                self.trial = Trial()
                await self._round()

    async def call_on(self) -> None:
        """Round after round."""
        while not self.over:
            await self._round()
            await asyncio.sleep(PAUSE)

    async def _round(self) -> None:
        trial, application = self.trial, example()
        trial.begun += 1
        name = f"soak-{trial.begun}"
        call = call_for(application.model_copy(update={"name": name}), REPLY_WITHIN)
        began = time.monotonic()
        try:
            async with self.net.calling(call, self.vendors):
                heard = await self.net.ask(call.id, dict.fromkeys(self.vendors, call), call.reply_by)
                trial.ended(call, began, heard, self.vendors)
                await self.net.stand(call.id, heard)
        except Exception as error:  # noqa: BLE001 - it is told in the report
            trial.lost.append(f"{call.id}: {error!r}")
        else:
            trial.stood(call)
            self.latest = [*self.latest[1 - AT_ONCE :], (call, heard)]

    # --- acceptances, and vendors killed ---

    async def strike(self, seconds: float, strand: asyncio.TaskGroup) -> None:
        """Once a second accept offers, and kill a vendor: now and then one that is just to agree."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            await asyncio.sleep(min(1.0, left))
            accepted, self.latest = [self._best(*each) for each in self.latest], []
            for best in accepted:
                for offer, jid in best[: random.choice((1, 2))]:  # noqa: S311
                    strand.create_task(self._accept(offer, jid))
            await asyncio.sleep(random.uniform(0, 0.05))  # noqa: S311
            able = [number for number in range(STEADY, len(self.vendors)) if number not in self.down]
            aimed = [number for best in accepted for _, jid in best[:1] if (number := self.vendors.index(jid)) in able]
            victims = aimed if aimed and random.random() < 0.5 else able  # noqa: S311
            if victims:
                strand.create_task(self._kill(random.choice(victims)))  # noqa: S311
        self.over = True

    def _best(self, call: CallForProposals, heard: dict[str, Heard]) -> list[tuple[Offer, str]]:
        """The offers that qualify, best first, with the vendors' JIDs."""
        answers = dict(zip(self.names, (heard[jid].answer for jid in self.vendors), strict=True))
        offers = [row.offer for row in compare(call, answers, utc_now()).rows if row.offer]
        return [(offer, self.vendors[self.names.index(offer.vendor)]) for offer in offers]

    async def _accept(self, offer: Offer, jid: str) -> None:
        try:
            agreement = await self.net.accept(offer, jid)
        except AgencyError as error:
            outcome = code = error.problem.code
        else:
            outcome, code = digest(agreement), "agreed"
        self.trial.tried[offer.call][offer.id] = outcome
        self.trial.codes[code] += 1

    async def _kill(self, number: int) -> None:
        self.down.add(number)
        await self._order(kill=number)
        self.trial.kills += 1
        await asyncio.sleep(random.uniform(0, DOWN_FOR))  # noqa: S311
        await self._order(start=number)
        self.down.remove(number)

    async def _order(self, **what: int) -> None:
        """Not in the way of the rounds: on a busy machine it takes a while."""
        async with self._ordering:
            await asyncio.to_thread(self.nursery.ask, what)

    # --- the server ---

    async def restart_server(self, after: float) -> None:
        """Kill the server and start it again."""
        await asyncio.sleep(after)
        outage = [time.monotonic(), math.inf]
        self.trial.outages.append(outage)
        self.server.kill()
        await asyncio.to_thread(self.server.start)
        outage[1] = time.monotonic()


async def soak(seconds: float, vendors: int, restarts: int, offers_last: int) -> dict[str, Any]:
    """Do it; gives the report."""
    with tempfile.TemporaryDirectory(prefix="agency-soak-") as place:
        folder = Path(place)
        logs.configure(folder / "broker", level="WARNING")
        async with _started(folder, vendors, offers_last) as (run, table, store, pids):
            await run.all_there()
            memory = Memory({"broker": "self", **{f"v{number}": pids[number] for number in range(STEADY)}})
            watching = asyncio.create_task(memory.watch())
            async with asyncio.TaskGroup() as strand:
                for _ in range(AT_ONCE):
                    strand.create_task(run.call_on())
                for number in range(restarts):
                    strand.create_task(run.restart_server((number + 1) * seconds / (restarts + 1)))
                await run.strike(seconds, strand)
            watching.cancel()
            run.trial.stuck = await _settled(run, table)
            await asyncio.sleep(max(offers_last, REPLY_WITHIN.total_seconds()))  # so that all offers, and calls, expire
            run.nursery.end()
            states = {jid_of(number): state_of(folder, number) for number in range(vendors)}
            found = [*run.trial.broken(), *memory.broken(seconds), *errors_logged(folder)]
            found += await broken(run.trial, store, states)
        return {
            "seconds": seconds, "vendors": vendors, **run.trial.report(), "memory": memory.report(), "broken": found
        }  # fmt: skip


@asynccontextmanager
async def _started(
    folder: Path, count: int, offers_last: int
) -> AsyncIterator[tuple[Run, Conversations, Store, list[int]]]:
    """Everything, running: with the broker's table and store, and the vendors' processes."""
    domains = [domain_of(number) for number in range(count)]
    async with AsyncExitStack() as stack:
        server, ports = stack.enter_context(server_with(domains))
        store, credentials = await stack.enter_async_context(opened(Settings(state=folder / "broker")))
        site = await Site.open(store, credentials, server.agents)
        for number, domain in enumerate(domains):
            await add_site(store, domain, await _introduced(state_of(folder, number), domain, site))
        await site.refresh()
        told = {"folder": str(folder), "secret": server.secret, "offers_last": offers_last}
        addresses_ = {domain: ["127.0.0.1", ports[domain]] for domain in domains}
        nursery = Child("benchmarks.contract_net_soak_vendors", ports=addresses_, **told)
        stack.callback(nursery.end)
        link = await stack.enter_async_context(
            component_link(server.agents, *server.component, SecretStr(server.secret))
        )
        table = Conversations(store)
        await table.load()
        broker = RoleAgent(link.address(addresses.BROKER), link)
        net, everybody = Initiator(broker, site, table, late=lambda message: run.trial.late(message)), range(count)
        run = Run(net, [f"v{each}" for each in everybody], [jid_of(each) for each in everybody], nursery, server)
        await broker.start()
        stack.push_async_callback(broker.stop)
        pids = [nursery.ask({"start": number})["pid"] for number in everybody]
        yield run, table, store, pids


async def _introduced(state: Path, domain: str, broker: Site) -> str:
    """Have the vendor's site trust the broker's; gives its public key."""
    async with opened(Settings(state=state)) as (store, credentials):
        site = await Site.open(store, credentials, domain)
        await add_site(store, broker.key.name, broker.key.public)
        return site.key.public


async def _settled(run: Run, table: Conversations) -> list[str]:
    """Wait until all that was begun has come to its end; gives what has not, in time."""
    until = time.monotonic() + SETTLED_WITHIN
    broker = f"{addresses.BROKER}@{run.server.agents}"
    while (left := table.open(broker)) and time.monotonic() < until:  # noqa: ASYNC110 - nothing else tells
        await asyncio.sleep(0.5)
    return [f"{each.id} with {each.peer}: {each.state}" for each in left]


def main() -> None:
    """Soak, and print the report."""
    parser = argparse.ArgumentParser(prog="benchmarks.contract_net_soak", description=__doc__)
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--vendors", type=int, default=10, help=f"more than {STEADY}, which are never killed")
    parser.add_argument("--restarts", type=int, default=2, help="how often the server is killed")
    parser.add_argument("--offers-last", type=int, default=12, help="seconds until offers expire")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    if options.vendors <= STEADY or options.seconds < 1:
        parser.error(f"more than {STEADY} vendors are needed, and at least a second")
    report = asyncio.run(soak(options.seconds, options.vendors, options.restarts, options.offers_last))
    sys.stdout.write(json.dumps(report, indent=2) + "\n" if options.json else _words(report))
    sys.exit(bool(report["broken"]))


def _words(report: dict[str, Any]) -> str:
    lines = [f"{key.replace('_', ' ')}: {value}" for key, value in report.items() if key not in ("memory", "broken")]
    lines += [
        f"memory of {each['process']}: {each['first_mb']} MB, {each['last_mb']} MB in the end, "
        f"{each['kb_per_minute']} kB a minute over the last two thirds"
        for each in report["memory"]
    ]
    lines += [f"BROKEN: {each}" for each in report["broken"]] or ["everything held"]
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    main()
