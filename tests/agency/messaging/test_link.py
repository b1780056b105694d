"""The in-process link: delivers copies, or raises."""

from __future__ import annotations

import asyncio

import pytest
from spade.message import Message

from agency.messaging.agent import RoleAgent, Talking
from agency.messaging.link import InProcessLink
from agency.problems import AgencyError
from tests.agency.messaging.conftest import Hire


class Listener(Talking):
    """Keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()

    async def on_message(self, message: Message) -> None:
        """Keep it."""
        await self.heard.put(message)


def listening(agent: RoleAgent) -> Listener:
    """Let the agent listen to everything."""
    listener = Listener()
    agent.add_behaviour(listener)
    return listener


async def heard(listener: Listener) -> Message:
    """The next message, which must come soon."""
    async with asyncio.timeout(5):
        return await listener.heard.get()


async def test_a_message_arrives_with_its_sender(hire: Hire) -> None:
    """The receiver hears what was said, and who said it."""
    anna, bob = listening(await hire("anna")), listening(await hire("bob"))
    await anna.send(Message(to="bob@test", body="hello", thread="t", metadata={"performative": "inform"}))
    message = await heard(bob)
    assert (message.body, message.thread, str(message.sender)) == ("hello", "t", "anna@test")
    assert message.get_metadata("performative") == "inform"


async def test_an_unknown_receiver_is_an_error(hire: Hire) -> None:
    """A message to nobody raises, and says whom it was for: nothing is lost silently."""
    anna = listening(await hire("anna"))
    with pytest.raises(AgencyError, match="nobody@test") as error:
        await anna.send(Message(to="nobody@test", body="hello"))
    assert error.value.problem.code == "no-such-agent"


async def test_who_has_stopped_is_unknown(hire: Hire) -> None:
    """An agent that has stopped cannot be reached any more."""
    anna, bob = listening(await hire("anna")), await hire("bob")
    await anna.send(Message(to="bob@test", body="hello"))
    await bob.stop()
    with pytest.raises(AgencyError):
        await anna.send(Message(to="bob@test", body="hello"))


async def test_the_receiver_has_a_copy(hire: Hire) -> None:
    """What a receiver does to a message changes nothing for the sender, nor for another receiver."""
    anna, bob, carol = [listening(await hire(name)) for name in ("anna", "bob", "carol")]
    message = Message(to="bob@test", body="hello", metadata={"language": "json"})
    await anna.send(message)
    message.to = "carol@test"
    await anna.send(message)
    first = await heard(bob)
    first.body = "changed"
    first.set_metadata("language", "changed")
    second = await heard(carol)
    assert (message.body, second.body) == ("hello", "hello")
    assert (message.get_metadata("language"), second.get_metadata("language")) == ("json", "json")
    assert str(first.to) == "bob@test"


async def test_a_behaviour_that_stumbles_goes_on(hire: Hire) -> None:
    """A message that cannot be handled does not end the behaviour: the next one is handled."""

    class Clumsy(Listener):
        async def on_message(self, message: Message) -> None:
            if message.body == "stone":
                raise ZeroDivisionError
            await super().on_message(message)

    anna, bob = listening(await hire("anna")), Clumsy()
    (await hire("bob")).add_behaviour(bob)
    await anna.send(Message(to="bob@test", body="stone"))
    await anna.send(Message(to="bob@test", body="path"))
    assert (await heard(bob)).body == "path"


async def test_a_slow_message_does_not_hold_up_the_next(hire: Hire) -> None:
    """Each message is handled as a job of its own: one that waits for ever delays nobody."""

    class Slow(Listener):
        async def on_message(self, message: Message) -> None:
            if message.body == "wait":
                await asyncio.Event().wait()
            await super().on_message(message)

    anna, bob = listening(await hire("anna")), Slow()
    (await hire("bob")).add_behaviour(bob)
    await anna.send(Message(to="bob@test", body="wait"))
    await anna.send(Message(to="bob@test", body="next"))
    assert (await heard(bob)).body == "next"


async def test_work_ends_with_the_agent(hire: Hire) -> None:
    """An agent that stops ends the jobs that it still has at hand."""
    agent, ended = await hire("anna"), asyncio.Event()

    async def job() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    agent.work(job())
    await asyncio.sleep(0)
    await agent.stop()
    assert ended.is_set()


async def test_a_new_link_starts_empty(link: InProcessLink, hire: Hire) -> None:
    """Agents of an earlier link in the same process are not reached over a new one."""
    anna = listening(await hire("anna"))
    fresh = InProcessLink()
    with pytest.raises(AgencyError):
        await fresh.send(Message(to="anna@test", body="hello"), anna)
