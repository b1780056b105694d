"""Keys: each site has one that lasts, each of its agents one that the site certifies. All are Ed25519 (RFC 8032).

An agent's key is made when the agent starts, certified for its address, and never leaves the process. Only the site's
key is kept, encrypted with the state's master key. What other sites are told is its public half, as text:
``ed25519:`` and 43 characters.
"""

from __future__ import annotations

import base64
import json
import re
import threading
from collections import OrderedDict
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from joserfc.jwk import OKPKey

from agency.problems import refuse
from agency.trust import jws
from agency.trust.untrusted import Untrusted

PREFIX = "ed25519:"
CERTIFICATE = "agent-certificate"
"""The ``typ`` of a certificate's header."""
LIFETIME = timedelta(days=7)
"""How long a certificate is good. An agent has itself certified anew, with a new key, when half of it has passed."""
MAX_CERTIFICATES = 4096
"""Verified certificates that are remembered; the one that was not used for longest goes first."""

_CERTIFICATE_HEADER = {"kid": str, "typ": str}
_CERTIFICATE_CLAIMS = {"exp": int, "iat": int, "jwk": dict, "site": str, "sub": str}
_ADDRESS = re.compile(r"[a-z0-9._-]{1,100}@([a-z0-9.-]{1,150})")
_SITE = re.compile(r"[a-z0-9.-]{1,150}")
_WEAK = frozenset(
    bytes.fromhex(y)
    for y in (
        "0000000000000000000000000000000000000000000000000000000000000000",
        "0100000000000000000000000000000000000000000000000000000000000000",
        "26e8958fc2b227b045c3f489f2ef98f0d5dfac05d3c63339b13802886d53fc05",
        "c7176a703d4dd84fba3c0b760d10670f2a2053fa2c39ccc64ec7fd7792ac037a",
        "ecffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "edffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
        "eeffffffffffffffffffffffffffffffffffffffffffffffffffffffffffff7f",
    )
)
"""Points of small order, without their sign: to such a "key" one signature fits any number of documents."""


def new_key() -> OKPKey:
    """A new private key."""
    return OKPKey.generate_key("Ed25519")


def public_text(key: OKPKey) -> str:
    """The public half as text."""
    return f"{PREFIX}{key.as_dict(private=False)['x']}"


def from_public_text(text: str) -> OKPKey:
    """The public key in the text; refused (``bad-key``) where there is none."""
    try:
        if not text.startswith(PREFIX):
            raise ValueError
        return _public_key(text.removeprefix(PREFIX))
    except (ValueError, TypeError):
        raise refuse(
            "bad-key",
            f"{text[:80]!r} is no site's public key: expected {PREFIX!r} and 43 characters of base64url",
            "ask the other site for what its `agency trust show` prints",
        ) from None


def site_name(text: str) -> str:
    """The text, if it can be a site's name, which is the domain of its agents' addresses; refused otherwise."""
    if not _SITE.fullmatch(text):
        raise refuse(
            "bad-value",
            f"{text[:80]!r} is no site's name: expected the domain of its agents, in lower case",
            "ask the other site for what its `agency trust show` prints",
        )
    return text


def _public_key(x: str) -> OKPKey:
    """From the coordinate in base64url; ``ValueError`` unless it is 32 bytes of a point that can be a key."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{43}", x):
        raise ValueError("not 43 characters of base64url")
    raw = base64.urlsafe_b64decode(x + "=")
    if base64.urlsafe_b64encode(raw).rstrip(b"=") != x.encode():
        raise ValueError("not the one way to write it")
    if bytes([*raw[:31], raw[31] & 0x7F]) in _WEAK:
        raise ValueError("a point of small order")
    return OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "x": x})


class SiteKey:
    """A site's own key: certifies its agents."""

    def __init__(self, name: str, key: OKPKey) -> None:
        """``name``: the site's, which is the domain of its agents' addresses."""
        self.name = site_name(name)
        self.kid = key.thumbprint()
        self.public = public_text(key)
        self._key = key

    @classmethod
    def generate(cls, name: str) -> SiteKey:
        """A new one, for a site that has none yet."""
        return cls(name, new_key())

    @classmethod
    def from_secret(cls, name: str, secret: str) -> SiteKey:
        """The key that :meth:`secret` gave; ``ValueError`` if it is none."""
        raw = base64.urlsafe_b64decode(secret)
        if len(raw) != 64:
            raise ValueError("not a site's key")
        d, x = (base64.urlsafe_b64encode(half).decode().rstrip("=") for half in (raw[:32], raw[32:]))
        return cls(name, OKPKey.import_key({"kty": "OKP", "crv": "Ed25519", "d": d, "x": x}))

    def secret(self) -> str:
        """The private key, to be kept encrypted, and nowhere else."""
        halves = self._key.as_dict(private=True)
        raw = b"".join(base64.urlsafe_b64decode(str(halves[part]) + "=") for part in ("d", "x"))
        return base64.urlsafe_b64encode(raw).decode()

    def certify(self, agent: str, key: OKPKey, now: datetime) -> str:
        """A certificate: this key belongs to the agent with that address. ``ValueError`` for another site's agent."""
        if not (match := _ADDRESS.fullmatch(agent)) or match[1] != self.name:
            raise ValueError(f"{agent} is not an agent of {self.name}")
        issued = int(now.timestamp())
        claims = {
            "exp": issued + int(LIFETIME.total_seconds()),
            "iat": issued,
            "jwk": {part: key.as_dict(private=False)[part] for part in ("crv", "kty", "x")},
            "site": self.name,
            "sub": agent,
        }
        return jws.sign({"kid": self.kid, "typ": CERTIFICATE}, _compact(claims), self._key)

    def __repr__(self) -> str:
        return f"SiteKey({self.name!r}, kid={self.kid!r})"


@dataclass(frozen=True)
class Certificate:
    """A verified certificate: the key with the thumbprint ``kid`` (RFC 7638) is the agent's."""

    agent: str
    site: str
    site_kid: str
    kid: str
    key: OKPKey
    issued: int
    expires: int


class TrustedKeys:
    """The keys of the sites that are believed, and the certificates verified by them."""

    def __init__(self, keys: Iterable[tuple[str, str]] = ()) -> None:
        """``keys``: sites with their public keys as text; a site may have several."""
        self._keys: dict[tuple[str, str], OKPKey] = {}
        self._lock = threading.Lock()  # verifying is done in threads, too
        self._certificates: OrderedDict[str, Certificate] = OrderedDict()
        self.replace(keys)

    def replace(self, keys: Iterable[tuple[str, str]]) -> None:
        """Believe these from now on, and no others."""
        known = [(site, from_public_text(text)) for site, text in keys]
        self._keys = {(site, key.thumbprint()): key for site, key in known}
        self._sites = frozenset(site for site, _ in self._keys)

    def sites(self) -> frozenset[str]:
        """Whose keys they are."""
        return self._sites

    def certificate(self, text: str) -> Certificate:
        """The certificate, when a trusted site has signed it; else :class:`Untrusted`. Whether it has expired is for
        whoever knows of which moment. Only what was verified is remembered, and only as long as its site is trusted."""
        with self._lock:
            found = self._certificates.get(text)
            if found is None:
                found = self._certificates[text] = self._verified(text)
                if len(self._certificates) > MAX_CERTIFICATES:
                    self._certificates.popitem(last=False)
            else:
                self._certificates.move_to_end(text)
        if (found.site, found.site_kid) not in self._keys:
            raise Untrusted("unknown-key", f"the site {found.site} is no longer trusted")
        return found

    def _verified(self, text: str) -> Certificate:
        opened = jws.open_token(text, _CERTIFICATE_HEADER)
        claims = _claims(opened)
        site, agent, kid = claims["site"], claims["sub"], opened.header["kid"]
        key = self._keys.get((site, kid))
        if key is None:
            raise Untrusted("unknown-key", f"the site {site[:150]!r} is not trusted, or not with that key")
        if opened.header["typ"] != CERTIFICATE or not jws.check(opened, key):
            raise Untrusted("forged", f"the certificate of {agent[:150]!r} was not signed by {site}")
        if not (match := _ADDRESS.fullmatch(agent)) or match[1] != site:
            raise Untrusted("forged", f"{site} has certified {agent[:150]!r}, who is not its agent")
        agents_key = _agents_key(claims["jwk"])
        return Certificate(agent, site, kid, agents_key.thumbprint(), agents_key, claims["iat"], claims["exp"])


def _claims(opened: jws.Opened) -> dict[str, Any]:
    try:
        claims = json.loads(opened.payload)
        canonical = isinstance(claims, dict) and _compact(claims) == opened.payload
    except (ValueError, RecursionError):
        canonical = False
    if not canonical or {name: type(value) for name, value in claims.items()} != _CERTIFICATE_CLAIMS:
        raise Untrusted("malformed", f"a certificate must have {', '.join(_CERTIFICATE_CLAIMS)}, and nothing else")
    return dict(claims)


def _agents_key(jwk: dict[str, Any]) -> OKPKey:
    try:
        if set(jwk) != {"crv", "kty", "x"} or (jwk["crv"], jwk["kty"]) != ("Ed25519", "OKP"):
            raise ValueError
        return _public_key(jwk["x"])
    except (ValueError, TypeError):
        raise Untrusted("malformed", "a certificate's jwk must be a public Ed25519 key") from None


def _compact(value: dict[str, Any]) -> bytes:
    """JSON in the one way that we write it (after RFC 8785)."""
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode()
