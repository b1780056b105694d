"""Signed documents: what an agent says so that it can be held to it.

A token is a JWS in compact form (:mod:`agency.trust.jws`). Its payload is the document's canonical bytes; its header,
which is signed with it, says of which agent (``iss``, ``kid``, ``crt``) for whom (``aud``), from when to when (``iat``,
``exp``: seconds since 1970), once (``jti``), in answer to which documents (``prev``: their digests); ``typ`` is the
document's tag.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Generic, TypeVar

import structlog
from blake3 import blake3
from joserfc.jwk import OKPKey

from agency.trust import jws, keys
from agency.trust.claims import HEADER
from agency.trust.keys import Certificate, SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.untrusted import Untrusted
from descriptors.base import Document, utc_now
from descriptors.documents import DocumentError, canonical, load_canonical

__all__ = ["Signed", "Signer", "Untrusted", "Verifier"]

D = TypeVar("D", bound=Document)

SKEW = timedelta(seconds=30)
"""How far another site's clock may be ahead of ours. No allowance is made for what has expired: that is past."""
MAX_LIFETIME = timedelta(days=366)
"""Between a token's ``iat`` and its ``exp``."""
MAX_ANSWERED = 16
"""Documents that one may answer."""

_NONCE_BYTES = 16
_MAX_NONCE = 64
_LAST = int(datetime(9999, 1, 1, tzinfo=UTC).timestamp())
_DIGEST_LENGTH = len("blake3:") + 64

log = structlog.get_logger("agency")


@dataclass(frozen=True)
class Signed(Generic[D]):
    """A document with the proof of who said it."""

    document: D
    token: str = field(repr=False)
    issuer: str
    """The address (JID) of the agent that signed it."""
    site: str
    """The site that certified that agent."""
    audience: str
    digest: str
    """The document's, as :func:`descriptors.documents.digest` gives it."""
    answers: tuple[str, ...]
    """Digests of the documents that it answers."""
    kid: str
    nonce: str
    issued: datetime
    expires: datetime
    repeated: bool = False
    """Whether this very token was taken before, in this very conversation: give the answer that was given then."""


@dataclass(frozen=True)
class _Identity:
    """A key that is certified until it is renewed."""

    key: OKPKey = field(repr=False)
    kid: str
    certificate: str
    renew: datetime


class Signer:
    """Signs for one agent, with a key of its own that it makes when it first signs, and its site certifies."""

    def __init__(self, jid: str, site: SiteKey, clock: Callable[[], datetime] = utc_now) -> None:
        """``jid``: the agent's address, at the site's domain."""
        self.jid = jid
        self._site = site
        self._clock = clock
        self._identity: _Identity | None = None

    def sign(self, document: Document, *, audience: str, expires: datetime, answers: Sequence[str] = ()) -> str:
        """The token: for the agent ``audience`` to act on until ``expires``, in answer to the documents with these
        digests. Moments are whole seconds: ``expires`` is rounded up."""
        now = self._clock()
        identity = self._certified(now)
        header = {
            "aud": audience,
            "crt": identity.certificate,
            "exp": math.ceil(expires.timestamp()),
            "iat": int(now.timestamp()),
            "iss": self.jid,
            "jti": secrets.token_urlsafe(_NONCE_BYTES),
            "kid": identity.kid,
            "prev": list(answers),
            "typ": document.tag,
        }
        return jws.sign(header, canonical(document), identity.key)

    def _certified(self, now: datetime) -> _Identity:
        if self._identity is None or now >= self._identity.renew:
            key = keys.new_key()
            certificate = self._site.certify(self.jid, key, now)
            self._identity = _Identity(key, key.thumbprint(), certificate, now + keys.LIFETIME / 2)
        return self._identity

    def __repr__(self) -> str:
        return f"Signer({self.jid!r})"


class Verifier:
    """Believes signed documents, or says why not. One a process: it remembers certificates and nonces."""

    def __init__(self, trusted: TrustedKeys, replays: Replays | None = None) -> None:
        self._trusted = trusted
        self._replays = Replays() if replays is None else replays

    def verify(
        self,
        token: str,
        expect: type[D],
        *,
        audience: str,
        sender: str,
        conversation: str,
        now: datetime,
        answering: str | None = None,
        binding: bool = True,
    ) -> Signed[D]:
        """The document in the token, if ``sender`` signed it for ``audience``, it can be acted on now, and it answers
        the document whose digest is ``answering``, if one is given.

        A token is good for one conversation. When it comes again in the same one, :attr:`Signed.repeated` says so;
        anywhere else it is refused. :class:`Untrusted` says why; each refusal is logged, and none is remembered.

        ``binding=False``: one of many of which few will count, so that the payload is the document's canonical form is
        for :meth:`read` to see, before anything rests on it.
        """
        try:
            signed, certificate = self._read(token, (expect,), binding)
            _check_addressed(signed, audience, sender)
            if answering is not None and answering not in signed.answers:
                raise Untrusted("wrong-answer", "it does not answer what it was sent in answer to")
            _check_time(signed, certificate, now)
            repeated = self.take(signed, conversation, now)
        except Untrusted as error:
            log.warning("signed document refused", agent=audience, sender=sender, code=error.code, reason=str(error))
            raise
        return replace(signed, repeated=True) if repeated else signed

    def take(self, signed: Signed[D], conversation: str, now: datetime) -> bool:
        """Remember that the token was used; see :meth:`~agency.trust.replays.Replays.take`."""
        return self._replays.take(
            signed.kid,
            signed.nonce,
            token=signed.token,
            conversation=conversation,
            issued=int(signed.issued.timestamp()),
            expires=int(signed.expires.timestamp()),
            now=now.timestamp(),
        )

    def read(self, token: str, *expect: type[D]) -> Signed[D]:
        """The document in the token, of one of these types, if a certified agent of a trusted site signed it, whoever
        it was for and however long ago: for proofs. :class:`Untrusted` otherwise."""
        return self._read(token, expect)[0]

    def _read(self, token: str, expect: tuple[type[D], ...], binding: bool = True) -> tuple[Signed[D], Certificate]:
        opened = jws.open_token(token, HEADER)
        header = opened.header
        _check_header(opened)
        certificate = self._trusted.certificate(header["crt"])
        if (certificate.kid, certificate.agent) != (header["kid"], header["iss"]):
            raise Untrusted("forged", "its certificate is another agent's, or for another key")
        if not jws.check(opened, certificate.key):
            raise Untrusted("altered", f"it is not what {certificate.agent} signed")
        if not certificate.issued <= header["iat"] < certificate.expires:
            raise Untrusted("expired", "it was signed when its signer's certificate was not valid")
        signed = Signed(
            document=_document(opened, expect, binding),
            token=token,
            issuer=certificate.agent,
            site=certificate.site,
            audience=header["aud"],
            digest=f"blake3:{blake3(opened.payload).hexdigest()}",
            answers=tuple(header["prev"]),
            kid=certificate.kid,
            nonce=header["jti"],
            issued=datetime.fromtimestamp(header["iat"], UTC),
            expires=datetime.fromtimestamp(header["exp"], UTC),
        )
        return signed, certificate


def _check_header(opened: jws.Opened) -> None:
    """Bound what is in it, before anything is done with it."""
    header = opened.header
    if not 0 <= header["iat"] <= header["exp"] <= header["iat"] + MAX_LIFETIME // timedelta(seconds=1) <= _LAST:
        raise Untrusted("malformed", f"exp must not be before iat, nor more than {MAX_LIFETIME.days} days after it")
    if not 0 < len(header["jti"]) <= _MAX_NONCE:
        raise Untrusted("malformed", f"jti must have 1 to {_MAX_NONCE} characters")
    if len(header["prev"]) > MAX_ANSWERED or any(
        type(each) is not str or len(each) != _DIGEST_LENGTH for each in header["prev"]
    ):
        raise Untrusted("malformed", f"prev must be at most {MAX_ANSWERED} digests")


def _document(opened: jws.Opened, expect: tuple[type[D], ...], binding: bool) -> D:
    kind = next((each for each in expect if each.tag == opened.header["typ"]), None)
    if kind is None:
        raise Untrusted("wrong-document", f"it is no {' or '.join(each.tag for each in expect)}")
    try:
        return load_canonical(opened.payload, kind, name=f"signed {kind.tag}", compared=binding)
    except DocumentError as error:
        raise Untrusted("malformed", f"its payload is no {kind.tag}: {str(error)[:500]}") from None


def _check_addressed(signed: Signed[D], audience: str, sender: str) -> None:
    if signed.issuer != sender:
        raise Untrusted("wrong-sender", f"it was signed by {signed.issuer}, and sent by another")
    if signed.audience != audience:
        raise Untrusted("wrong-audience", f"it was not signed for {audience}")


def _check_time(signed: Signed[D], certificate: Certificate, now: datetime) -> None:
    if signed.issued > now + SKEW:
        raise Untrusted("not-yet-valid", f"it was signed at {signed.issued:%Y-%m-%d %H:%M:%S %Z}, which is to come")
    if signed.expires <= now:
        raise Untrusted("expired", f"it expired at {signed.expires:%Y-%m-%d %H:%M:%S %Z}")
    if certificate.expires <= now.timestamp():
        raise Untrusted("expired", f"the certificate of {signed.issuer} has expired")
