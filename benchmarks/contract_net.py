"""Contract Net rounds. In process: N Vendor agents with catalogues of their own, beside the same decisions alone.

``python -m benchmarks.contract_net [--json]`` also measures rounds over a real ejabberd
(:mod:`benchmarks.contract_net_rounds`), and prints what a round takes, of the processor in each process, too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.contract_net import Initiator
from agency.messaging.conversations import Conversations
from agency.messaging.links.in_process import InProcessLink
from agency.settings import DOMAIN
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from benchmarks.contract_net_rounds import Rounds, over_xmpp
from benchmarks.measuring import Figure, in_turn
from benchmarks.sellers import Seller, call_for, example
from broker.comparison import compare
from descriptors.application import Application
from descriptors.base import utc_now

SIZES = (10, 100, 1000)
ROUNDS = 15


async def run() -> list[Figure]:
    """Rounds in process with 10 and 100 vendors."""
    return [await _in_process(count, example()) for count in (10, 100)]


async def _in_process(count: int, application: Application) -> Figure:
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
        call = call_for(application)
        heard = await net.ask(call.id, dict.fromkeys(vendors, call), call.reply_by)
        compare(call, {vendors[jid]: each.answer for jid, each in heard.items()}, utc_now())

    async def bare() -> None:
        call = call_for(application)
        compare(call, {name: await seller.propose(call) for name, seller in sellers.items()}, utc_now())

    try:
        return await in_turn(f"Contract Net, {count} vendors", ours, "the decisions alone", bare, 7)
    finally:
        for agent in agents:
            await agent.stop()


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.contract_net", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of vendors")
    options = parser.parse_args()
    in_process = asyncio.run(run())
    found = [asyncio.run(over_xmpp(size, options.rounds)) for size in options.sizes]
    if options.json:
        largest = max(found, key=lambda each: each.vendors)
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
    _show(found)


def _show(found: list[Rounds]) -> None:
    sys.stdout.write("over ejabberd, component link, signed: vendors, ours, floor, ratio, started, per agent, growth\n")
    for each in found:
        sys.stdout.write(
            f"{each.vendors:6d} {1000 * each.ours:8.1f} ms {1000 * each.floor:8.1f} ms {each.ratio:6.2f} "
            f"{each.started:6.2f} s "
            f"{each.bytes_per_agent / 1000:6.1f} kB {each.growth_per_round / 1000:8.1f} kB a round\n"
        )
        for whose, cpu in (("ours", each.cpu), ("floor", each.floor_cpu)):
            shares = ", ".join(f"{process} {1000 * seconds:.0f} ms" for process, seconds in cpu.items())
            sys.stdout.write(f"       CPU a round, {whose}: {shares}\n")


if __name__ == "__main__":
    main()
