"""Agents on the in-process link: messages come as copies or not at all, and find who waits for them."""

from __future__ import annotations

import asyncio
import gc
import tracemalloc
from collections.abc import Callable

import pytest
from spade.behaviour import CyclicBehaviour
from spade.message import Message
from spade.template import Template

from agency.messaging.agent import RoleAgent
from agency.messaging.links.in_process import InProcessLink
from agency.problems import AgencyError
from tests.agency.messaging.conftest import Hire

PROTOCOL = {"protocol": "gossip"}


class Behaviour(CyclicBehaviour):
    """A third party's behaviour, as SPADE's handbook has them: keeps what it hears."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: asyncio.Queue[Message] = asyncio.Queue()

    async def run(self) -> None:
        """Keep the next message."""
        if message := await self.receive(timeout=60):
            await self.heard.put(message)


def listening(agent: RoleAgent) -> asyncio.Queue[Message]:
    """Let the agent take part in gossip; gives what it hears."""
    heard: asyncio.Queue[Message] = asyncio.Queue()
    agent.take_part("gossip", heard.put_nowait)
    return heard


async def next_of(heard: asyncio.Queue[Message]) -> Message:
    """The next message, which must come soon."""
    async with asyncio.timeout(30):
        return await heard.get()


def gossip(to: str, body: str = "hello", thread: str | None = None, **parameters: str) -> Message:
    """A message in our test's protocol."""
    return Message(to=to, body=body, thread=thread, metadata=PROTOCOL | parameters)


async def test_a_message_arrives_with_its_sender(hire: Hire) -> None:
    """The receiver hears what was said, and who said it."""
    anna, bob = await hire("anna"), listening(await hire("bob"))
    await anna.send(gossip("bob@test", thread="t", performative="inform"))
    message = await next_of(bob)
    assert (message.body, message.thread, str(message.sender)) == ("hello", "t", "anna@test")
    assert message.get_metadata("performative") == "inform"


async def test_an_agent_speaks_in_its_own_name(hire: Hire) -> None:
    """Whatever sender a message claims, it leaves with the address of the agent that sends it."""
    anna, bob = await hire("anna"), listening(await hire("bob"))
    message = gossip("bob@test")
    message.sender = "mallory@test"
    await anna.send(message)
    assert str((await next_of(bob)).sender) == "anna@test"


async def test_an_unknown_receiver_is_an_error(hire: Hire) -> None:
    """A message to nobody raises, and says whom it was for: nothing is lost silently."""
    anna = await hire("anna")
    with pytest.raises(AgencyError, match="nobody@test") as error:
        await anna.send(gossip("nobody@test"))
    assert error.value.problem.code == "no-such-agent"


async def test_who_has_stopped_is_unknown(hire: Hire) -> None:
    """An agent that has stopped cannot be reached any more."""
    anna, bob = await hire("anna"), await hire("bob")
    await anna.send(gossip("bob@test"))
    await bob.stop()
    with pytest.raises(AgencyError):
        await anna.send(gossip("bob@test"))


async def test_the_receiver_has_a_copy(hire: Hire) -> None:
    """What a receiver does to a message changes nothing for the sender, nor for another receiver."""
    anna = await hire("anna")
    bob, carol = [listening(await hire(name)) for name in ("bob", "carol")]
    message = gossip("bob@test", language="json")
    await anna.send(message)
    message.to = "carol@test"
    await anna.send(message)
    first = await next_of(bob)
    first.body = "changed"
    first.set_metadata("language", "changed")
    second = await next_of(carol)
    assert (message.body, second.body) == ("hello", "hello")
    assert (message.get_metadata("language"), second.get_metadata("language")) == ("json", "json")
    assert str(first.to) == "bob@test"


async def test_a_new_link_starts_empty(hire: Hire) -> None:
    """Agents of an earlier link in the same process are not reached over a new one."""
    await hire("anna")
    with pytest.raises(AgencyError):
        await InProcessLink().send(gossip("anna@test"))


# --- who gets a message ---


async def test_an_open_conversation_comes_before_the_protocol(hire: Hire) -> None:
    """Who listens to a conversation gets its messages; outside of it, the protocol's handler does."""
    anna, bob = await hire("anna"), await hire("bob")
    protocol, conversation = listening(bob), asyncio.Queue()
    with bob.listening("t", conversation.put_nowait):
        await anna.send(gossip("bob@test", "for the conversation", thread="t"))
        await anna.send(gossip("bob@test", "for another", thread="u"))
    await anna.send(gossip("bob@test", "too late", thread="t"))
    assert (await next_of(conversation)).body == "for the conversation"
    assert [(await next_of(protocol)).body for _ in range(2)] == ["for another", "too late"]
    assert conversation.empty()


async def test_several_may_listen_to_one_conversation(hire: Hire) -> None:
    """Each listener hears everything, and one that leaves does not silence the others."""
    anna, bob = await hire("anna"), await hire("bob")
    first, second = asyncio.Queue(), asyncio.Queue()
    with bob.listening("t", first.put_nowait):
        with bob.listening("t", second.put_nowait):
            await anna.send(gossip("bob@test", "one", thread="t"))
        await anna.send(gossip("bob@test", "two", thread="t"))
    assert [(await next_of(first)).body for _ in range(2)] == ["one", "two"]
    assert (second.qsize(), (await next_of(second)).body) == (1, "one")


@pytest.mark.parametrize("performative", ["failure", "not-understood"])
async def test_bad_news_is_only_for_who_waits_for_an_answer(hire: Hire, performative: str) -> None:
    """A failure that no conversation waits for is not handed on: two agents would tell each other for ever."""
    anna, bob = await hire("anna"), await hire("bob")
    protocol, conversation = listening(bob), asyncio.Queue()
    await anna.send(gossip("bob@test", "unwanted", performative=performative))
    with bob.listening("t", conversation.put_nowait):
        await anna.send(gossip("bob@test", "wanted", thread="t", performative=performative))
    await anna.send(gossip("bob@test", "last", performative="inform"))
    assert (await next_of(conversation)).body == "wanted"
    assert (await next_of(protocol)).body == "last"


async def test_a_behaviour_of_a_third_party_gets_what_nobody_else_claims(hire: Hire) -> None:
    """SPADE's behaviours, with their templates, hear what belongs to none of our conversations and protocols."""
    anna, bob = await hire("anna"), await hire("bob")
    protocol, other = listening(bob), Behaviour()
    bob.add_behaviour(other, Template(metadata={"colour": "blue"}))
    await anna.send(gossip("bob@test", "ours", colour="blue"))
    await anna.send(Message(to="bob@test", body="red", metadata={"colour": "red"}))
    await anna.send(Message(to="bob@test", body="blue", metadata={"colour": "blue"}))
    assert (await next_of(other.heard)).body == "blue"
    assert (await next_of(protocol)).body == "ours"
    assert other.heard.empty()


async def test_a_behaviour_of_a_third_party_sends_over_the_agent_s_link(hire: Hire) -> None:
    """What a SPADE behaviour sends goes the same way as everything else, in its agent's name."""
    anna, bob = await hire("anna"), listening(await hire("bob"))
    behaviour = Behaviour()
    anna.add_behaviour(behaviour)
    await behaviour.send(gossip("bob@test"))
    assert str((await next_of(bob)).sender) == "anna@test"


async def test_what_comes_before_an_agent_is_set_up_waits(link: InProcessLink, hire: Hire) -> None:
    """An agent that can be reached, but is still being set up, takes its messages when it is."""
    anna, heard = await hire("anna"), asyncio.Queue()

    class Slow(RoleAgent):
        async def setup(self) -> None:
            await anna.send(gossip("slow@test"))
            self.take_part("gossip", heard.put_nowait)

    agent = Slow("slow@test", link)
    await agent.start()
    assert (await next_of(heard)).body == "hello"
    await agent.stop()


async def test_conversations_learn_that_the_link_is_back(hire: Hire) -> None:
    """Each open conversation that wants to know is told, by a call or as a job; one that has ended is not."""
    bob, told = await hire("bob"), asyncio.Queue()

    async def job() -> None:
        told.put_nowait("job")

    with bob.listening("t", print, lambda: told.put_nowait("call")), bob.listening("u", print, job):
        with bob.listening("t", print, lambda: told.put_nowait("ended")):
            pass
        bob.reconnected()
        assert {await next_of(told), await next_of(told)} == {"call", "job"}
    bob.reconnected()
    assert told.empty()


# --- jobs ---


@pytest.mark.parametrize("as_job", [True, False])
async def test_a_handler_that_stumbles_is_called_again(hire: Hire, as_job: bool) -> None:
    """A message that cannot be handled does not end anything: the next one is handled."""
    anna, bob, heard = await hire("anna"), await hire("bob"), asyncio.Queue()

    def call(message: Message) -> None:
        if message.body == "stone":
            raise ZeroDivisionError
        heard.put_nowait(message)

    async def job(message: Message) -> None:
        call(message)

    bob.take_part("gossip", job if as_job else call)
    await anna.send(gossip("bob@test", "stone"))
    await anna.send(gossip("bob@test", "path"))
    assert (await next_of(heard)).body == "path"


async def test_a_slow_message_does_not_hold_up_the_next(hire: Hire) -> None:
    """A handler's job is a task of its own: one that waits for ever delays nobody."""
    anna, bob, heard = await hire("anna"), await hire("bob"), asyncio.Queue()

    async def job(message: Message) -> None:
        if message.body == "wait":
            await asyncio.Event().wait()
        heard.put_nowait(message)

    bob.take_part("gossip", job)
    await anna.send(gossip("bob@test", "wait"))
    await anna.send(gossip("bob@test", "next"))
    assert (await next_of(heard)).body == "next"


def _own(agent: RoleAgent, begun: asyncio.Event, ended: asyncio.Event) -> None:
    async def job() -> None:
        try:
            begun.set()
            await asyncio.Event().wait()
        finally:
            ended.set()

    agent.work(job())


def _third_party(agent: RoleAgent, begun: asyncio.Event, ended: asyncio.Event) -> None:
    class Patient(Behaviour):
        async def on_end(self) -> None:
            ended.set()

        async def run(self) -> None:
            try:
                begun.set()
                await self.receive(timeout=600)
            finally:
                ended.set()

    agent.add_behaviour(Patient())


Begin = Callable[[RoleAgent, asyncio.Event, asyncio.Event], None]


@pytest.mark.parametrize("begin", [_own, _third_party])
async def test_work_ends_with_the_agent(hire: Hire, begin: Begin) -> None:
    """An agent that stops ends the jobs and the behaviours that it still has, without waiting for them."""
    agent, begun, ended = await hire("anna"), asyncio.Event(), asyncio.Event()
    begin(agent, begun, ended)
    await begun.wait()
    assert not ended.is_set()
    async with asyncio.timeout(30):
        await agent.stop()
        await ended.wait()


async def test_an_idle_agent_costs_nothing(hire: Hire) -> None:
    """An agent that nobody talks to has no task and no timer, and stays small."""
    await hire("first")
    gc.collect()
    before, loop = asyncio.all_tasks(), asyncio.get_running_loop()
    timers = len(loop._scheduled)
    tracemalloc.start()
    try:
        agents = [await hire(f"v{number}") for number in range(100)]
        for agent in agents:
            listening(agent)
        gc.collect()
        held, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert asyncio.all_tasks() == before
    assert len(loop._scheduled) == timers
    assert held / len(agents) < 30_000
