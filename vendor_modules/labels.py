"""How a resource carries its idempotency key and its name at a provider.

Where resources have tags, metadata or properties, both go there as :data:`KEY` and :data:`NAME`: names may be longer or
have other letters than the provider allows. Where a resource has nothing but a name, the name is derived from the key
(:func:`name_for`), and :func:`key_in` finds the key again among those that persistence remembers: every key is
remembered before it is used. Where tags may have few letters only, key and name are packed (:func:`packed`).
"""

from __future__ import annotations

import re
from base64 import b32decode, b32encode
from collections.abc import Iterable, Mapping
from contextlib import suppress
from hashlib import blake2b

KEY = "cloud-agency-key"
NAME = "cloud-agency-name"
_DIGEST = 16
"""Hexadecimal digits of a key's digest in a name: 64 bits, so that no two keys share one."""
_PIECE = 63


def name_for(key: str, name: str, *, longest: int = 63, separator: str = "-") -> str:
    """A name of lower-case letters, digits and separators, beginning with a letter: what is usable of ``name``, then
    a digest of the key. The same key and name give the same name."""
    readable = re.sub(r"[^a-z0-9]+", separator, name.lower().encode("ascii", "ignore").decode()).strip(separator)
    readable = re.sub(r"^[^a-z]+", "", readable)[: longest - _DIGEST - 1].rstrip(separator) or "agency"
    return f"{readable}{separator}{_digest(key)}"


def key_in(name: str, keys: Iterable[str]) -> str:
    """The key among ``keys`` that :func:`name_for` made the name from; empty for a name from elsewhere."""
    return next((key for key in keys if name.endswith(_digest(key))), "")


def packed(key: str, name: str) -> dict[str, str]:
    """Key and name as labels of at most 63 lower-case letters and digits: in base 32, in pieces. At most 33 of them."""
    labels: dict[str, str] = {}
    for label, value in ((KEY, key), (NAME, name)):
        text = b32encode(value.encode()).decode().rstrip("=").lower()
        labels |= {f"{label}-{at // _PIECE}": text[at : at + _PIECE] for at in range(0, len(text), _PIECE)}
    return labels


def unpacked(labels: Mapping[str, str]) -> dict[str, str]:
    """What :func:`packed` made labels of, as KEY and NAME; those that are not there, or not ours, are left out."""
    found = {}
    for label in (KEY, NAME):
        pieces: list[str] = []
        while (piece := labels.get(f"{label}-{len(pieces)}")) is not None:
            pieces.append(piece)
        text = "".join(pieces).upper()
        with suppress(ValueError):
            if value := b32decode(text + "=" * (-len(text) % 8)).decode():
                found[label] = value
    return found


def _digest(key: str) -> str:
    return blake2b(key.encode(), digest_size=_DIGEST // 2).hexdigest()
