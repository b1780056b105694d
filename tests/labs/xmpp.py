"""Real XMPP servers for tests: ejabberd and Prosody, set up by ``agency server init`` from our templates and run by
the ``start`` script that it writes, on free ports of loopback. Tests of what is not installed are skipped.

    def test_something(prosody: XmppServer): …          # session-wide, like ``ejabberd``; ``xmpp_server``: each in turn

    with running_server("ejabberd", "b.test") as server:   # one of the test's own
        with RawComponent(server) as component: …

    def test_something(two_sites: TwoSites): …   # session-wide: ejabberd and Prosody, federated; a.test and b.test

All names are looked up at a name server of the lab's: none leaves the machine.

Fixtures are known to all tests through ``tests/conftest.py``. A session-wide server that a test stopped or killed is
started again before the next test has it.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import shutil
import socket
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple, Self
from xml.etree import ElementTree as ET
from xml.sax.saxutils import escape

import pytest

from agency.certificates import Authority, certify
from agency.problems import AgencyError
from agency.servers import secrets
from agency.servers.accounts import make
from agency.servers.running import READY_WITHIN, RunningServer, check_installed, reserved_ports
from agency.servers.setting_up import Kind, Plan, set_up
from agency.settings import Settings
from agency.state import opened
from tests.labs.dns import NameServer, name_server

_STREAM = "http://etherx.jabber.org/streams"


class XmppServer(RunningServer):
    """A server for one domain. ``state`` is a state directory that holds the component's secret."""

    def __init__(self, plan: Plan, state: Path, environment: dict[str, str] | None = None) -> None:
        super().__init__(plan, environment)
        self.kind, self.domain, self.directory, self.state = plan.kind, plan.domain, plan.directory, state
        self.agents = plan.agents
        """The domain of the component."""
        self.pubsub = f"pubsub.{plan.domain}"
        self.address = plan.listen[0]
        self.c2s, self.s2s, self.component = self.addresses()
        self.ca = plan.ca
        self.secret = self._secret_of(self.agents)

    def _secret_of(self, jid: str) -> str:
        async def ask() -> str:
            async with opened(Settings(state=self.state)) as (_, credentials):
                found = await secrets.find(credentials, jid)
            assert found is not None, f"no secret of {jid} is kept"
            return found.get_secret_value()

        return _run(ask())

    def restart(self) -> None:
        """End it in order and start it."""
        self.stop()
        self.start()

    # --- accounts, and whom it believes ---

    def believe(self, other: XmppServer) -> None:
        """Append the other site's authority to those that this one believes; it must be started anew to know."""
        with self.ca.open("ab") as authorities:
            authorities.write((other.directory / "tls" / "authority.pem").read_bytes())

    def account(self, name: str) -> tuple[str, str]:
        """Make an account for an agent: its JID and password, which is kept in ``state``, too."""
        jid = _run(make(name, self.directory, self.state))
        return jid, self._secret_of(jid)


def _run(work):  # type: ignore[no-untyped-def]
    """Run a coroutine whether or not the test itself has a loop: in a thread."""
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, work).result()


def skip_unless_installed(kind: Kind) -> None:
    """Skip the test where that server is not installed."""
    try:
        check_installed(kind)
    except AgencyError as error:
        pytest.skip(f"{error.problem.message}: {error.problem.remedy}")
    if kind is Kind.PROSODY and not any(Path("/usr/lib").glob("*/lua/5.4/lunbound.so")):
        pytest.skip("Prosody finds no other site without Debian's package lua-unbound")


@contextmanager
def server_set_up(
    kind: str,
    domain: str = "a.test",
    *,
    address: str = "127.0.0.1",
    authority: Authority | None = None,
    names: NameServer | None = None,
) -> Iterator[XmppServer]:
    """A server that is set up, and not started. ``authority`` certifies it and is whom it believes; by default one of
    its own. ``names`` is told where it is, and asked where others are; by default it finds nobody. It is stopped, and
    its directory removed, when the block ends."""
    skip_unless_installed(Kind(kind))
    if names is None:
        with (
            name_server() as names,
            server_set_up(kind, domain, address=address, authority=authority, names=names) as server,
        ):
            yield server
        return
    place = Path(tempfile.mkdtemp(prefix=f"agency-{kind}-"))
    place.chmod(0o711)  # it runs as another user
    try:
        with reserved_ports(2, address) as (c2s, s2s), reserved_ports(1) as (component,):
            plan = Plan(
                kind=Kind(kind),
                domain=domain,
                directory=place / "server",
                listen=(address,),
                c2s_port=c2s,
                s2s_port=s2s,
                component_port=component,
            )
            if authority is not None:
                plan = _certified(plan, authority, place)
            _run(set_up(plan, place / "state"))
            names.add(domain, address, s2s)
            server = XmppServer(plan, place / "state", _asking(names, plan, place))
            try:
                yield server
            finally:
                server.stop()
    finally:
        shutil.rmtree(place)


def _asking(names: NameServer, plan: Plan, place: Path) -> dict[str, str]:
    """Have the server ask that name server only; returns what its environment needs for it."""
    if plan.kind is Kind.EJABBERD:
        rules = place / "inetrc"
        asked = f"{{nameserver, {{127,0,0,1}}, {names.port}}}."
        rules.write_text(f'{{resolv_conf, ""}}. {{hosts_file, ""}}. {{lookup, [dns]}}. {asked}\n')
        return {"ERL_INETRC": str(rules)}
    # libunbound asks nobody on the loopback interface, and nobody for .test, unless told
    options = '{ ["do-not-query-localhost:"] = "no"; ["local-zone:"] = "test. transparent"; }'
    rule = f'unbound = {{ resolvconf = false; forward = "127.0.0.1@{names.port}"; options = {options} }}\n'
    configuration = plan.directory / plan.kind.configuration
    configuration.write_text(rule + configuration.read_text())
    return {}


def _certified(plan: Plan, authority: Authority, place: Path) -> Plan:
    from dataclasses import replace

    identity = certify(authority, [*plan.names, f"*.{plan.domain}"])
    files = (place / "given.pem", place / "given-key.pem", place / "given-ca.pem")
    for file, content in zip(files, (identity.certificate, identity.key, identity.authorities), strict=True):
        file.write_bytes(content)
    return replace(plan, certificate=files)


@contextmanager
def running_server(kind: str, domain: str = "a.test", **options: object) -> Iterator[XmppServer]:
    """A server of the test's own, running; the options are those of :func:`server_set_up`."""
    with server_set_up(kind, domain, **options) as server:  # type: ignore[arg-type]
        server.start()
        yield server


class TwoSites(NamedTuple):
    """Two servers that believe each other's authorities: ejabberd for a.test, and Prosody for b.test."""

    a: XmppServer
    b: XmppServer


@contextmanager
def federated_sites() -> Iterator[TwoSites]:
    """Two sites of the test's own, running; everything between them is server-to-server XMPP with verified TLS."""
    with (
        name_server() as names,
        server_set_up("ejabberd", "a.test", address="127.0.0.2", names=names) as a,
        server_set_up("prosody", "b.test", address="127.0.0.3", names=names) as b,
    ):
        a.believe(b)
        b.believe(a)
        for server in (a, b):
            server.start()
        yield TwoSites(a, b)


# --- fixtures ---


@pytest.fixture(scope="session")
def _ejabberd() -> Iterator[XmppServer]:
    with running_server("ejabberd") as server:
        yield server


@pytest.fixture(scope="session")
def _prosody() -> Iterator[XmppServer]:
    with running_server("prosody") as server:
        yield server


@pytest.fixture(scope="session")
def _two_sites() -> Iterator[TwoSites]:
    with federated_sites() as sites:
        yield sites


@pytest.fixture
def two_sites(_two_sites: TwoSites) -> TwoSites:
    """Two federated sites that all tests share; both run."""
    for server in _two_sites:
        if not server.running:
            server.start()
    return _two_sites


@pytest.fixture
def ejabberd(_ejabberd: XmppServer) -> XmppServer:
    """An ejabberd for the domain a.test that all tests share; it runs."""
    if not _ejabberd.running:
        _ejabberd.start()
    return _ejabberd


@pytest.fixture
def prosody(_prosody: XmppServer) -> XmppServer:
    """A Prosody for the domain a.test that all tests share; it runs."""
    if not _prosody.running:
        _prosody.start()
    return _prosody


@pytest.fixture(params=["ejabberd", "prosody"])
def xmpp_server(request: pytest.FixtureRequest) -> XmppServer:
    """Each of the two servers in turn."""
    server: XmppServer = request.getfixturevalue(request.param)
    return server


# --- a client of the simplest kind ---


class RawStream:
    """An XMPP stream over a socket that blocks: what is said is written by hand, and what is heard are elements."""

    def __init__(self, address: tuple[str, int], to: str, namespace: str) -> None:
        self.socket = socket.create_connection(address, READY_WITHIN)
        self._to, self._namespace = to, namespace
        self.open()

    def open(self) -> None:
        """Begin a stream, or begin it anew, and wait for its answer: ``header`` has that."""
        self._parser = ET.XMLPullParser(["start", "end"])
        self._depth = 0
        self._heard: list[ET.Element] = []
        self.header: ET.Element | None = None
        self.send(f"<stream:stream xmlns='{self._namespace}' xmlns:stream='{_STREAM}' to='{self._to}' version='1.0'>")
        while self.header is None:
            self._listen()

    def send(self, xml: str) -> None:
        """Write that."""
        self.socket.sendall(xml.encode())

    def receive(self) -> ET.Element:
        """The next element; EOFError when the server has closed the stream."""
        while not self._heard:
            self._listen()
        return self._heard.pop(0)

    def _listen(self) -> None:
        data = self.socket.recv(65536)
        if not data:
            raise EOFError
        self._parser.feed(data)
        for event, element in self._parser.read_events():
            self._depth += 1 if event == "start" else -1
            if event == "start" and self._depth == 1:
                self.header = element
            elif event == "end" and self._depth == 1:
                self._heard.append(element)
            elif self._depth == 0:
                raise EOFError

    def close(self) -> None:
        """Hang up."""
        self.socket.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class HandshakeRefused(Exception):
    """The server does not let the component in."""


class RawComponent(RawStream):
    """A component (XEP-0114) of the simplest kind, logged in as the agents' domain."""

    def __init__(self, server: XmppServer, secret: str | None = None) -> None:
        super().__init__(server.component, server.agents, "jabber:component:accept")
        assert self.header is not None
        given = (self.header.get("id") or "") + (server.secret if secret is None else secret)
        self.send(f"<handshake>{hashlib.sha1(given.encode()).hexdigest()}</handshake>")  # noqa: S324 - the protocol's
        self.jid = server.agents
        try:
            answer = self.receive()
        except EOFError:
            answer = ET.Element("closed")
        if not answer.tag.endswith("handshake"):
            self.close()
            raise HandshakeRefused(ET.tostring(answer, encoding="unicode"))

    def message(self, to: str, body: str, sender: str = "tester") -> None:
        """Send a message from one of our agents."""
        self.send(f"<message to='{to}' from='{sender}@{self.jid}' id='1'><body>{escape(body)}</body></message>")

    def ask(self, to: str, kind: str, content: str, sender: str | None = None) -> ET.Element:
        """Send an IQ, as the component itself unless said, and wait for its answer: the whole of it."""
        number = os.urandom(4).hex()
        self.send(f"<iq to='{to}' from='{sender or self.jid}' id='{number}' type='{kind}'>{content}</iq>")
        while True:
            heard = self.receive()
            if heard.get("id") == number:
                return heard
