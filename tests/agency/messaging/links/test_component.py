"""The component link against a server that misbehaves; what a real one does is in tests/integration/test_links.py."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

import pytest
from pydantic import SecretStr
from spade.message import Message

from agency.messaging.agent import RoleAgent
from agency.messaging.links import component
from agency.messaging.links.component import component_link
from agency.messaging.links.stanzas import STREAMS
from agency.problems import AgencyError

HEADER = f"<stream:stream xmlns='jabber:component:accept' xmlns:stream='{STREAMS}' id='7'>".encode()
LET_IN = HEADER + b"<handshake/>"
SECRET = SecretStr("s3cret")

Serve = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def serving(*scripts: Serve) -> AsyncIterator[int]:
    """A server that treats its first connection after the first script, and so on, and the rest after the last."""
    left = list(scripts)
    tasks: set[asyncio.Task[None]] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        tasks.add(asyncio.current_task())
        script = left.pop(0) if len(left) > 1 else left[0]
        try:
            await script(reader, writer)
        except (asyncio.CancelledError, ConnectionError):
            pass  # the test is over
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def saying(*words: bytes, then: tuple[bytes, ...] = ()) -> Serve:
    """Says that; more, as soon as it hears a presence; then nothing."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.writelines(words)
        if then:
            await reader.readuntil(b"<presence/>")
            writer.writelines(then)
        await asyncio.Event().wait()

    return serve


async def _hangs_up(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(HEADER)
    await writer.drain()


async def code_at(port: int) -> str:
    """The code of the problem that connecting ends with."""
    with pytest.raises(AgencyError) as error:
        async with component_link("a.test", "127.0.0.1", port, SECRET):
            pass
    assert "s3cret" not in str(error.value.problem)
    return error.value.problem.code


@pytest.mark.parametrize("host", ["192.0.2.7", "xmpp.example", "0.0.0.0", ""])
async def test_only_this_machine_s_server(host: str) -> None:
    """The connection is not encrypted: a server elsewhere is refused before anything is sent."""
    with pytest.raises(AgencyError, match="not encrypted"):
        async with component_link("a.test", host, 5347, SECRET):
            pass


@pytest.mark.parametrize(
    "script",
    [
        pytest.param(_hangs_up, id="hangs-up"),
        pytest.param(saying(b"HTTP/1.1 400 Bad Request\r\n\r\n"), id="is-none"),
        pytest.param(saying(HEADER, b"<message/>"), id="never-lets-in"),
        pytest.param(saying(), id="silent"),
        pytest.param(saying(b"<!DOCTYPE x>" + LET_IN), id="document-type"),
    ],
)
async def test_a_server_that_does_not_let_us_in(script: Serve, monkeypatch: pytest.MonkeyPatch) -> None:
    """However a server fails to let us in, that ends in a clear error within a bounded time."""
    monkeypatch.setattr(component, "CONNECT_WITHIN", 0.3)
    async with asyncio.timeout(10), serving(script) as port:
        assert await code_at(port) == "server-unreachable"


async def test_no_server() -> None:
    """Where nobody listens, the error says where, and what to do."""
    async with serving(saying()) as port:
        pass
    assert await code_at(port) == "server-unreachable"


async def test_an_agent_of_another_domain() -> None:
    """An agent whose address is not the component's cannot live on the link: nothing would ever reach it."""
    async with serving(saying(LET_IN)) as port, component_link("a.test", "127.0.0.1", port, SECRET) as link:
        with pytest.raises(AgencyError, match="anna@elsewhere"):
            await RoleAgent("anna@elsewhere", link).start()


@asynccontextmanager
async def agent_on(*scripts: Serve) -> AsyncIterator[tuple[RoleAgent, asyncio.Queue[Message], asyncio.Event]]:
    """Anna on such a server, what she hears, and whether her link was there again."""
    heard, again = asyncio.Queue(), asyncio.Event()

    class Anna(RoleAgent):
        async def setup(self) -> None:
            self.take_part("gossip", heard.put_nowait)

        def reconnected(self) -> None:
            again.set()

    async with serving(*scripts) as port, component_link("a.test", "127.0.0.1", port, SECRET) as link:
        agent = Anna("anna@a.test", link)
        await agent.start()
        link._stream.write("<presence/>")
        yield agent, heard, again
        await agent.stop()


WORD = b"<message from='b@b.test' to='anna@a.test'><acl xmlns='urn:cloud-agency:acl:1' protocol='gossip'/></message>"


@pytest.mark.parametrize(
    "hostile",
    [
        pytest.param(b"<message from='@@@' to='anna@a.test'/>", id="no-address"),
        pytest.param(b"<message to='anna@a.test'/>", id="no-sender"),
        pytest.param(b"<message from='b@b.test'/>", id="no-receiver"),
        pytest.param(b"<message type='error' from='@' to='anna@a.test' id='////'/>", id="error-from-nowhere"),
        pytest.param(b"<message type='error' from='b@b.test' to='nobody@a.test'/>", id="error-to-nobody"),
        pytest.param(b"<iq/>", id="bare-question"),
        pytest.param(b"<presence type='probe'/>", id="bare-presence"),
        pytest.param(b"<unheard xmlns='of'/>", id="unknown"),
        pytest.param(b"<handshake/>", id="handshake-again"),
    ],
)
async def test_a_hostile_stanza_disturbs_nobody(hostile: bytes) -> None:
    """Whatever stanza comes, the next one is heard as if nothing had been."""
    async with asyncio.timeout(10), agent_on(saying(LET_IN, then=(hostile, WORD))) as (_, heard, again):
        message = await heard.get()
        while message.get_metadata("protocol") != "gossip":
            message = await heard.get()
        assert str(message.sender) == "b@b.test"
        assert not again.is_set()


@pytest.mark.parametrize("last", [b"<!-- -->", b"</stream:stream>", b"<stream:error><reset/></stream:error>", b"<a><"])
async def test_after_a_bad_stream_a_new_one_is_begun(last: bytes) -> None:
    """A stream that cannot be gone on with is left for a new connection, and the agents are told."""

    async def breaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LET_IN + last)
        await writer.drain()

    async with asyncio.timeout(10), agent_on(breaks, saying(LET_IN, WORD)) as (_, heard, again):
        await again.wait()
        assert str((await heard.get()).sender) == "b@b.test"


async def test_a_server_that_has_fallen_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    """A server that answers nothing, not even a ping, is given up on, and another connection tried; one that does is
    not, however little it has to say."""
    monkeypatch.setattr(component, "PING_EVERY", 0.05)
    monkeypatch.setattr(component, "PONG_WITHIN", 0.2)
    asked, often = [], asyncio.Event()

    async def lively(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LET_IN)
        while data := await reader.read(65536):
            if b"<ping" in data:
                asked.append(data)
                if len(asked) == 5:
                    often.set()
                writer.write(b"<iq type='result' id='alive' from='a.test' to='a.test'/>")

    async with asyncio.timeout(10), agent_on(saying(LET_IN), lively) as (_, _, again):
        await again.wait()
        again.clear()
        await often.wait()
        assert not again.is_set()


async def test_who_sends_waits_for_a_server_that_does_not_read() -> None:
    """What is not taken is not piled up in memory: the sender waits, and goes on when there is room; if there will be
    none, it hears so."""
    may_read = asyncio.Event()

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(LET_IN)
        await may_read.wait()
        for _ in range(200):
            await reader.read(1 << 20)

    async with asyncio.timeout(20), agent_on(slow, saying()) as (agent, _, _):
        sent = 0

        async def pour() -> None:
            nonlocal sent
            while True:
                await agent.send(Message(to="b@b.test", body="x" * 100_000))
                sent += 1

        pouring = asyncio.create_task(pour())
        stuck = -1
        while sent != stuck:
            assert sent < 500
            stuck = sent
            await asyncio.sleep(0.3)
        may_read.set()
        with pytest.raises(AgencyError) as error:
            await pouring
        assert sent > stuck
        assert error.value.problem.code == "server-unreachable"


async def test_who_sends_on_and_on_hears_that_the_connection_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    """A connection that breaks under somebody who sends and sends ends that, although the event loop has no turn."""
    monkeypatch.setattr(component, "_WRITE_AT_ONCE", 0)
    ends: list[socket.socket] = []

    async def breaks(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        ends.append(writer.get_extra_info("socket"))
        writer.write(LET_IN)
        await asyncio.Event().wait()

    async with asyncio.timeout(20), agent_on(breaks, saying()) as (agent, _, _):
        ends[0].shutdown(socket.SHUT_RDWR)
        with pytest.raises(AgencyError) as error:  # noqa: PT012 - which of them hears it is the system's affair
            for _ in range(1000):
                await agent.send(Message(to="b@b.test", body="x"))
        assert error.value.problem.code == "server-unreachable"
