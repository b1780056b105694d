"""What all our agents share: a SPADE agent that lives on a link."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog
from spade.agent import Agent
from spade.behaviour import CyclicBehaviour
from spade.message import Message
from spade.trace import TraceStore

from agency.messaging.link import Link


class RoleAgent(Agent):
    """An agent with a role in the agency. Subclasses add their behaviours in ``setup``."""

    def __init__(self, jid: str, link: Link) -> None:
        """``jid`` is the agent's address; on the in-process link its domain needs no server."""
        super().__init__(jid, password="")
        self.link = link
        self.log = structlog.get_logger("agency", agent=str(self.jid))
        self.traces = TraceStore(size=0)  # SPADE keeps 1000 messages an agent, which nothing here reads
        self._work: set[asyncio.Task[None]] = set()

    async def _async_start(self, auto_register: bool = True) -> None:
        """Start on the link: SPADE's own start insists on an XMPP client of the agent's own."""
        await self.link.connect(self)
        await self.setup()
        self._alive.set()
        for behaviour in self.behaviours:
            if not behaviour.is_running:
                behaviour.start()

    async def _async_stop(self) -> None:
        for behaviour in self.behaviours:
            behaviour.kill()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        await self.link.disconnect(self)
        self._alive.clear()

    def work(self, job: Coroutine[Any, Any, None]) -> None:
        """Do a job beside the behaviours, so that none of them waits for it; it ends with the agent."""
        task = asyncio.create_task(job)
        self._work.add(task)
        task.add_done_callback(self._work.discard)


class Talking(CyclicBehaviour):
    """A behaviour that hands each message it receives to :meth:`on_message`, as a job of its own."""

    agent: RoleAgent

    async def send(self, msg: Message) -> None:
        """Send through the agent's link."""
        if msg.empty_sender():
            msg.sender = str(self.agent.jid)
        await self.agent.link.send(msg, self)

    async def run(self) -> None:
        """Wait for a message. SPADE kills a behaviour between two runs, so waits are short."""
        message = await self.receive(timeout=0.5)
        if message is not None:
            self.agent.work(self._handled(message))

    async def _handled(self, message: Message) -> None:
        try:
            await self.on_message(message)
        except Exception as error:
            self.agent.log.error("message not handled", sender=str(message.sender), exc_info=error)

    async def on_message(self, message: Message) -> None:
        """Act on a message."""
        raise AssertionError("a Talking behaviour says what it does with a message")
