"""FIPA Request on a link that loses messages: what is asked is done once, and its result arrives."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import pytest
from spade.message import Message

from agency.messaging import conversations, request
from agency.messaging.acl import BOUNCED, Performative, Protocol, answer, compose
from agency.messaging.agent import RoleAgent
from agency.messaging.links import unreachable
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.request import Responder, ask, own_site
from agency.problems import AgencyError, refuse
from descriptors.messages import Request
from tests.agency.messaging.conftest import Hire

DEPLOY = Request(action="deploy", subject="notes")


class LossyLink(InProcessLink):
    """Loses the messages that a function chooses, as a server that dies does."""

    lost: Callable[[Message], bool] = staticmethod(lambda _: False)

    async def send(self, message: Message) -> None:
        """See :class:`~agency.messaging.links.Link`."""
        if not self.lost(message):
            await super().send(message)


@pytest.fixture
async def link() -> LossyLink:
    """Instead of the link that loses nothing."""
    return LossyLink()


@pytest.fixture(autouse=True)
def _soon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(conversations, "REPEAT_AFTER", 0.02)


def first(performative: Performative) -> Callable[[Message], bool]:
    """Chooses the first message with that performative."""
    seen = []

    def chosen(message: Message) -> bool:
        if message.get_metadata("performative") != performative.value:
            return False
        seen.append(message)
        return len(seen) == 1

    return chosen


async def working(hire: Hire) -> tuple[RoleAgent, list[Request]]:
    """Anna, who may ask bob; and what bob has done."""
    done: list[Request] = []

    async def handle(content: Request) -> Request:
        done.append(content)
        await asyncio.sleep(0.05)
        return content

    Responder.install(await hire("bob"), {Request: handle})
    return await hire("anna"), done


@pytest.mark.parametrize("lost", [Performative.REQUEST, Performative.AGREE, Performative.INFORM])
async def test_what_is_lost_is_said_again_and_done_once(hire: Hire, link: LossyLink, lost: Performative) -> None:
    """Whichever message is lost, the result arrives, and the action was done one time."""
    anna, done = await working(hire)
    link.lost = first(lost)
    async with asyncio.timeout(30):
        assert await ask(anna, "bob@test", DEPLOY, Request) == DEPLOY
    assert done == [DEPLOY]


async def test_when_the_link_is_back_it_is_said_at_once(
    hire: Hire, link: LossyLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A conversation does not wait for its next repetition when the link was lost and is there again."""
    monkeypatch.setattr(conversations, "REPEAT_AFTER", 600)
    anna, done = await working(hire)
    link.lost = first(Performative.REQUEST)
    asking = asyncio.create_task(ask(anna, "bob@test", DEPLOY, Request))
    await asyncio.sleep(0.01)
    anna.reconnected()
    async with asyncio.timeout(30):
        assert await asking == DEPLOY
    assert done == [DEPLOY]


async def test_a_result_that_cannot_be_sent_is_asked_for_again(hire: Hire, link: LossyLink) -> None:
    """A participant whose link is away when it has its result gives it when the request comes again."""
    anna, done = await working(hire)
    chosen = first(Performative.INFORM)

    def away(message: Message) -> bool:
        if chosen(message):
            raise unreachable("test", "away")
        return False

    link.lost = away
    async with asyncio.timeout(30):
        assert await ask(anna, "bob@test", DEPLOY, Request) == DEPLOY
    assert done == [DEPLOY]


async def bouncing(link: LossyLink, hire: Hire, bounces: Callable[[Message], bool]) -> RoleAgent:
    """Anna, some of whose messages to bob come back."""
    anna, _ = await working(hire)

    def lost(message: Message) -> bool:
        if message.to.bare != "bob@test" or not bounces(message):
            return False
        problem = refuse("server-unreachable", "bob@test was not reached", "wait").problem
        back = answer(message, Performative.FAILURE, problem)
        back.to, back.sender = "anna@test", "bob@test"
        back.set_metadata(BOUNCED, "yes")
        anna.dispatch(back)
        return True

    link.lost = lost
    return anna


async def test_who_cannot_be_reached_is_known_at_once(hire: Hire, link: LossyLink) -> None:
    """A request that bounces ends with the bounce's problem; nobody waits for an answer."""
    anna = await bouncing(link, hire, lambda _: True)
    async with asyncio.timeout(30):
        with pytest.raises(AgencyError) as error:
            await ask(anna, "bob@test", DEPLOY, Request)
    assert error.value.problem.code == "server-unreachable"


async def test_who_has_agreed_may_be_away_for_a_while(
    hire: Hire, link: LossyLink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A repetition that bounces after the agent has agreed does not end the conversation; long silence does."""
    sent = []

    def bounces(message: Message) -> bool:
        sent.append(message)
        return len(sent) > 1

    anna = await bouncing(link, hire, bounces)
    async with asyncio.timeout(30):
        assert await ask(anna, "bob@test", DEPLOY, Request) == DEPLOY

    monkeypatch.setattr(request, "GIVE_UP_AFTER", 0.1)
    sent.clear()
    inner = link.lost
    link.lost = lambda message: inner(message) or message.get_metadata("performative") == "inform"
    async with asyncio.timeout(30):
        with pytest.raises(AgencyError, match="was not reached"):
            await ask(anna, "bob@test", DEPLOY, Request)


async def test_only_whom_was_asked_is_heard(hire: Hire) -> None:
    """An answer from somebody else in the conversation is not used, whatever it claims."""
    anna, stranger, bob = [await hire(name) for name in ("anna", "stranger", "bob")]
    asked: asyncio.Future[Message] = asyncio.get_running_loop().create_future()
    bob.take_part(Protocol.REQUEST, lambda message: None if asked.done() else asked.set_result(message))
    asking = asyncio.create_task(ask(anna, "bob@test", DEPLOY, Request))
    message = await asked
    other = Request(action="stop", subject="notes")
    await stranger.send(compose("anna@test", Performative.INFORM, Protocol.REQUEST, message.thread, other))
    await bob.send(answer(message, Performative.INFORM, DEPLOY))
    async with asyncio.timeout(30):
        assert await asking == DEPLOY


async def test_results_are_forgotten_after_a_while(hire: Hire, monkeypatch: pytest.MonkeyPatch) -> None:
    """A participant keeps its answers only as long as a request may be said again."""
    monkeypatch.setattr(request, "KEEP_FOR", -1)
    bob = await hire("bob")

    async def handle(content: Request) -> Request:
        return content

    responder = Responder(bob, {Request: handle}, own_site(bob))
    bob.take_part(Protocol.REQUEST, responder.on_message)
    anna = await hire("anna")
    async with asyncio.timeout(30):
        for _ in range(3):
            await ask(anna, "bob@test", DEPLOY, Request)
    assert not responder._said
