"""Agents on real servers: the same conversations over each link and each server, and how they may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
from pydantic import SecretStr
from spade.message import Message

from agency.messaging import request
from agency.messaging.acl import Performative, Protocol, compose, content_of, is_bounce
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link, component
from agency.messaging.links.component import component_link
from agency.messaging.request import Responder, ask
from agency.problems import AgencyError, refuse
from descriptors.base import Document
from descriptors.messages import Problem, Request
from tests.labs.xmpp import RawComponent, XmppServer, running_server

pytestmark = pytest.mark.integration

DEPLOY = Request(action="deploy", subject="notes")
SOON = 30.0
"""Seconds; the machine that tests run on may be busy."""

Hire = Callable[..., Awaitable[RoleAgent]]


@pytest.fixture
async def link(xmpp_server: XmppServer) -> AsyncIterator[Link]:
    """Each link on each server."""
    async with component_link(xmpp_server.agents, *xmpp_server.component, SecretStr(xmpp_server.secret)) as found:
        yield found


@pytest.fixture
async def hire(link: Link) -> AsyncIterator[Hire]:
    """Starts an agent of that name, that answers requests with a function."""
    hired: list[RoleAgent] = []

    async def start(name: str, handle: Callable[[Request], Awaitable[Document]] | None = None) -> RoleAgent:
        agent = RoleAgent(link.address(name), link)
        if handle is not None:
            Responder.install(agent, {Request: handle})
        await agent.start()
        hired.append(agent)
        return agent

    yield start
    for agent in hired:
        await agent.stop()


async def echo(content: Request) -> Request:
    """Do as asked."""
    return content


async def answers(agent: RoleAgent, to: str, thread: str = "t/1") -> Message:
    """The first answer to a request, whatever it is."""
    heard: asyncio.Queue[Message] = asyncio.Queue()
    with agent.listening(thread, heard.put_nowait):
        await agent.send(compose(to, Performative.REQUEST, Protocol.REQUEST, thread, DEPLOY))
        async with asyncio.timeout(SOON):
            return await heard.get()


async def test_a_request_is_answered_both_ways(hire: Hire) -> None:
    """Two agents ask each other and get what they asked for; a failure comes with its problem whole."""

    async def refuses(_: Request) -> Request:
        raise refuse("sold-out", "ünd <&> \"'\n all gone", "come again")

    anna, bob = await hire("anna", refuses), await hire("bob", echo)
    async with asyncio.timeout(SOON):
        assert await ask(anna, str(bob.jid), DEPLOY, Request) == DEPLOY
        with pytest.raises(AgencyError) as error:
            await ask(bob, str(anna.jid), DEPLOY, Request)
    assert error.value.problem.code == "sold-out"
    assert error.value.problem.message == "ünd <&> \"'\n all gone"


async def test_many_conversations_at_once(hire: Hire) -> None:
    """Hundreds of requests under way at once each get their own answer, more than a socket's buffers hold."""
    anna, bob = await hire("anna"), await hire("bob", echo)
    questions = [Request(action="deploy", subject=f"{number}{'x' * 200}") for number in range(500)]
    async with asyncio.timeout(2 * SOON):
        found = await asyncio.gather(*(ask(anna, str(bob.jid), each, Request) for each in questions))
    assert found == questions


@pytest.mark.parametrize("where", ["agents", "domain"])
async def test_an_agent_that_is_not_there(hire: Hire, link: Link, xmpp_server: XmppServer, where: str) -> None:
    """A message to an agent that there is not comes back as a failure from it, in the conversation."""
    anna, nobody = await hire("anna"), f"nobody@{getattr(xmpp_server, where)}"
    bounce = await answers(anna, nobody)
    assert is_bounce(bounce)
    assert (bounce.thread, str(bounce.sender)) == ("t/1", nobody)
    assert content_of(bounce, Problem).code == "no-such-agent"
    with pytest.raises(AgencyError, match="nobody@"):
        await ask(anna, nobody, DEPLOY, Request)


async def test_a_site_that_is_not_there(hire: Hire) -> None:
    """A message to a site that cannot be reached comes back as a failure that may pass."""
    bounce = await answers(await hire("anna"), "bob@away.test")
    assert is_bounce(bounce)
    problem = content_of(bounce, Problem)
    assert (problem.code, problem.retryable) == ("server-unreachable", True)


async def test_a_server_that_dies_in_a_conversation(
    hire: Hire, xmpp_server: XmppServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server is killed while an agent works for another and is started again: the result arrives, and the work was
    done once. Meanwhile whoever sends hears at once that it cannot."""
    monkeypatch.setattr(request, "LONGEST_PAUSE", 2)
    monkeypatch.setattr(component, "LONGEST_PAUSE", 0.5)
    begun, may_end, done = asyncio.Event(), asyncio.Event(), []

    async def work(content: Request) -> Request:
        done.append(content)
        begun.set()
        await may_end.wait()
        return content

    anna, bob = await hire("anna"), await hire("bob", work)
    asking = asyncio.create_task(ask(anna, str(bob.jid), DEPLOY, Request))
    async with asyncio.timeout(3 * SOON):
        await begun.wait()
        await asyncio.to_thread(xmpp_server.kill)
        with pytest.raises(AgencyError) as error:  # noqa: PT012 - the link may learn of it a moment later
            while True:
                await anna.send(compose(str(bob.jid), Performative.INFORM, Protocol.REQUEST, "other"))
                await asyncio.sleep(0.01)
        assert (error.value.problem.code, error.value.problem.retryable) == ("server-unreachable", True)
        may_end.set()
        await asyncio.sleep(0.1)
        await asyncio.to_thread(xmpp_server.start)
        assert await asking == DEPLOY
    assert done == [DEPLOY]


# --- the component link's own ---


async def test_a_component_needs_its_secret(xmpp_server: XmppServer) -> None:
    """A wrong secret is refused in words that say what to do, and that do not show it."""
    with pytest.raises(AgencyError) as error:
        async with component_link(xmpp_server.agents, *xmpp_server.component, SecretStr("gu3ssed")):
            pass
    assert error.value.problem.code == "wrong-secret"
    assert "gu3ssed" not in str(error.value.problem)


async def test_a_component_must_be_known(xmpp_server: XmppServer) -> None:
    """A domain that the server has no component for is refused in clear words."""
    with pytest.raises(AgencyError, match="component elsewhere") as error:
        async with component_link("elsewhere.test", *xmpp_server.component, SecretStr(xmpp_server.secret)):
            pass
    assert error.value.problem.code in ("wrong-secret", "unknown-component")


async def test_another_that_takes_the_component_s_place() -> None:
    """Where the server lets a second one in as the component, the first is told and comes back when it can."""
    with running_server("prosody") as server:
        async with component_link(server.agents, *server.component, SecretStr(server.secret)) as link:
            again = asyncio.Event()

            class Agent(RoleAgent):
                def reconnected(self) -> None:
                    again.set()

            agent = Agent(link.address("anna"), link)
            await agent.start()
            rival = await asyncio.to_thread(RawComponent, server)
            rival.close()
            async with asyncio.timeout(SOON):
                await again.wait()
            await agent.stop()


async def test_agents_answer_pings_and_say_what_they_are(hire: Hire, link: Link) -> None:
    """An agent is found by service discovery and a ping; for one that is not there the answer is an error."""
    heard: asyncio.Queue[object] = asyncio.Queue()
    await hire("anna")
    stream = link._stream
    stream._take = lambda _, stanza: (
        heard.put_nowait(stanza) if stanza.attributes["to"].startswith("x") else take(_, stanza)
    )
    take = link._take
    for name, kind in (("anna", "result"), ("nobody", "error")):
        for content in ("<ping xmlns='urn:xmpp:ping'/>", "<query xmlns='http://jabber.org/protocol/disco#info'/>"):
            stream.write(f"<iq type='get' id='1' from='{link.address('x')}' to='{link.address(name)}'>{content}</iq>")
            async with asyncio.timeout(SOON):
                answer = await heard.get()
            assert answer.attributes["type"] == kind
            assert answer.attributes["from"] == link.address(name)
