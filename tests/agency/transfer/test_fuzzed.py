"""Whatever is said to a proxy: it is refused in due form, nothing is written, and the proxy goes on serving."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import ssl
import threading
from collections.abc import Iterator
from contextlib import closing, contextmanager, suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agency.problems import AgencyError
from agency.transfer import control, identity, meeting, proxy
from agency.transfer.control import serving
from agency.transfer.ledger import Ledger, State, Transfer
from agency.transfer.proxy import Limits, Proxy
from agency.transfer.tokens import text_of
from agency.transfer.wire import Lost
from descriptors.base import MIB
from descriptors.messages import Problem
from tests.labs.transfer import Site, push, running, two_sites, until

SHORT = settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def sites(tmp_path: Path) -> tuple[Site, Site]:
    """Two that believe each other."""
    return two_sites(tmp_path)


def works(here: Site, there: Site, port: int) -> None:
    """A transfer does, and nothing but its file is there."""
    disk = here.state / "disk.img"
    disk.write_bytes(os.urandom(MIB))
    token = there.token("write", "disk.img", here.proxy)
    push(here, port, token, disk)
    until(lambda: there.transfer(token).state is State.COMPLETE)
    assert (there.root / "disk.img").read_bytes() == disk.read_bytes()
    assert {each.name for each in there.root.iterdir()} == {"disk.img", ".disk.img.manifest"}


HELLO = meeting._SIZE.size + 39
"""Bytes of a hello with the size that follows."""


def hello(token: bytes) -> st.SearchStrategy[bytes]:
    """Some that may be one, for that token."""
    numbers = st.sampled_from([0, 1, 2, 8, 9, 255])
    sizes = st.sampled_from([0, 1, MIB, meeting.MAX_SIZE, meeting.MAX_SIZE + 1, 2**64 - 1])
    return st.builds(
        lambda magic, version, token, number, of, size: (
            magic + bytes([version]) + token + bytes([number, of]) + size.to_bytes(8, "big")
        ),
        st.sampled_from([b"CATP", b"catp"]),
        st.sampled_from([1, 0, 2]),
        st.sampled_from([token, bytes(32)]) | st.binary(min_size=32, max_size=32),
        numbers,
        numbers,
        sizes,
    )


def test_hellos(sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """Who is known, but says anything at all as a hello, is hung up on, or told in due form why not; a token is not
    used up by that."""
    here, there = sites
    token = there.token("write", "other.img", here.proxy, most=MIB)
    context = identity.calling(here.state)

    @given(hello(token) | st.binary(max_size=3 * HELLO), st.binary(max_size=2000))
    @SHORT
    def say(said: bytes, more: bytes) -> None:
        with (
            socket.create_connection(("127.0.0.1", port)) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as stream,
        ):
            stream.settimeout(30)
            with suppress(OSError):
                stream.sendall(said + more)
                if len(said + more) < HELLO:
                    stream.unwrap()
            if (said + more)[:37] == b"CATP\1" + token and (said + more)[38] != 1:
                return  # it waits for the other streams
            check_answer(stream)

    with running(there) as (_, port):
        with monkeypatch.context() as hurried:
            hurried.setattr(proxy, "PATIENCE", 0.1)  # an honest peer has more
            say()
            until(lambda: there.transfer(token).state in (State.WAITING, State.BROKEN))
        works(here, there, port)


def check_answer(stream: ssl.SSLSocket) -> None:
    """Nothing, or one answer: yes, and what then comes as frames; or no, and a problem."""
    heard = b""
    with suppress(OSError):
        while some := stream.recv(4096):
            heard += some
    if heard:
        code, length, _ = meeting._ANSWER.unpack(heard[: meeting._ANSWER.size])
        assert code in (0, 1)
        if code:
            problem = Problem.model_validate_json(heard[meeting._ANSWER.size :])
            assert len(heard) == meeting._ANSWER.size + length
            assert problem.code in ("unknown-token", "bad-peer", "too-large", "busy", "transfer-running", "token-used")


@given(
    st.binary(max_size=60)
    | st.builds(
        lambda code, length, size, said: meeting._ANSWER.pack(code, length, size) + said,
        st.sampled_from([0, 1, 1, 2]),
        st.sampled_from([0, 2, 20, 64 * 1024, 64 * 1024 + 1, 2**32 - 1]),
        st.sampled_from([0, 1, meeting.MAX_SIZE, meeting.MAX_SIZE + 1]),
        st.binary(max_size=60) | st.sampled_from([b"{}", b"[" * 64 * 1024, b'{"code": 5}', b"\xff" * 20]),
    )
)
@SHORT
def test_answers(said: bytes) -> None:
    """Whatever a proxy answers to a hello is a size that can be, or an error in due form."""
    ours, theirs = socket.socketpair()
    with ours, theirs:
        theirs.sendall(said)
        theirs.shutdown(socket.SHUT_WR)
        try:
            size = meeting._answer(ours)  # type: ignore[arg-type]
        except (AgencyError, Lost):
            return
        assert 0 <= size <= meeting.MAX_SIZE


@contextmanager
def controlled(site: Site) -> Iterator[tuple[httpx.Client, httpx.Client, int]]:
    """Its proxy in this process: who asks it from anywhere, and as its owner; and the data port."""
    known: list[Any] = []
    up, over = threading.Event(), threading.Event()

    async def serve() -> None:
        other = Proxy(site.state, site.root, site.witness, Limits())
        async with serving(other, site.state, ("127.0.0.1", 0), 0) as where:
            known.extend(where)
            up.set()
            await asyncio.to_thread(over.wait)

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    try:
        assert up.wait(30)
        context = identity.anonymous(site.state / "transfer" / "ca.pem")
        inside = httpx.HTTPTransport(uds=str(site.state / "transfer" / "proxy.sock"))
        with (
            httpx.Client(base_url=f"https://{known[0]}", verify=context, timeout=30) as anybody,
            httpx.Client(base_url="http://proxy", transport=inside, timeout=30) as owner,
        ):
            yield anybody, owner, known[1]
    finally:
        over.set()
        thread.join()


TEXT = st.text(st.characters(min_codepoint=33, max_codepoint=126), max_size=30)
PLACES = [
    "/",
    "/transfer",
    "/transfer/verification",
    "/tokens",
    "/transfers",
    "/transfers/x",
    "/transfers/x/verification",
]
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=10,
)
WORDS = st.sampled_from(
    ["../x", "/etc/passwd", ".x", "a/../../x", "x" * 300, "a\0b", "\ud800", "", "x", "raw", "127.0.0.1:1"]
)
MESSAGES = (
    VALUES
    | st.fixed_dictionaries(
        {"direction": st.just("write") | VALUES, "file": WORDS | VALUES, "peer": WORDS | VALUES},
        optional={"format": WORDS | VALUES, "most": VALUES, "seconds": VALUES, "more": VALUES},
    )
    | st.fixed_dictionaries(
        {"to": st.fixed_dictionaries({"address": WORDS | VALUES, "token": WORDS | VALUES}) | VALUES},
        optional={"streams": VALUES},
    )
)
BODIES = (
    st.binary(max_size=200)
    | MESSAGES.map(lambda each: json.dumps(each).encode())
    | st.sampled_from([b"[" * 60_000, b'{"a":' * 10_000, b"1" * 60_000, b"\xff\xfe" * 100, b"x" * MIB])
)


def test_control(sites: tuple[Site, Site]) -> None:
    """Whoever asks the control channel anything, its owner too, is answered in due form: with a problem, or that there
    is no such thing; and no token is issued for what is outside."""
    here, there = sites
    good = there.token("write", "other.img", here.proxy)

    @given(
        st.booleans(),
        st.sampled_from(["GET", "POST", "DELETE", "PUT", "HEAD", "OPTIONS", "PATCH"])
        | st.from_regex("[A-Z]{1,9}", fullmatch=True),
        st.sampled_from(PLACES) | TEXT.map(lambda each: "/" + each),
        st.sampled_from(["", "Bearer", "Bearer x", f"Bearer {text_of(bytes(32))}", "Basic eDp4"]) | TEXT,
        BODIES,
    )
    @SHORT
    def ask(ours: bool, method: str, place: str, authorization: str, body: bytes) -> None:
        with suppress(httpx.InvalidURL):
            who = owner if ours else anybody
            try:
                answer = who.request(method, place, headers={"authorization": authorization}, content=body)
            except httpx.WriteError:  # it has answered, and hung up on, what is too long
                return
            check_answered(answer, method)

    with controlled(there) as (anybody, owner, port):
        ask()
        assert {each.file for each in transfers_of(there)} <= {"other.img", "x", "raw", "127.0.0.1:1"}
        assert list(there.root.iterdir()) == []
        assert there.transfer(good).state is State.WAITING
        works(here, there, port)
        assert anybody.get("/").json()["proxy"] == there.proxy


def check_answered(answer: httpx.Response, method: str) -> None:
    """In due form."""
    assert answer.status_code in (200, 404, 405, 409, 400, 413)
    if answer.status_code == 409 and method != "HEAD":
        problem = Problem.model_validate(answer.json()["problem"])
        assert problem.code != "internal-error", answer.text


def transfers_of(site: Site) -> list[Transfer]:
    """All that its proxy has issued tokens for."""
    with closing(Ledger(site.state / "transfer", mine=False)) as ledger:
        return ledger.all()


def test_control_by_itself(sites: tuple[Site, Site], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is not even HTTP, or never ends, is answered with an error or hung up on."""
    here, there = sites
    monkeypatch.setattr(control, "REQUEST_SECONDS", 0.3)
    begins = [b"GET / HTTP/1.1", b"POST /transfer HTTP/1.1", b"PRI * HTTP/2.0", b"Host: x", b"", b": x", b"ffffffff"]
    lengths = [b"Content-Length: 99999999999", b"Content-Length: -1", b"Transfer-Encoding: chunked"]
    others = [b"Expect: 100-continue", b"Connection: upgrade", b"Upgrade: h2c", b"x: " + b"y" * 70_000]
    lines = st.sampled_from(begins + lengths + others)

    @given(st.binary(max_size=300) | st.lists(lines | st.binary(max_size=40), max_size=8).map(b"\r\n".join))
    @settings(SHORT, max_examples=15)  # most are waited for
    def say(said: bytes) -> None:
        with (
            socket.create_connection(address) as connection,
            context.wrap_socket(connection, server_hostname="127.0.0.1") as stream,
        ):
            stream.settimeout(30)
            heard = b""
            with suppress(OSError):
                stream.sendall(said)
                while some := stream.recv(4096):
                    heard += some
            assert not heard or heard.startswith(b"HTTP/1.1 ")
            assert b"500" not in heard[:12]

    with controlled(there) as (anybody, _, port):
        address = ("127.0.0.1", anybody.base_url.port)
        context = identity.anonymous(there.state / "transfer" / "ca.pem")
        say()
        works(here, there, port)
