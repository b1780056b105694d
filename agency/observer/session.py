"""An observer's session at the XMPP server of its site: verified TLS, SCRAM, and back again when it was lost."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiosasl
import aioxmpp
import aioxmpp.connector
import aioxmpp.security_layer as security
import OpenSSL.SSL
from cryptography import x509
from pydantic import SecretStr

from descriptors.messages import Problem

ANSWER_WITHIN = timedelta(seconds=30)
"""What the server has for each step of a log-in."""
FIRST_PAUSE, LONGEST_PAUSE = 0.5, 30.0
"""Seconds between two attempts to connect again."""


class Failed(Exception):
    """The observer cannot go on; carries the problem to show."""

    def __init__(self, code: str, message: str, remedy: str, *, retryable: bool = False) -> None:
        super().__init__(message)
        words = "".join(each if each.isprintable() else " " for each in message).strip()[:4096]
        self.problem = Problem(code=code, message=words or "no details", remedy=remedy, retryable=retryable)

    @classmethod
    def of(cls, problem: Problem) -> Failed:
        """What somebody else says is the problem."""
        failed = cls(problem.code, problem.message, problem.remedy)
        failed.problem = problem
        return failed


@dataclass(frozen=True)
class Account:
    """Who observes, and how its server is reached."""

    jid: aioxmpp.JID
    password: SecretStr
    server: tuple[str, int] | None
    """Host and port; by default DNS is asked (RFC 6120, 3.2)."""
    ca: Path | None
    """PEM file of the authorities to believe; by default the system's."""


@asynccontextmanager
async def session(account: Account, *, present: bool = False) -> AsyncIterator[aioxmpp.Client]:
    """A session that is established, until the block ends; :class:`Failed` if that cannot be. ``present``: whether to
    get what is sent to the account, and not to this session of it.

    When the connection is lost it is made again, at growing intervals, for as long as it takes.
    """
    _context(account.ca)  # a bad file is refused before anything is said
    ways = [(*account.server, _Patient())] if account.server else []
    verifier, login = _Verifier(), _Scram(account.password.get_secret_value())
    layer = security.SecurityLayer(lambda: _context(account.ca), lambda: verifier, True, (login,))
    client = aioxmpp.Client(
        account.jid, layer, override_peer=ways, negotiation_timeout=ANSWER_WITHIN, max_initial_attempts=1
    )
    if present:
        client.summon(aioxmpp.PresenceServer).set_presence(aioxmpp.PresenceState(available=True))
    connected = client.connected()
    try:
        await connected.__aenter__()
    except Exception as error:
        client.stop()
        raise _failed(error, account, verifier.refused) from error
    try:
        yield client
    finally:
        await connected.__aexit__(None, None, None)


def _failed(error: Exception, account: Account, refused: str) -> Failed:
    where = ":".join(map(str, account.server)) if account.server else account.jid.domain
    if isinstance(error, aiosasl.AuthenticationFailure):
        return Failed("not-let-in", f"{account.jid.bare()}: {error}", "check the JID and its password")
    if refused:
        remedy = "give the authority that certified the server with --ca, and a JID whose domain it serves"
        return Failed("not-trusted", f"the server at {where} is not trusted: {refused}", remedy)
    remedy = "see that the server runs, and give its address with --server HOST:PORT"
    return Failed("server-unreachable", f"{where} is not reached: {_words(error)}", remedy, retryable=True)


def _words(error: BaseException) -> str:
    inner = getattr(error, "exceptions", None) or [error]
    return "; ".join(str(each) or type(each).__name__ for each in inner)


# --- TLS ---


def _context(ca: Path | None) -> OpenSSL.SSL.Context:
    context = OpenSSL.SSL.Context(OpenSSL.SSL.TLS_CLIENT_METHOD)
    context.set_min_proto_version(OpenSSL.SSL.TLS1_2_VERSION)
    try:
        if ca is None:
            context.set_default_verify_paths()
        else:
            ca.read_bytes()  # OpenSSL does not say why it cannot
            context.load_verify_locations(str(ca))
    except (OSError, OpenSSL.SSL.Error) as error:
        why = getattr(error, "strerror", None) or "no certificate in it"
        raise Failed("bad-value", f"{ca}: {why}", "give a PEM file of authorities with --ca") from None
    return context


class _Verifier(security.CertificateVerifier):  # type: ignore[misc]
    """Believes a chain that OpenSSL does, of a certificate for our domain: aioxmpp's own verifier adds the system's
    authorities to those given, and asks functions that Python and pyOpenSSL are about to remove."""

    refused = ""
    """Why the last certificate was not believed."""

    def verify_callback(self, connection: object, certificate: Any, number: int, depth: int, believed: int) -> bool:
        """What OpenSSL is to make of one certificate of the chain."""
        domain = self.transport.get_extra_info("server_hostname")
        if not believed:
            self.refused = f"no authority that is believed vouches for it (OpenSSL's error {number})"
        elif depth == 0 and not _is_for(certificate.to_cryptography(), domain):
            self.refused = f"its certificate is not for {domain}"
        else:
            return True
        return False

    async def post_handshake(self, transport: object) -> None:
        """Nothing is left to be seen."""


def _is_for(certificate: x509.Certificate, domain: str) -> bool:
    """Whether the certificate is for the domain (RFC 6125): a name of it is, or has a star for its first label."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except x509.ExtensionNotFound:
        return False
    parent = domain.lower().partition(".")[2]
    wanted = {domain.lower(), f"*.{parent}" if "." in parent else domain.lower()}
    return any(name.lower() in wanted for name in names.get_values_for_type(x509.DNSName))


# --- logging in ---


class _Scram(security.SASLProvider):  # type: ignore[misc]
    """Logs in with SCRAM and nothing else: aioxmpp's own provider would send the password to a server that asks."""

    def __init__(self, password: str) -> None:
        super().__init__()
        self._password = password

    async def execute(self, client_jid: aioxmpp.JID, features: Any, xmlstream: Any, tls_transport: Any) -> bool:
        """Log in; aiosasl's ``AuthenticationFailure`` if that fails."""

        async def credentials() -> tuple[str, str]:
            return client_jid.localpart, self._password

        kind, token = self._find_supported(features, [aiosasl.SCRAM])
        if kind is None:
            raise aiosasl.AuthenticationFailure("the server offers no SCRAM", text="and the password is not sent to it")
        interface = aioxmpp.sasl.SASLXMPPInterface(xmlstream)
        return bool(await self._execute(interface, kind(credentials), token))


# --- connecting ---


class _NotConnected(Exception):
    """The server given is not reached. No ``OSError``: aioxmpp would then look for another server."""


class _Patient(aioxmpp.connector.STARTTLSConnector):  # type: ignore[misc]
    """Connects to the server given, and no other. Once it was there it is waited for; at first it must be."""

    def __init__(self) -> None:
        self._was_there = False

    async def connect(self, *given: Any, **options: Any) -> Any:
        """See aioxmpp; :class:`_NotConnected`."""
        pause = FIRST_PAUSE
        while True:
            try:
                found = await super().connect(*given, **options)
            except (OSError, OpenSSL.SSL.Error, asyncio.InvalidStateError) as error:  # the latter two: TLS refused
                if not self._was_there:
                    raise _NotConnected(_words(error)) from error
            else:
                self._was_there = True
                return found
            await asyncio.sleep(pause)
            pause = min(2 * pause, LONGEST_PAUSE)
