"""JSON Web Signatures (RFC 7515) in compact form, by joserfc, with everything left out that we do not use.

One algorithm, ``Ed25519`` (RFC 9864, which deprecates ``EdDSA``), whatever a header says; no header parameter but those
that the reader names, so none of ``crit``, ``b64``, ``jwk``, ``jku`` or ``x5c``; one way to write each token, so that a
token with any bit changed is another token, and no good.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import OKPKey
from joserfc.jws import CompactSignature, JWSRegistry
from joserfc.registry import HeaderParameter
from joserfc.util import json_b64encode

from agency.trust.untrusted import Untrusted

ALGORITHM = "Ed25519"
MAX_TOKEN = 256 * 1024
"""Characters in a token, looked at before anything else is."""
MAX_HEADER = 8 * 1024
_OBJECT = "eyJ"
"""How a JSON object that is not empty begins, in base64url."""
_SIGNATURE = 86
"""Characters of 64 bytes in base64url."""


@dataclass(frozen=True)
class Opened:
    """A token taken apart: nothing in it is to be believed before :func:`check`."""

    header: Mapping[str, Any]
    payload: bytes
    parts: CompactSignature


def sign(header: dict[str, Any], payload: bytes, key: OKPKey) -> str:
    """The token; ``header`` without ``alg``."""
    return jws.serialize_compact({"alg": ALGORITHM, **header}, payload, key, registry=_OPEN)


def open_token(token: str, kinds: Mapping[str, type]) -> Opened:
    """Take apart a token whose header has exactly these parameters, of these types, and ``alg``; :class:`Untrusted`
    (``malformed``) for anything else."""
    if len(token) > MAX_TOKEN:
        raise Untrusted("malformed", f"longer than {MAX_TOKEN} characters")
    if not token.startswith(_OBJECT):
        raise Untrusted("malformed", "not a JWS in compact form")
    try:
        parts = jws.extract_compact(token.encode("ascii"), registry=_OPEN)
        canonical = json_b64encode(parts.protected) == parts.segments["header"]
    except (JoseError, ValueError, TypeError, RecursionError):
        raise Untrusted("malformed", "not a JWS in compact form") from None
    header = parts.protected
    if not canonical:
        raise Untrusted("malformed", "its header is not written in the one way that it may be")
    if header["alg"] != ALGORITHM:
        raise Untrusted("malformed", f"its algorithm is not {ALGORITHM}")
    if len(header) != len(kinds) + 1 or any(type(header.get(name)) is not kind for name, kind in kinds.items()):
        raise Untrusted("malformed", f"its header must have alg, {', '.join(kinds)}, and nothing else")
    if len(parts.segments["signature"]) != _SIGNATURE:
        raise Untrusted("malformed", "its signature does not have 64 bytes")
    return Opened(header, parts.payload, parts)


def check(opened: Opened, key: OKPKey) -> bool:
    """Whether the token was signed with that key, just as it is."""
    return jws.validate_compact(opened.parts, key, registry=_OPEN)


class _Registry(JWSRegistry):
    """What joserfc checks itself. Which parameters there are is for :func:`open_token`, as it differs by token."""

    max_header_length = MAX_HEADER
    max_payload_length = MAX_TOKEN
    max_signature_length = _SIGNATURE


_OPEN = _Registry(algorithms=[ALGORITHM], strict_check_header=False)
_OPEN.header_registry = {"alg": HeaderParameter("Algorithm", "str", required=True)}
