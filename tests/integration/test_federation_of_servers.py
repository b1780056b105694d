"""Two sites, ejabberd and Prosody, as `agency server init` sets them up: server-to-server XMPP with verified TLS."""

from __future__ import annotations

import select
from collections.abc import Iterator
from contextlib import contextmanager
from xml.etree import ElementTree as ET

import pytest

from agency.certificates import Authority, certify
from tests.labs.agency import wait_until
from tests.labs.dns import name_server
from tests.labs.xmpp import RawComponent, RawStream, TwoSites, XmppServer, server_set_up

pytestmark = pytest.mark.integration

TLS = "urn:ietf:params:xml:ns:xmpp-tls"
PAIRS = [("ejabberd", "prosody"), ("prosody", "ejabberd"), ("ejabberd", "ejabberd"), ("prosody", "prosody")]


def body_or_error(component: RawComponent) -> str:
    """What the component hears next: a body; of a bounce, that it is one."""
    heard = component.receive()
    return "bounced" if heard.get("type") == "error" else heard.findtext("{*}body") or ""


def echoed(ours: RawComponent, theirs: RawComponent) -> bool:
    """Whether a message gets there, and its answer back; if not, it bounces."""
    ours.message(f"vendor@{theirs.jid}", "there?")
    readable, _, _ = select.select([ours.socket, theirs.socket], [], [])
    if ours.socket in readable:
        assert body_or_error(ours) == "bounced"
        return False
    return body_or_error(theirs) == "there?"


@contextmanager
def two(kinds: tuple[str, str]) -> Iterator[tuple[XmppServer, XmppServer]]:
    """Sites c.test and d.test, set up and not started."""
    with (
        name_server() as names,
        server_set_up(kinds[0], "c.test", address="127.0.0.4", names=names) as c,
        server_set_up(kinds[1], "d.test", address="127.0.0.5", names=names) as d,
    ):
        yield c, d


def test_agents_of_two_sites_talk(two_sites: TwoSites) -> None:
    """What an agent of one site sends to one of the other's arrives there, with its sender, in both directions."""
    with RawComponent(two_sites.a) as ours, RawComponent(two_sites.b) as theirs:
        for sender, receiver in ((ours, theirs), (theirs, ours), (ours, theirs)):
            sender.message(f"vendor@{receiver.jid}", f"from {sender.jid}", sender="broker")
            heard = receiver.receive()
            assert heard.findtext("{*}body") == f"from {sender.jid}"
            assert heard.get("from") == f"broker@{sender.jid}"


def test_the_connection_survives_the_other_site_s_restart(two_sites: TwoSites) -> None:
    """While a site is away what is sent there bounces; when it is back, it arrives."""
    with RawComponent(two_sites.a) as ours:
        two_sites.b.stop()
        ours.message(f"vendor@{two_sites.b.agents}", "too early")
        assert body_or_error(ours) == "bounced"
        two_sites.b.start()
        with RawComponent(two_sites.b) as theirs:
            theirs.message(f"broker@{ours.jid}", "back")
            assert body_or_error(ours) == "back"
            wait_until("what is sent there arrives", lambda: echoed(ours, theirs), every=1.0)


@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_a_site_of_a_foreign_authority_is_refused(kinds: tuple[str, str]) -> None:
    """Where one site does not believe the other's authority, nothing passes either way; as soon as it does, all does:
    the certificate was what kept them apart."""
    with two(kinds) as (careful, stranger):
        stranger.believe(careful)
        careful.start()
        stranger.start()
        with RawComponent(careful) as ours, RawComponent(stranger) as theirs:
            theirs.message(f"broker@{ours.jid}", "let me in")
            assert body_or_error(theirs) == "bounced"
            ours.message(f"vendor@{theirs.jid}", "who are you?")
            assert body_or_error(ours) == "bounced"
        careful.believe(stranger)
        careful.restart()
        stranger.restart()
        with RawComponent(careful) as ours, RawComponent(stranger) as theirs:
            theirs.message(f"broker@{ours.jid}", "let me in")
            assert body_or_error(ours) == "let me in"
            ours.message(f"vendor@{theirs.jid}", "welcome")
            assert body_or_error(theirs) == "welcome"


@pytest.mark.parametrize("kinds", PAIRS, ids="-".join)
def test_a_certificate_for_another_name_is_refused(kinds: tuple[str, str]) -> None:
    """A site that is certified by an authority we believe, but as somebody else, is refused both ways."""
    with two(kinds) as (careful, impostor):
        careful.believe(impostor)
        impostor.believe(careful)
        tls = impostor.directory / "tls"
        authority = Authority((tls / "authority.pem").read_bytes(), (tls / "authority-key.pem").read_bytes())
        other = certify(authority, ["e.test", "agency.e.test"])
        (tls / "certificate.pem").write_bytes(other.certificate)
        (tls / "key.pem").write_bytes(other.key)
        careful.start()
        impostor.start()
        with RawComponent(careful) as ours, RawComponent(impostor) as theirs:
            theirs.message(f"broker@{ours.jid}", "I am d.test")
            assert body_or_error(theirs) == "bounced"
            ours.message(f"vendor@{theirs.jid}", "are you?")
            assert body_or_error(ours) == "bounced"


def test_servers_without_tls_are_refused(xmpp_server: XmppServer) -> None:
    """To another server TLS is offered as required, and dialback, which proves nothing, is not offered at all."""
    namespace = "jabber:server' xmlns:db='jabber:server:dialback' from='z.test"
    with RawStream(xmpp_server.s2s, xmpp_server.domain, namespace) as stream:
        features = stream.receive()
        assert features.find(f"{{{TLS}}}starttls/{{{TLS}}}required") is not None
        assert "dialback" not in ET.tostring(features, encoding="unicode")
        stream.send(f"<db:result from='z.test' to='{xmpp_server.domain}'>key</db:result>")
        try:
            heard = ET.tostring(stream.receive(), encoding="unicode")
        except (EOFError, ConnectionError):
            heard = ""
        assert 'type="valid"' not in heard
