"""The vendors' process of :mod:`benchmarks.contract_net`: one line of JSON tells it what to be, others ask for memory.

All secrets come in that line, none in an argument.
"""

from __future__ import annotations

import asyncio
import gc
import json
import sys
import tempfile
import time
from typing import Any

from pydantic import SecretStr

from agency import logs
from agency.agents import addresses
from agency.messaging.agent import RoleAgent
from agency.messaging.bidding import Participant
from agency.messaging.conversations import Conversations
from agency.messaging.links import Link
from agency.messaging.links.component import component_link
from agency.running import settle
from agency.store.store import Store
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from benchmarks.bare import BareComponent, SigningVendors, vendor_keys
from benchmarks.processes import questions, resident, say
from benchmarks.sellers import Seller
from benchmarks.servers import DOMAINS


async def _agents(told: dict[str, Any]) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            Store.open(f"sqlite:///{folder}/agency.db") as store,
            component_link(DOMAINS[0], told["host"], told["port"], SecretStr(told["secret"])) as link,
        ):
            trusted = TrustedKeys(map(tuple, told["trusted"]))
            site = Site(SiteKey.from_secret(DOMAINS[0], told["site"]), trusted, Replays(), store)
            await _at_work(told["count"], site, Conversations(store), link)


async def _at_work(count: int, site: Site, conversations: Conversations, link: Link) -> None:
    gc.collect()
    before, started = resident(), time.perf_counter()
    agents = [RoleAgent(link.address(addresses.vendor(f"v{number}")), link) for number in range(count)]
    for number, agent in enumerate(agents):
        Participant(agent, Seller(f"v{number}", number), site, conversations)
        await agent.start()
    say(seconds=time.perf_counter() - started, bytes=resident() - before)
    settle()
    await _answer_questions()
    for agent in agents:
        await agent.stop()


async def _bare(told: dict[str, Any]) -> None:
    async with BareComponent(DOMAINS[2], told["secret"], told["host"], told["port"]) as component:
        SigningVendors(component, vendor_keys(told["count"], DOMAINS[2]), told["answer"])
        say()
        await _answer_questions()


async def _answer_questions() -> None:
    async for _ in questions():
        say(resident=resident())


if __name__ == "__main__":
    what = json.loads(sys.stdin.readline())
    logs.configure(None)  # stdout is for answers
    asyncio.run((_agents if what["kind"] == "agents" else _bare)(what))
