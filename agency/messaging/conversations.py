"""The table of conversations: where each of our agents stands with whom, and whether that binds it.

A link may lose what is under way, and may deliver it twice. So the initiator says again what is unanswered
(:func:`repeating`), and the participant that hears something again repeats its answer, without doing it again. FIPA's
``reply-with`` (SC00061G) tells the two from each other: the initiator numbers what it says, the participant acts on
what comes after that which it acted on last, and on nothing before (:class:`Asked`).

What binds (calls that are out, offers, acceptances, agreements) is in the store before it is said; all else is in
memory.
"""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Literal, NamedTuple, cast

from spade.message import Message
from sqlalchemy import delete, select

from agency.messaging.acl import Performative, Protocol, Said
from agency.messaging.agent import Job, RoleAgent
from agency.problems import AgencyError
from agency.store.models import ConversationRow
from agency.store.store import Store
from descriptors.base import Document, utc_now

REPEAT_AFTER = 5.0
"""Seconds without an answer after which something is said again; then twice as many, and so on. Not sooner: a thousand
vendors on a busy machine take that long, and what is said twice to all of them makes them no faster."""
LONGEST_PAUSE = 60.0
"""Seconds between two times at most."""
READERS = 4
"""Reads of the store at a time: a thousand vendors that hear a call again take turns, and leave it to others, too."""
GRACE = timedelta(seconds=10)
"""How long after its deadline a conversation is still remembered: messages come late, and clocks differ."""

Role = Literal["initiator", "participant"]
State = Literal[
    "calling", "accepting", "withdrawing", "ending",  # the initiator waits for answers
    "answering", "refused", "offered", "agreed", "rejected", "cancelled", "failed", "done",
]  # fmt: skip
OPEN: frozenset[State] = frozenset({"calling", "accepting", "withdrawing", "ending"})
"""Where the initiator must go on, also after a restart."""
Key = tuple[str, str, str]
"""The agent, the conversation's id, and the peer."""


class Asked(NamedTuple):
    """The initiator's place in a conversation. Later ones are greater: an acceptance comes after all calls, and nothing
    after a cancellation, in whichever order they arrive."""

    rank: int
    number: int

    @classmethod
    def by(cls, message: Message) -> Asked:
        """From the message's ``reply-with``; who does not number what it says is taken to say everything once."""
        performative, _, number = (message.get_metadata("reply-with") or "").rpartition(".")
        if not (number.isdecimal() and number.isascii() and len(number) < 10):
            performative, number = message.get_metadata("performative") or "", "1"
        return cls(_RANKS.get(performative, 0), int(number))


_RANKS = {"accept-proposal": 1, "reject-proposal": 2, "cancel": 3}


def reply_with(performative: Performative, number: int = 1) -> str:
    """The name of an initiator's message, by which it is answered."""
    return f"{performative.value}.{number}"


@dataclass(slots=True)
class Conversation:
    """Where one agent stands with one peer (the empty string: with all whom it called)."""

    agent: str
    id: str
    peer: str
    role: Role
    protocol: Protocol
    state: State
    asked: Asked
    deadline: datetime
    """Until when the peer may say the latest thing again, or is waited for."""
    expires: datetime
    """When what binds in it binds no longer."""
    answered: Asked | None = None
    """What of the initiator's has been answered last."""
    said: Said | None = None
    """What the agent said last, to be said again: the initiator's acceptance, the participant's answer."""
    heard: Said | None = None
    """What binds the vendor. The initiator: its offer or agreement, as heard. The participant: the offer that stands,
    whatever was said since."""
    stored: bool = False
    """Whether ``said`` and ``heard`` are to be read from the store: see :meth:`Conversations.full`."""

    @property
    def key(self) -> Key:
        """What there is one of."""
        return self.agent, self.id, self.peer


class Kept(NamedTuple):
    """A document to be kept in the same moment as a conversation."""

    document: Document
    id: str
    application: str


class Conversations:
    """The conversations of the agents of one process. On a store they outlast it."""

    def __init__(self, store: Store | None = None) -> None:
        self._store = store
        self._known: dict[Key, Conversation] = {}
        self._ends: list[tuple[datetime, Key]] = []
        self._batch: _Batch | None = None
        self._writer: asyncio.Task[None] | None = None
        self._readers = asyncio.Semaphore(READERS)

    async def load(self) -> None:
        """Remember what an earlier process left that is not over; forget for good what was, and never led to more."""
        if self._store is None:
            return
        row, now = ConversationRow, utc_now()
        async with self._store.transaction() as session:
            over = (row.expires < now - GRACE, row.state.not_in((*OPEN, "agreed")))
            await session.execute(delete(row).where(*over))
            left = await session.scalars(select(row).where((row.expires >= now - GRACE) | row.state.in_(OPEN)))
            for found in left:
                self.remember(_conversation(found))

    def open(self, agent: str) -> list[Conversation]:
        """What the agent has to go on with."""
        return [each for each in self._known.values() if each.agent == agent and each.state in OPEN]

    async def agreed(self, agent: str, but: str) -> list[Conversation]:
        """The conversations in which the agent has come to an agreement, but for those with peers of that site."""
        if self._store is None:
            return []
        row = ConversationRow
        these = (row.agent == agent, row.role == "initiator", row.state == "agreed")
        async with self._store.transaction() as session:
            rows = await session.scalars(select(row).where(*these, ~row.peer.endswith(f"@{but}", autoescape=True)))
            return [_conversation(each) for each in rows]

    # --- memory ---

    def get(self, key: Key) -> Conversation | None:
        """The conversation, if memory has it."""
        return self._known.get(key)

    def remember(self, conversation: Conversation) -> None:
        """Keep it in memory, as long as its latest message may come again; what is in no store, as long as it binds."""
        self._forget()
        self._known[conversation.key] = conversation
        heapq.heappush(self._ends, (_forgotten(conversation), conversation.key))

    def _forget(self) -> None:
        now = utc_now()
        while self._ends and self._ends[0][0] < now:
            _, key = heapq.heappop(self._ends)
            found = self._known.get(key)
            if found is not None and found.state in OPEN:
                heapq.heappush(self._ends, (now + GRACE, key))
            elif found is not None and _forgotten(found) < now:
                del self._known[key]

    # --- the store ---

    async def find(self, agent: str, id: str) -> dict[str, Conversation]:  # noqa: A002
        """The agent's conversations of that id by peer, in full, also those that memory has forgotten."""
        while True:
            before = self._held(agent, id)
            kept = await self._kept(agent, id)
            held = self._held(agent, id)
            if before.keys() <= held.keys():
                return kept | held
            # what was left to the store while that was read may be older there than it is

    def _held(self, agent: str, id: str) -> dict[str, Conversation]:  # noqa: A002
        """Those that memory has in full."""
        return {each.peer: each for key, each in self._known.items() if key[:2] == (agent, id) and not each.stored}

    async def _kept(self, agent: str, id: str, *peers: str) -> dict[str, Conversation]:  # noqa: A002
        """Those that the store has, with these peers or with all."""
        if self._store is None:
            return {}
        row = ConversationRow
        these = select(row).where(row.agent == agent, row.id == id)
        async with self._readers, self._store.transaction() as session:
            rows = await session.scalars(these.where(row.peer.in_(peers)) if peers else these)
            return {each.peer: _conversation(each) for each in rows}

    async def full(self, conversation: Conversation) -> Conversation:
        """The conversation with what was said and heard, wherever that is."""
        while conversation.stored:
            answered = conversation.answered
            kept = await self._kept(conversation.agent, conversation.id, conversation.peer)
            if conversation.stored and conversation.answered == answered:  # else it went on while it was read
                return kept.get(conversation.peer, conversation)
        return conversation

    async def keep(self, conversations: Iterable[Conversation], documents: Iterable[Kept] = ()) -> None:
        """Remember the conversations, durably when this returns, and documents with them: all or nothing.

        What many ask for at once goes into one transaction.
        """
        conversations = list(conversations)
        for conversation in conversations:
            self.remember(conversation)
        if self._store is None or not conversations:
            return
        if self._batch is None:
            self._batch = _Batch()
        batch = self._batch
        batch.rows |= {each.key: _values(each) for each in conversations}
        batch.documents += documents
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write())
        await batch.written.wait()
        if batch.error is not None:
            raise batch.error
        for conversation in conversations:
            self._leave_to_store(conversation)

    async def end(self, conversation: Conversation) -> None:
        """Forget it: nothing of it binds any more."""
        self._known.pop(conversation.key, None)
        if self._store is None:
            return
        row = ConversationRow
        this = (row.agent == conversation.agent, row.id == conversation.id, row.peer == conversation.peer)
        async with self._store.transaction() as session:
            await session.execute(delete(row).where(*this))

    def _leave_to_store(self, conversation: Conversation) -> None:
        """Hold in memory only what is needed to know a message for a repetition: there may be thousands."""
        if conversation.state not in OPEN:
            conversation.said = conversation.heard = None
            conversation.stored = True
            if conversation.role == "initiator":
                self._known.pop(conversation.key, None)

    async def _write(self) -> None:
        while (batch := self._batch) is not None:
            self._batch = None
            try:
                await self._write_batch(batch)
            except Exception as error:  # noqa: BLE001 - whoever asked for it hears of it
                batch.error = error
            batch.written.set()

    async def _write_batch(self, batch: _Batch) -> None:
        assert self._store is not None  # noqa: S101 - there are batches only where there is a store
        rows = list(batch.rows.values())
        async with self._store.transaction() as session:
            await session.execute(self._store.upserting(ConversationRow, rows[0]), rows)
            for document, id_, application in batch.documents:
                await self._store.put_in(session, document, id=id_, application=application)


class _Batch:
    """What is written together."""

    def __init__(self) -> None:
        self.written = asyncio.Event()
        self.error: Exception | None = None
        self.rows: dict[Key, dict[str, Any]] = {}
        self.documents: list[Kept] = []


def _forgotten(conversation: Conversation) -> datetime:
    """When memory forgets it."""
    return (conversation.deadline if conversation.stored else conversation.expires) + GRACE


def _values(conversation: Conversation) -> dict[str, Any]:
    said = None if conversation.said is conversation.heard else conversation.said  # an offer is kept once
    return {
        "agent": conversation.agent,
        "id": conversation.id,
        "peer": conversation.peer,
        "role": conversation.role,
        "protocol": conversation.protocol.value,
        "state": conversation.state,
        "asked": f"{conversation.asked.rank}.{conversation.asked.number}",
        "expires": conversation.expires,
        "said": said._asdict() if said else {},
        "heard": conversation.heard._asdict() if conversation.heard else {},
    }


def _conversation(row: ConversationRow) -> Conversation:
    rank, number = map(int, row.asked.split("."))
    said, heard = _as_said(row.said), _as_said(row.heard)
    if said is None and row.role == "participant":
        said = heard
    return Conversation(
        agent=row.agent,
        id=row.id,
        peer=row.peer,
        role=cast(Role, row.role),
        protocol=Protocol(row.protocol),
        state=cast(State, row.state),
        asked=Asked(rank, number),
        answered=Asked(rank, number),
        deadline=row.expires,
        expires=row.expires,
        said=said,
        heard=heard,
    )


def _as_said(values: dict[str, Any]) -> Said | None:
    return Said(Performative(values["performative"]), values["language"], values["body"]) if values else None


@asynccontextmanager
async def repeating(
    agent: RoleAgent, thread: str, heard: Callable[[Message], Job | None], unanswered: Callable[[], Iterable[Message]]
) -> AsyncIterator[None]:
    """Listen to a conversation, and while the block runs say again what is unanswered: at growing intervals, and at
    once when the link was lost and is there again."""

    async def again() -> None:
        for message in list(unanswered()):
            try:
                await agent.send(message)
            except AgencyError as error:  # to be said again later
                agent.log.info("not reached", peer=str(message.to), conversation=thread, error=str(error))

    async def keep_on() -> None:
        pause = REPEAT_AFTER
        while True:
            await asyncio.sleep(pause)
            await again()
            pause = min(2 * pause, LONGEST_PAUSE)

    with agent.listening(thread, heard, again):
        task = agent.work(keep_on())
        try:
            yield
        finally:
            task.cancel()
