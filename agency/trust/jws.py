"""JSON Web Signatures (RFC 7515) in compact form, with everything left out that we do not use.

One algorithm, ``Ed25519`` (RFC 9864, which deprecates ``EdDSA``), whatever a header says; no header parameter but those
that the reader names, so none of ``crit``, ``b64``, ``jwk``, ``jku`` or ``x5c``; one way to write each token, so that a
token with any bit changed is another token, and no good. With so little of JOSE left, a token is taken apart here in
half the time that joserfc takes; by joserfc the tests check that others read our tokens as we do.
"""

from __future__ import annotations

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

from agency.trust.untrusted import Untrusted

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey
    from joserfc.jwk import OKPKey

ALGORITHM = "Ed25519"
MAX_TOKEN = 1024 * 1024
"""Characters in a token, looked at before anything else is."""
MAX_HEADER = 8 * 1024
_SIGNATURE = 64
"""Bytes."""


@dataclass(frozen=True, slots=True)
class Opened:
    """A token taken apart: nothing in it is to be believed before :func:`check`."""

    header: Mapping[str, Any]
    payload: bytes
    signed: bytes
    signature: bytes


def sign(header: dict[str, Any], payload: bytes, key: OKPKey) -> str:
    """The token; ``header`` without ``alg``."""
    signed = _encoded(_json({"alg": ALGORITHM, **header})) + b"." + _encoded(payload)
    signature = cast("Ed25519PrivateKey", key.get_op_key("sign")).sign(signed)
    return (signed + b"." + _encoded(signature)).decode()


def open_token(token: str, kinds: Mapping[str, type]) -> Opened:
    """Take apart a token whose header has exactly these parameters, of these types, and ``alg``; :class:`Untrusted`
    (``malformed``) for anything else."""
    if len(token) > MAX_TOKEN:
        raise Untrusted("malformed", f"longer than {MAX_TOKEN} characters")
    try:
        signed, _, last = token.encode("ascii").rpartition(b".")
        first, middle = signed.split(b".")
        header, payload, signature = _header(first), _decoded(middle), _decoded(last)
    except (ValueError, RecursionError):
        raise Untrusted("malformed", "not a JWS in compact form, in the one way to write it") from None
    if header.get("alg") != ALGORITHM:
        raise Untrusted("malformed", f"its algorithm is not {ALGORITHM}")
    if len(header) != len(kinds) + 1 or any(type(header.get(name)) is not kind for name, kind in kinds.items()):
        raise Untrusted("malformed", f"its header must have alg, {', '.join(kinds)}, and nothing else")
    if len(signature) != _SIGNATURE:
        raise Untrusted("malformed", "its signature does not have 64 bytes")
    return Opened(header, payload, signed, signature)


def check(opened: Opened, key: OKPKey) -> bool:
    """Whether the token was signed with that key, just as it is."""
    from cryptography.exceptions import InvalidSignature

    try:
        cast("Ed25519PublicKey", key.get_op_key("verify")).verify(opened.signature, opened.signed)
    except InvalidSignature:
        return False
    return True


def _header(part: bytes) -> dict[str, Any]:
    """``ValueError`` unless it is an object in JSON as we write it."""
    if len(part) > MAX_HEADER:
        raise ValueError("too long")
    raw = _decoded(part)
    header = json.loads(raw)
    if not isinstance(header, dict) or _json(header) != raw:
        raise ValueError("not an object, or not as we write it")
    return header


def _json(header: dict[str, Any]) -> bytes:
    return _ENCODER.encode(header).encode()


_ENCODER = json.JSONEncoder(separators=(",", ":"))


def _encoded(raw: bytes) -> bytes:
    """In base64url without padding (RFC 7515, appendix C)."""
    return urlsafe_b64encode(raw).rstrip(b"=")


def _decoded(part: bytes) -> bytes:
    """``ValueError`` unless it is the one way to encode what it says."""
    raw = urlsafe_b64decode(part + b"==")
    if _encoded(raw) != part:
        raise ValueError("not base64url")
    return raw
