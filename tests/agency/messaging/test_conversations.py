"""The table of conversations: what binds is in the store, the rest in memory, and neither grows for ever."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest
from spade.message import Message
from sqlalchemy.ext.asyncio import AsyncSession

from agency.messaging import conversations
from agency.messaging.acl import Performative, Protocol, Said, message_of
from agency.messaging.conversations import Asked, Conversation, Conversations, Kept, repeating, reply_with
from agency.store.store import NotStored, Store
from descriptors.base import utc_now
from descriptors.sla import Agreement
from tests.agency.messaging.conftest import Hire
from tests.agency.messaging.test_contract_net import agreement_on, call, offer_for, until

SAID = Said(Performative.PROPOSE, "jose", "token")


def conversation(number: int = 1, *, state: str = "offered", seconds: float = 60, **fields: Any) -> Conversation:
    """A vendor's conversation with the broker, which may be forgotten after so many seconds."""
    until_ = utc_now() + timedelta(seconds=seconds)
    given = {"role": "participant", "state": state, "deadline": until_, "expires": until_, "said": SAID} | fields
    return Conversation(
        "va@test", f"call-{number}", "broker@test", protocol=Protocol.CONTRACT_NET, asked=Asked(0, 1), **given
    )


async def again(store: Store) -> Conversations:
    """The table as a new process finds it."""
    table = Conversations(store)
    await table.load()
    return table


async def test_what_is_kept_is_there_for_the_next_process(store: Store) -> None:
    """What was said, how far it got and what it is in answer to, all as it was."""
    offer = Said(Performative.PROPOSE, "jose", "offer")
    kept = conversation(state="agreed", heard=offer)
    await Conversations(store).keep([kept])
    found = (await (await again(store)).find("va@test", "call-1"))["broker@test"]
    assert (found.state, found.asked, found.said, found.heard) == (
        "agreed",
        Asked(0, 1),
        SAID,
        Said("propose", "jose", "offer"),
    )
    assert found.answered == Asked(0, 1)


async def test_what_ends_while_it_is_looked_for_has_ended(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What memory leaves to the store while the store is read is found as it is then, and not as it was before."""
    table, mine = Conversations(store), conversation(role="initiator", state="withdrawing")
    await table.keep([mine])
    read = table._kept

    async def meanwhile(*about: str) -> dict[str, Conversation]:
        found = await read(*about)
        if mine.state != "cancelled":
            mine.state = "cancelled"
            await table.keep([mine])
        return found

    monkeypatch.setattr(table, "_kept", meanwhile)
    assert (await table.find("va@test", "call-1"))["broker@test"].state == "cancelled"


async def test_a_document_is_kept_in_the_same_moment_or_not_at_all(
    store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where the document cannot be written, the conversation is not either, and whoever asked hears why."""
    agreement = agreement_on(offer_for(call(), "alpha"))
    await Conversations(store).keep([conversation()], [Kept(agreement, agreement.id, "notes")])
    assert await store.get(Agreement, agreement.id) == agreement

    async def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "put_in", full)
    with pytest.raises(OSError, match="No space"):
        await Conversations(store).keep([conversation(2)], [Kept(agreement, "agreement-2", "notes")])
    assert await (await again(store)).find("va@test", "call-2") == {}
    with pytest.raises(NotStored):
        await store.get(Agreement, "agreement-2")


async def test_many_at_once_are_few_transactions(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand offers of one moment are not a thousand writes to the disk."""
    begun, transaction = [], store.transaction
    monkeypatch.setattr(store, "transaction", lambda: begun.append(1) or transaction())
    table = Conversations(store)
    await asyncio.gather(*(table.keep([conversation(number)]) for number in range(1000)))
    assert len(begun) < 10
    assert len(await table.find("va@test", "call-999")) == 1


async def test_many_read_at_once_in_turns(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """A thousand vendors that hear a call again leave the store's connections to others, too."""
    table, mine = Conversations(store), [conversation(number) for number in range(200)]
    await table.keep(mine)
    transaction, now, most = store.transaction, 0, 0

    @asynccontextmanager
    async def counted() -> AsyncIterator[AsyncSession]:
        nonlocal now, most
        now += 1
        most = max(most, now)
        async with transaction() as session:
            yield session
        now -= 1

    monkeypatch.setattr(store, "transaction", counted)
    found = await asyncio.gather(*(table.full(each) for each in mine))
    assert [each.said for each in found] == [SAID] * 200
    assert 1 < most < 10


async def test_what_goes_on_while_it_is_read_is_as_it_is_then(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whoever asks for what was said while something new is said gets the new."""
    table, mine = Conversations(store), conversation()
    await table.keep([mine])
    read, new = table._kept, Said(Performative.PROPOSE, "jose", "another token")

    async def meanwhile(*about: str) -> dict[str, Conversation]:
        found = await read(*about)
        if mine.asked == Asked(0, 1):
            mine.asked = mine.answered = Asked(0, 2)
            mine.said, mine.stored = new, False
            await table.keep([mine])
        return found

    monkeypatch.setattr(table, "_kept", meanwhile)
    assert (await table.full(mine)).said == new


async def test_what_is_over_is_forgotten_and_what_was_agreed_is_not(store: Store) -> None:
    """Offers that have expired leave the store at the next start; agreements stay, and so does what is still open."""
    long_ago = -(conversations.GRACE.total_seconds() + 60)
    kept = [
        conversation(1, seconds=long_ago),
        conversation(2, state="agreed", seconds=long_ago),
        conversation(3, state="accepting", role="initiator", seconds=long_ago),
    ]
    await Conversations(store).keep(kept)
    table = await again(store)
    assert [len(await table.find("va@test", f"call-{number}")) for number in (1, 2, 3)] == [0, 1, 1]
    assert [each.id for each in table.open("va@test")] == ["call-3"]


async def test_memory_holds_little_and_not_for_long(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is in the store is not held in memory too, and what can no longer come again is not held at all."""
    monkeypatch.setattr(conversations, "GRACE", timedelta(0))
    table = Conversations(store)
    kept = conversation(1, seconds=0.05)
    await table.keep([kept])
    assert kept.said is None
    assert (await table.full(kept)).said == SAID
    await asyncio.sleep(0.06)
    table.remember(conversation(2))
    assert table.get(kept.key) is None
    assert (await table.find("va@test", "call-1"))["broker@test"].said == SAID


async def test_without_a_store_all_is_in_memory() -> None:
    """An agent without a store keeps its word as long as it lives and its offer stands."""
    table = Conversations()
    await table.load()
    kept = conversation()
    await table.keep([kept])
    assert (await table.full(kept)).said == SAID
    assert await table.find("va@test", "call-1") == {"broker@test": kept}
    await table.end(kept)
    assert await table.find("va@test", "call-1") == {}


@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        ("cfp.1", "cfp.2"),
        ("cfp.9", "accept-proposal.1"),
        ("accept-proposal.1", "accept-proposal.2"),
        ("accept-proposal.1", "reject-proposal.1"),
        ("accept-proposal.3", "cancel.1"),
        ("reject-proposal.1", "cancel.1"),
    ],
)
def test_later_steps_are_greater(earlier: str, later: str) -> None:
    """Whatever order messages arrive in, the initiator's latest step is known."""
    one, other = (message_of(SAID, "va@test", Protocol.CONTRACT_NET, "t", reply_with=name) for name in (earlier, later))
    assert Asked.by(one) < Asked.by(other)


@pytest.mark.parametrize("name", ["", "cfp", "cfp.", "cfp.x", "cfp.-1", "cfp.99999999999999", "." * 500, "cfp.²"])
def test_a_strange_reply_with_is_a_first_step(name: str) -> None:
    """Others may name their messages as they like: they are taken to say everything once."""
    message = Message(to="va@test", metadata={"performative": "accept-proposal", "reply-with": name})
    assert Asked.by(message) == Asked(1, 1)
    assert reply_with(Performative.ACCEPT_PROPOSAL) == "accept-proposal.1"


async def test_what_is_unanswered_is_said_again(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    """At intervals, and at once when the link is back; never after the conversation."""
    monkeypatch.setattr(conversations, "REPEAT_AFTER", 0.05)
    anna, bob = await hire("anna"), await hire("bob")
    heard: list[Message] = []
    bob.take_part(Protocol.CONTRACT_NET, heard.append)
    message = message_of(SAID, "bob@test", Protocol.CONTRACT_NET, "t")
    unanswered = [message]
    async with repeating(anna, "t", lambda _: None, lambda: unanswered):
        await until(lambda: len(heard) >= 2)
        before = len(heard)
        anna.reconnected()
        await until(lambda: len(heard) > before)
    count = len(heard)
    anna.reconnected()
    await asyncio.sleep(0.1)
    assert len(heard) == count
