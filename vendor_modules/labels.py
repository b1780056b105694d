"""How a resource carries its idempotency key and its name at a provider.

Where resources have tags, metadata or properties, both go there as :data:`KEY` and :data:`NAME`: names may be longer or
have other letters than the provider allows. Where a resource has nothing but a name, the name is derived from the key
(:func:`name_for`), and :func:`key_in` finds the key again among those that persistence remembers: every key is
remembered before it is used.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from hashlib import blake2b

KEY = "cloud-agency-key"
NAME = "cloud-agency-name"
_DIGEST = 16
"""Hexadecimal digits of a key's digest in a name: 64 bits, so that no two keys share one."""


def name_for(key: str, name: str, *, longest: int = 63, separator: str = "-") -> str:
    """A name of lower-case letters, digits and separators, beginning with a letter: what is usable of ``name``, then
    a digest of the key. The same key and name give the same name."""
    readable = re.sub(r"[^a-z0-9]+", separator, name.lower().encode("ascii", "ignore").decode()).strip(separator)
    readable = re.sub(r"^[^a-z]+", "", readable)[: longest - _DIGEST - 1].rstrip(separator) or "agency"
    return f"{readable}{separator}{_digest(key)}"


def key_in(name: str, keys: Iterable[str]) -> str:
    """The key among ``keys`` that :func:`name_for` made the name from; empty for a name from elsewhere."""
    return next((key for key in keys if name.endswith(_digest(key))), "")


def _digest(key: str) -> str:
    return blake2b(key.encode(), digest_size=_DIGEST // 2).hexdigest()
