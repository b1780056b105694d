"""What is signed and hashed: a document's canonical bytes, and their digest. Pure, so that decisions can use them;
:mod:`descriptors.documents` has both, too."""

from __future__ import annotations

import json
from typing import Any

from blake3 import blake3

from descriptors.base import Document

_ENCODER = json.JSONEncoder(ensure_ascii=False, sort_keys=True, separators=(",", ":"), allow_nan=False)


def canonical(document: Document) -> bytes:
    """The bytes to hash and sign: JSON after RFC 8785's manner (sorted keys, no white space, UTF-8)."""
    return _ENCODER.encode(plain(document)).encode()


def digest(document: Document) -> str:
    """``blake3:`` and the hexadecimal hash of the :func:`canonical` bytes."""
    return f"blake3:{blake3(canonical(document)).hexdigest()}"


def plain(document: Document) -> dict[str, Any]:
    """The document as plain data: its tag first, and without what is not there (None and empty lists)."""
    return {"document": document.tag, **_without_empty(document.model_dump(mode="json", exclude_none=True))}


def _without_empty(value: Any) -> Any:
    # every document passes here, so nothing is called for what has nothing in it
    if type(value) is dict:
        return {
            key: _without_empty(each) if type(each) in _HOLDING else each for key, each in value.items() if each != []
        }
    return [_without_empty(each) if type(each) in _HOLDING else each for each in value]


_HOLDING = (dict, list)
