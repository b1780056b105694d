"""What a signed document says, whoever signed it: for what is held against what is known, or was verified before.

Nothing slow is imported here, neither documents nor cryptography: :mod:`agency.trust.signing` has those.
"""

from __future__ import annotations

import json
from typing import Any

from agency.trust import jws
from agency.trust.untrusted import Untrusted

HEADER = {
    "aud": str,
    "crt": str,
    "exp": int,
    "iat": int,
    "iss": str,
    "jti": str,
    "kid": str,
    "prev": list,
    "typ": str,
}
"""What the header of a signed document has, but for ``alg``."""


def answers_of(token: str) -> tuple[str, ...]:
    """The digests of what a token answers."""
    return tuple(jws.open_token(token, HEADER).header["prev"])


def claimed(token: str, tag: str) -> dict[str, Any]:
    """The plain data of the document in a token, which has this tag; :class:`Untrusted` (``malformed``,
    ``wrong-document``) where there is none. That it is in due form otherwise, whoever verifies it will see."""
    opened = jws.open_token(token, HEADER)
    try:
        said = json.loads(opened.payload)
        if not isinstance(said, dict):
            raise ValueError("not an object")
    except (ValueError, RecursionError):
        raise Untrusted("malformed", "its payload is no JSON object") from None
    if (opened.header["typ"], said.get("document")) != (tag, tag):
        raise Untrusted("wrong-document", f"it is no {tag}")
    return said
