"""Agents on real servers: the same conversations over each link and each server, and how they may fail."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from slixmpp.exceptions import IqError
from spade.message import Message

from agency.certificates import new_authority
from agency.messaging import conversations
from agency.messaging.acl import Performative, Protocol, compose, content_of, is_bounce
from agency.messaging.agent import RoleAgent
from agency.messaging.links import Link, client, component
from agency.messaging.links.client import ClientLink, client_link
from agency.messaging.links.component import component_link
from agency.messaging.links.stanzas import ACL
from agency.messaging.request import Responder, ask
from agency.problems import AgencyError, refuse
from agency.running import _link
from agency.servers.running import reserved_ports
from agency.settings import Settings
from agency.state import opened
from descriptors.base import Document
from descriptors.messages import Problem, Request
from tests.integration.test_xmpp_servers import Client
from tests.labs.xmpp import RawComponent, XmppServer, running_server

pytestmark = pytest.mark.integration

DEPLOY = Request(action="deploy", subject="notes")
SOON = 30.0
"""Seconds; the machine that tests run on may be busy."""

Hire = Callable[..., Awaitable[RoleAgent]]


def clients(at: XmppServer, **changes: Any) -> AbstractAsyncContextManager[ClientLink]:
    """A client link to that server, whose agents have accounts as soon as they need one."""

    async def password(jid: str) -> SecretStr:
        return SecretStr((await asyncio.to_thread(at.account, jid.partition("@")[0]))[1])

    given = {"domain": at.domain, "server": at.c2s, "ca": at.ca, "password": password} | changes
    return client_link(**given)


@pytest.fixture(params=["component", "client"])
async def link(request: pytest.FixtureRequest, xmpp_server: XmppServer) -> AsyncIterator[Link]:
    """Each link on each server."""
    if request.param == "client":
        async with clients(xmpp_server) as found:
            yield found
    else:
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
    """A message to an agent that there is not, or whose component is away, comes back as a failure from it, in the
    conversation."""
    anna, nobody = await hire("anna"), f"nobody@{getattr(xmpp_server, where)}"
    bounce = await answers(anna, nobody)
    assert is_bounce(bounce)
    assert (bounce.thread, str(bounce.sender)) == ("t/1", nobody)
    assert content_of(bounce, Problem).code in ("no-such-agent", "server-unreachable")
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
    monkeypatch.setattr(conversations, "LONGEST_PAUSE", 2)
    monkeypatch.setattr(component, "LONGEST_PAUSE", 0.5)
    monkeypatch.setattr(client, "LONGEST_PAUSE", 0.5)
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
        await asyncio.sleep(3)  # what ejabberd knows of an account is on disk a moment later
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


@pytest.mark.parametrize("name", ["anna", "nobody"])
async def test_agents_answer_pings_and_say_what_they_are(
    hire: Hire, link: Link, xmpp_server: XmppServer, name: str
) -> None:
    """Anybody finds an agent by a ping and by service discovery, with our form of messages among its features; for one
    that is not there the answer is an error."""
    agent = await hire("anna")
    there = f"{agent.jid.bare}/agency" if isinstance(link, ClientLink) else agent.jid.bare
    address = there if name == "anna" else link.address(name)
    asks = Client(xmpp_server, *await asyncio.to_thread(xmpp_server.account, "asks"))
    asks.register_plugin("xep_0030")
    asks.register_plugin("xep_0199")
    assert await asks.arrives() == "session_start"
    try:
        if name == "anna":
            await asks["xep_0199"].send_ping(address, timeout=SOON)
            found = await asks["xep_0030"].get_info(address, timeout=SOON)
            assert ACL in found["disco_info"]["features"]
        else:
            with pytest.raises(IqError):
                await asks["xep_0030"].get_info(address, timeout=SOON)
    finally:
        await asks.disconnect()


# --- the client link's own ---


async def code_of(link: AbstractAsyncContextManager[ClientLink]) -> Problem:
    """The problem that an agent's start on that link ends with, within a bounded time."""
    async with asyncio.timeout(SOON), link as found:
        with pytest.raises(AgencyError) as error:
            await RoleAgent(found.address("anna"), found).start()
    return error.value.problem


async def test_a_foreign_authority_is_not_believed(xmpp_server: XmppServer, tmp_path: Path) -> None:
    """A server whose certificate is from another authority than the one given gets no password, and no message."""
    ca = tmp_path / "ca.pem"
    ca.write_bytes(new_authority("elsewhere.test").certificate)
    problem = await code_of(clients(xmpp_server, ca=ca))
    assert problem.code == "bad-certificate"
    assert "AGENCY_CA" in problem.remedy


async def test_a_certificate_for_another_name_is_not_believed(xmpp_server: XmppServer) -> None:
    """A certificate that is valid, but not for the domain of the agent's address, is refused."""
    problem = await code_of(clients(xmpp_server, domain="b.test"))
    assert problem.code in ("bad-certificate", "server-unreachable")  # or the server hangs up on a domain not its own


async def test_a_wrong_password_is_refused(xmpp_server: XmppServer) -> None:
    """A wrong password ends in words that say what to do, and that do not show it."""
    await asyncio.to_thread(xmpp_server.account, "anna")

    async def password(_: str) -> SecretStr:
        return SecretStr("gu3ssed")

    problem = await code_of(clients(xmpp_server, password=password))
    assert problem.code == "wrong-secret"
    assert "gu3ssed" not in str(problem)


async def test_no_password_and_no_server(xmpp_server: XmppServer) -> None:
    """Without a password nothing is tried; without a server the error says where none is."""

    async def none(_: str) -> None:
        return None

    assert (await code_of(clients(xmpp_server, password=none))).code == "no-secret"
    with reserved_ports(1) as (port,):
        problem = await code_of(clients(xmpp_server, server=("127.0.0.1", port)))
    assert problem.code == "server-unreachable"
    assert str(port) in problem.message


async def test_a_connection_that_breaks_is_resumed(xmpp_server: XmppServer) -> None:
    """A connection that breaks while the server runs on is made again with nothing lost: what was sent to the agent
    meanwhile arrives, and nobody is told of a new session."""
    async with clients(xmpp_server) as link:
        told, heard = [], asyncio.Queue()

        class Agent(RoleAgent):
            async def setup(self) -> None:
                self.take_part(Protocol.REQUEST, heard.put_nowait)

            def reconnected(self) -> None:
                told.append(self)

        anna, bob = Agent(link.address("anna"), link), RoleAgent(link.address("bob"), link)
        await anna.start()
        await bob.start()
        link._sessions[anna.jid.bare]._client.transport.abort()
        await bob.send(compose(anna.jid.bare, Performative.INFORM, Protocol.REQUEST, "t"))
        async with asyncio.timeout(SOON):
            assert (await heard.get()).sender.bare == bob.jid.bare
        assert told == []
        await anna.stop()
        await bob.stop()


# --- chosen in settings ---


@pytest.mark.parametrize("kind", ["component", "client"])
async def test_an_agency_logs_in_with_what_its_state_directory_keeps(xmpp_server: XmppServer, kind: str) -> None:
    """Settings choose the link, and the secret that `agency server init` or `agency server account` kept is found; the
    agents reach each other over it."""
    chosen = {
        "component": {"domain": xmpp_server.agents, "server": "{}:{}".format(*xmpp_server.component)},
        "client": {"domain": xmpp_server.domain, "server": "{}:{}".format(*xmpp_server.c2s), "ca": xmpp_server.ca},
    }
    for name in ("anna", "bob"):
        await asyncio.to_thread(xmpp_server.account, name)
    settings = Settings(state=xmpp_server.state, link=kind, **chosen[kind])
    async with opened(settings) as (_, credentials), _link(settings, credentials) as link:
        anna, bob = [RoleAgent(link.address(name), link) for name in ("anna", "bob")]
        Responder.install(bob, {Request: echo})
        await anna.start()
        await bob.start()
        async with asyncio.timeout(SOON):
            assert await ask(anna, str(bob.jid), DEPLOY, Request) == DEPLOY
        await anna.stop()
        await bob.stop()


async def test_an_agency_without_a_secret(tmp_path: Path) -> None:
    """Without a secret, an agency says how to give it one, and tries nothing."""
    settings = Settings(state=tmp_path, link="component", domain="agency.a.test", server="127.0.0.1:1")
    async with opened(settings) as (_, credentials):
        with pytest.raises(AgencyError, match=r"component agency\.a\.test") as error:
            async with _link(settings, credentials):
                pass
        assert error.value.problem.code == "no-secret"
        given = settings.model_copy(update={"link_secret": SecretStr("s3cret")})
        with pytest.raises(AgencyError) as error:
            async with _link(given, credentials):
                pass
    assert error.value.problem.code == "server-unreachable"
    assert "s3cret" not in repr(given)
