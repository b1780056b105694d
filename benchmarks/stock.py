"""The peer of :mod:`benchmarks.contract_net`: stock SPADE 4 agents, as the library has them, with a client connection
each to the same ejabberd. One process is all the vendors, another the broker; told what to be in a line.

Agents and behaviours are unchanged. What is changed is what they could not start with here, or only slowly: the server
is at an address that is not the domain's, its certificate is verified against an authority of its own by one context
for all, and SCRAM's PBKDF2 is that of hashlib (as :mod:`agency.messaging.links.client` has it).
"""

from __future__ import annotations

import asyncio
import json
import ssl
import sys
import time
from functools import partialmethod
from typing import Any

import spade
from slixmpp import ClientXMPP
from spade.agent import Agent
from spade.behaviour import CyclicBehaviour, OneShotBehaviour
from spade.message import Message
from spade.template import Template

import agency.messaging.links.client  # noqa: F401 - PBKDF2
from benchmarks.processes import questions, say

TOGETHER = 20
"""Agents that log in at the same time."""
WAIT = 10.0
"""Seconds that a behaviour waits for a message before it looks again, as SPADE's examples do."""


class Vendor(Agent):
    """Answers each call."""

    answer = ""

    class Proposing(CyclicBehaviour):
        """One call after the other."""

        async def run(self) -> None:
            """Wait for a call and answer it."""
            call = await self.receive(timeout=WAIT)
            if call is not None:
                reply = call.make_reply()
                reply.set_metadata("performative", "propose")
                reply.body = Vendor.answer
                await self.send(reply)

    async def setup(self) -> None:
        """Begin."""
        self.add_behaviour(self.Proposing(), Template(metadata={"performative": "cfp"}))


class Calling(OneShotBehaviour):
    """A round: one call to all, until all have answered."""

    def __init__(self, call: str, vendors: list[str]) -> None:
        super().__init__()
        self._call, self._vendors = call, vendors

    async def run(self) -> None:
        """Call and count."""
        for jid in self._vendors:
            await self.send(Message(to=jid, body=self._call, metadata={"performative": "cfp"}))
        heard: set[str] = set()
        while len(heard) < len(self._vendors):
            proposal = await self.receive(timeout=WAIT)
            if proposal is not None:
                heard.add(str(proposal.sender.bare))


def _prepare(told: dict[str, Any]) -> None:
    """See the module's docstring."""
    context = ssl.create_default_context(cafile=told["ca"])
    address, connect = told["c2s"], ClientXMPP.connect
    ClientXMPP.__init__ = partialmethod(ClientXMPP.__init__, ssl_context=context)  # type: ignore[method-assign, assignment]
    ClientXMPP.connect = lambda self, host=None, port=None: connect(self, *address)  # type: ignore[method-assign]


async def _vendors(told: dict[str, Any]) -> None:
    Vendor.answer = told["answer"]
    agents = [Vendor(jid, told["password"], verify_security=True) for jid in told["vendors"]]
    started = time.perf_counter()
    for first in range(0, len(agents), TOGETHER):
        await asyncio.gather(*(each.start(auto_register=False) for each in agents[first : first + TOGETHER]))
    say(seconds=time.perf_counter() - started)
    async for _ in questions():
        say()


async def _broker(told: dict[str, Any]) -> None:
    agent = Agent(told["broker"], told["password"], verify_security=True)
    await agent.start(auto_register=False)
    say()
    async for _ in questions():
        calling, started = Calling(told["call"], told["vendors"]), time.perf_counter()
        agent.add_behaviour(calling, Template(metadata={"performative": "propose"}))
        await calling.join()
        say(seconds=time.perf_counter() - started)


if __name__ == "__main__":
    what = json.loads(sys.stdin.readline())
    _prepare(what)
    spade.run(_vendors(what) if what["kind"] == "vendors" else _broker(what))
