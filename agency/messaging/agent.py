"""What all our agents share: a SPADE agent that lives on a link, and how messages find who waits for them.

A message belongs to a conversation (its thread) and to a protocol. Whoever listens to that conversation gets it; else,
who takes part in that protocol; else SPADE's behaviours, by their templates. Nothing here polls: an agent that nobody
talks to costs no time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from typing import Any

import structlog
from slixmpp import JID
from spade.agent import Agent
from spade.container import Container
from spade.message import Message
from spade.trace import TraceStore

from agency.messaging.links import Link

Job = Coroutine[Any, Any, None]
Handler = Callable[[Message], Job | None]
"""Acts on a message: at once, or by a job that it returns, which then runs as a task of the agent's."""

_NO_TRACES = TraceStore(size=0)  # SPADE keeps 1000 messages an agent, which nothing here reads
_DEAD_ENDS = frozenset({"failure", "not-understood"})
"""Performatives that only who waits for an answer can use: answering them might go on for ever."""


class RoleAgent(Agent):
    """An agent with a role in the agency. Subclasses say in ``setup`` which protocols they take part in."""

    def __init__(self, jid: str, link: Link) -> None:
        """``jid`` is the agent's address on the link. To be made where an event loop runs."""
        _settle_container()
        super().__init__(jid, password="")
        Container().unregister(str(self.jid))
        self.container: Any = _Outgoing(self)
        self.web = None  # SPADE's page about an agent is open to anybody, and large
        self.traces = _NO_TRACES
        self.link = link
        self.log = structlog.get_logger("agency", agent=str(self.jid))
        self._conversations: dict[str, list[tuple[Handler, Callable[[], Job | None] | None]]] = {}
        self._protocols: dict[str, Handler] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._at_home = False
        self._early: list[Message] = []  # what came between being reachable and having been set up

    # --- the seam on which protocols are built ---

    def take_part(self, protocol: str, handler: Handler) -> None:
        """Hand over the messages of a protocol that belong to no conversation that is listened to.

        Never those that say that something went wrong (``failure``, ``not-understood``): nobody here waits for them.
        """
        self._protocols[protocol] = handler

    @contextmanager
    def listening(
        self, thread: str, handler: Handler, on_reconnected: Callable[[], Job | None] | None = None
    ) -> Iterator[None]:
        """Hand over all messages of a conversation while the block runs; several may listen to one.

        ``on_reconnected`` is called when the link was lost and is there again: what was sent may not have arrived, and
        may be sent once more.
        """
        entry = (handler, on_reconnected)
        self._conversations.setdefault(thread, []).append(entry)
        try:
            yield
        finally:
            self._conversations[thread].remove(entry)
            if not self._conversations[thread]:
                del self._conversations[thread]

    async def send(self, message: Message) -> None:
        """Send a message, in this agent's name; :class:`~agency.problems.AgencyError` if it is known not to arrive."""
        message.sender = self.jid
        await self.link.send(message)

    def work(self, job: Job) -> asyncio.Task[None]:
        """Do a job beside everything else; it ends with the agent. What it raises is logged."""
        task = asyncio.create_task(job)
        self._work.add(task)
        task.add_done_callback(self._worked)
        return task

    # --- what a link and SPADE call ---

    def dispatch(self, msg: Message) -> list[asyncio.Task[None]]:
        """Hand the message to who waits for it."""
        performative = msg.get_metadata("performative")
        listeners = self._conversations.get(msg.thread) if msg.thread else None
        if listeners:
            for handler, _ in tuple(listeners):
                self._invoke(handler, msg)
        elif not self._at_home:
            self._early.append(msg)
        elif performative in _DEAD_ENDS:
            self.log.warning(
                "nobody waits for this", performative=performative, sender=str(msg.sender), body=(msg.body or "")[:500]
            )
        elif taking_part := self._protocols.get(msg.get_metadata("protocol")):
            self._invoke(taking_part, msg)
        else:
            self._offer_behaviours(msg)
        return []

    def reconnected(self) -> None:
        """Tell the conversations that are open that the link was lost, and is there again."""
        for listeners in tuple(self._conversations.values()):
            for _, again in tuple(listeners):
                if again is not None:
                    self._invoke(again)

    def saw(self, whom: JID, *, there: bool) -> None:
        """Learn that an agent that has announced itself is there, or is there no more; who watches, overrides this."""

    def submit(self, coro: Job) -> asyncio.Task[None]:
        """SPADE's way to start a behaviour: a job like any other."""
        return self.work(coro)

    async def _async_start(self, auto_register: bool = True) -> None:
        """Start on the link: SPADE's own start insists on an XMPP client of the agent's own."""
        await self.link.connect(self)
        await self.setup()
        self._at_home = True
        for message in self._early:
            self.dispatch(message)
        self._early.clear()
        self._alive.set()
        for behaviour in self.behaviours:
            if not behaviour.is_running:
                behaviour.start()

    async def _async_stop(self) -> None:
        await self.link.disconnect(self)  # first: what still came would begin jobs that nobody ends
        for behaviour in self.behaviours:
            behaviour.kill()
        for task in self._work:
            task.cancel()
        await asyncio.gather(*self._work, return_exceptions=True)
        self._at_home = False
        self._alive.clear()

    # --- below ---

    def _invoke(self, act: Callable[..., Job | None], *given: Message) -> None:
        try:
            job = act(*given)
        except Exception as error:
            self.log.error("message not handled", exc_info=error)
        else:
            if job is not None:
                self.work(job)

    def _worked(self, task: asyncio.Task[None]) -> None:
        self._work.discard(task)
        if not task.cancelled() and (error := task.exception()):
            self.log.error("job not done", exc_info=error)

    def _offer_behaviours(self, msg: Message) -> None:
        """Put the message into the mailboxes of the behaviours whose template it fits."""
        fitting = [behaviour for behaviour in self.behaviours if behaviour.match(msg)]
        for behaviour in fitting:
            behaviour.queue.put_nowait(msg)
        if not fitting:
            self.log.info("nobody waits for this", sender=str(msg.sender), protocol=msg.get_metadata("protocol"))


class _Outgoing:
    """What a SPADE behaviour takes for its agent's container: sends over the agent's link."""

    def __init__(self, agent: RoleAgent) -> None:
        self._agent = agent

    async def send(self, msg: Message, behaviour: object) -> None:
        await self._agent.send(msg)


def _settle_container() -> None:
    """Keep SPADE's container, which is one for the process, from reaching beyond the agent that is being made.

    It remembers the event loop that it first saw, and makes uvloop's policy the process's, under which the loop that
    runs could not start another process.
    """
    policy = asyncio.get_event_loop_policy()
    Container().loop = asyncio.get_running_loop()
    asyncio.set_event_loop_policy(policy)
