"""ejabberd and Prosody as `agency server init` sets them up: they let in whom they should, and nobody else."""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
from pathlib import Path
from xml.etree import ElementTree as ET

import pytest
from slixmpp import ClientXMPP
from typer.testing import CliRunner

from agency.cli import app
from tests.labs.xmpp import HandshakeRefused, RawComponent, RawStream, XmppServer

pytestmark = pytest.mark.integration

CLIENT = "jabber:client"
SASL = "urn:ietf:params:xml:ns:xmpp-sasl"
TLS = "urn:ietf:params:xml:ns:xmpp-tls"
PUBSUB = "http://jabber.org/protocol/pubsub"


def context_of(ca: Path) -> ssl.SSLContext:
    """Whoever believes that authority, and no other."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.load_verify_locations(ca)
    return context


def encrypted(server: XmppServer) -> tuple[RawStream, ET.Element]:
    """A client's stream after STARTTLS, and the features it is then offered."""
    stream = RawStream(server.c2s, server.domain, CLIENT)
    stream.receive()
    stream.send(f"<starttls xmlns='{TLS}'/>")
    assert stream.receive().tag == f"{{{TLS}}}proceed"
    stream.socket = context_of(server.ca).wrap_socket(stream.socket, server_hostname=server.domain)
    stream.open()
    return stream, stream.receive()


def heard_or_hung_up(stream: RawStream) -> str:
    """What the server says next; nothing, if it hangs up."""
    try:
        return ET.tostring(stream.receive(), encoding="unicode")
    except (EOFError, ConnectionError):
        return ""


class Client(ClientXMPP):
    """slixmpp, which believes the server's authority and comes with SCRAM only."""

    def __init__(self, server: XmppServer, jid: str, password: str) -> None:
        super().__init__(jid, password, ssl_context=context_of(server.ca), sasl_mech="SCRAM-SHA-256", plugin_config={})
        self.enable_direct_tls = self.enable_plaintext = False
        self.outcome: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        for event in ("session_start", "failed_all_auth", "connection_failed"):
            self.add_event_handler(event, lambda _, event=event: self.outcome.done() or self.outcome.set_result(event))
        self.host, self.port = server.c2s

    async def arrives(self) -> str:
        """Log in; what became of it."""
        self.connect(self.host, self.port)
        return await asyncio.wait_for(self.outcome, 60)


async def test_an_account_that_its_owner_made_logs_in_with_scram(xmpp_server: XmppServer) -> None:
    """`agency server account` makes an account; a client logs in with its password over verified TLS, and with another
    password it does not; asked for again, the account has a new password, and the old one is worth nothing."""
    jid, old = xmpp_server.account("scram")
    client = Client(xmpp_server, jid, old)
    assert await client.arrives() == "session_start"
    await client.disconnect()
    _, new = xmpp_server.account("scram")
    assert new != old
    for password, outcome in ((old, "failed_all_auth"), (new, "session_start")):
        client = Client(xmpp_server, jid, password)
        assert await client.arrives() == outcome
        await client.disconnect()


def test_the_command_makes_accounts_and_shows_no_password(xmpp_server: XmppServer) -> None:
    """`agency server account` makes as many accounts as it is given names, and prints their addresses only."""
    words = ["server", "account", "first", "second", "--dir", str(xmpp_server.directory)]
    done = CliRunner().invoke(app, [*words, "--state", str(xmpp_server.state), "--json"])
    jids = [f"first@{xmpp_server.domain}", f"second@{xmpp_server.domain}"]
    assert json.loads(done.stdout) == {"jids": jids}


def test_before_tls_nothing_is_to_be_had(xmpp_server: XmppServer) -> None:
    """Without TLS a client is offered no way to log in, TLS is required, and who tries to log in all the same is
    refused."""
    with RawStream(xmpp_server.c2s, xmpp_server.domain, CLIENT) as stream:
        features = stream.receive()
        assert features.find(f"{{{TLS}}}starttls/{{{TLS}}}required") is not None
        assert features.find(f"{{{SASL}}}mechanisms") is None
        given = base64.b64encode(b"\0broker\0password").decode()
        stream.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{given}</auth>")
        assert "success" not in heard_or_hung_up(stream)


def test_scram_is_the_only_way_to_log_in(xmpp_server: XmppServer) -> None:
    """Behind TLS every mechanism that is offered is one of SCRAM, and a password in the open is refused there, too."""
    jid, password = xmpp_server.account("plain")
    stream, features = encrypted(xmpp_server)
    with stream:
        offered = [each.text or "" for each in features.iter(f"{{{SASL}}}mechanism")]
        assert "SCRAM-SHA-256" in offered
        assert all(each.startswith("SCRAM-") for each in offered)
        given = base64.b64encode(f"\0{jid.split('@')[0]}\0{password}".encode()).decode()
        stream.send(f"<auth xmlns='{SASL}' mechanism='PLAIN'>{given}</auth>")
        assert "success" not in heard_or_hung_up(stream)


def test_nobody_registers(xmpp_server: XmppServer) -> None:
    """A stranger behind TLS is offered no registration, and who asks for an account is refused and has none."""
    stream, features = encrypted(xmpp_server)
    with stream:
        assert not [each for each in features.iter() if "register" in each.tag]
        stream.send(
            "<iq type='set' id='r'><query xmlns='jabber:iq:register'>"
            "<username>intruder</username><password>intruder</password></query></iq>"
        )
        assert 'type="result"' not in heard_or_hung_up(stream)


@pytest.mark.parametrize("version", [ssl.TLSVersion.TLSv1, ssl.TLSVersion.TLSv1_1])
@pytest.mark.filterwarnings("ignore:ssl.TLSVersion")
def test_old_tls_is_refused(xmpp_server: XmppServer, version: ssl.TLSVersion) -> None:
    """A client that speaks nothing newer than TLS 1.1 is not served."""
    with RawStream(xmpp_server.c2s, xmpp_server.domain, CLIENT) as stream:
        stream.receive()
        stream.send(f"<starttls xmlns='{TLS}'/>")
        stream.receive()
        old = context_of(xmpp_server.ca)
        old.minimum_version = old.maximum_version = version
        old.set_ciphers("ALL:@SECLEVEL=0")
        with pytest.raises((ssl.SSLError, ConnectionError)):
            stream.socket = old.wrap_socket(stream.socket, server_hostname=xmpp_server.domain)


def test_the_component_is_let_in_with_its_secret_only(xmpp_server: XmppServer) -> None:
    """The agents' domain is whose the secret is; a wrong one is refused."""
    with pytest.raises(HandshakeRefused):
        RawComponent(xmpp_server, secret="guessed")
    with RawComponent(xmpp_server) as component:
        component.message(f"broker@{component.jid}", "to ourselves")
        assert component.receive().findtext("{*}body") == "to ourselves"


def test_a_component_cannot_speak_for_others(xmpp_server: XmppServer) -> None:
    """A stanza of the component's with another's sender never arrives with that sender."""
    with RawComponent(xmpp_server) as component:
        component.send(
            f"<message to='x@{component.jid}' from='mediator@{xmpp_server.domain}'><body>forged</body></message>"
        )
        component.message(f"x@{component.jid}", "honest")
        assert "forged" not in heard_or_hung_up(component)  # Prosody hangs up


def test_who_is_not_there_bounces(xmpp_server: XmppServer) -> None:
    """A message to nobody comes back to its sender as an error: nothing is lost silently."""
    with RawComponent(xmpp_server) as component:
        component.message(f"nobody@{xmpp_server.domain}", "hello?")
        heard = component.receive()
        assert (heard.get("type"), heard.get("to")) == ("error", f"tester@{component.jid}")


def test_our_component_publishes_and_others_make_no_nodes(xmpp_server: XmppServer) -> None:
    """The component makes a PubSub node (XEP-0060), publishes there, and a subscriber gets the item; other agents'
    accounts may not make nodes."""
    node = f"events-{xmpp_server.kind}"
    with RawComponent(xmpp_server) as component:
        made = component.ask(xmpp_server.pubsub, "set", f"<pubsub xmlns='{PUBSUB}'><create node='{node}'/></pubsub>")
        assert made.get("type") == "result", ET.tostring(made)
        subscribe = f"<subscribe node='{node}' jid='follower@{component.jid}'/>"
        follower = f"follower@{component.jid}"
        subscribed = component.ask(
            xmpp_server.pubsub, "set", f"<pubsub xmlns='{PUBSUB}'>{subscribe}</pubsub>", sender=follower
        )
        assert subscribed.get("type") == "result", ET.tostring(subscribed)
        item = "<item id='one'><event xmlns='urn:example'>agreed</event></item>"
        component.send(
            f"<iq to='{xmpp_server.pubsub}' from='{component.jid}' id='p' type='set'>"
            f"<pubsub xmlns='{PUBSUB}'><publish node='{node}'>{item}</publish></pubsub></iq>"
        )
        heard = [component.receive(), component.receive()]
        told = next(each for each in heard if each.tag.endswith("message"))
        assert told.get("to") == follower
        assert told.findtext(".//{urn:example}event") == "agreed"
        removed = component.ask(
            xmpp_server.pubsub, "set", f"<pubsub xmlns='{PUBSUB}#owner'><delete node='{node}'/></pubsub>"
        )
        assert removed.get("type") in ("result", None), ET.tostring(removed)


async def test_an_ordinary_account_makes_no_nodes(xmpp_server: XmppServer) -> None:
    """PubSub nodes are the agency's to make: another account's request is refused."""
    client = Client(xmpp_server, *xmpp_server.account("ordinary"))
    client.register_plugin("xep_0060")
    assert await client.arrives() == "session_start"
    from slixmpp.exceptions import IqError

    with pytest.raises(IqError):
        await client["xep_0060"].create_node(xmpp_server.pubsub, "mine")
    await client.disconnect()


def test_a_killed_server_comes_back_with_its_accounts(xmpp_server: XmppServer) -> None:
    """After a kill, and after an orderly end, the server starts again and the component is let in."""
    xmpp_server.kill()
    with pytest.raises(OSError, match="refused"):
        RawComponent(xmpp_server)
    xmpp_server.start()
    xmpp_server.restart()
    RawComponent(xmpp_server).close()


def test_nothing_listens_beyond_loopback(xmpp_server: XmppServer) -> None:
    """What the server listens at is what it was told, and the loopback interface only."""
    listening = Path(f"/proc/{xmpp_server.pid}/net/tcp").read_text().splitlines()[1:]
    inodes = {link.readlink().name for link in Path(f"/proc/{xmpp_server.pid}/fd").iterdir() if link.is_symlink()}
    mine = [
        line.split()[1] for line in listening if f"socket:[{line.split()[9]}]" in inodes and line.split()[3] == "0A"
    ]
    found = {
        (socket.inet_ntoa(bytes.fromhex(where.split(":")[0])[::-1]), int(where.split(":")[1], 16)) for where in mine
    }
    assert found == {xmpp_server.c2s, xmpp_server.s2s, xmpp_server.component}
    assert not [
        line
        for line in Path(f"/proc/{xmpp_server.pid}/net/tcp6").read_text().splitlines()[1:]
        if f"socket:[{line.split()[9]}]" in inodes
    ]
