"""Names and idempotency keys at OpenStack's services, which differ in what they can hold.

Keys go into metadata (servers, volumes, snapshots), properties (images), descriptions (what is neutron's) or headers
(containers). Many clouds' databases know no character beyond the Basic Multilingual Plane, and names must not begin or
end with a space. A name that is not taken as it is, is shown with other characters in their place, and kept exactly,
percent-encoded and in parts, beside the key.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from urllib.parse import quote, unquote

from vendor_modules.errors import NotFound
from vendor_modules.labels import KEY, NAME

PART = 200
"""Characters of a part of a name: metadata values may have 255."""
_COUNT = f"{NAME}-parts"
_PREFIX = f"{KEY}="
_LONGEST = 255
"""Characters that a description may have."""


def shown(name: str) -> str:
    """What a cloud takes for a name in place of this one; most names are taken as they are."""
    plain = re.sub(r"[\x00-\x1f\x7f\ud800-\udfff\U00010000-\U0010ffff]", "\ufffd", name).strip()
    return plain or "unnamed"


def labels(key: str, name: str, *, inherits: bool = False) -> dict[str, str]:
    """The metadata that hold a key and, if need be, a name. With ``inherits``, those of a resource that may have got
    another's before, which are then of no effect."""
    kept = [] if shown(name) == name else parts(name)
    count = {_COUNT: str(len(kept))} if kept or inherits else {}
    return {KEY: key} | count | {f"{NAME}-{i}": part for i, part in enumerate(kept)}


def parts(name: str) -> list[str]:
    """The name, percent-encoded, in parts."""
    encoded = quote(name, safe="", errors="surrogatepass")
    return [encoded[i : i + PART] for i in range(0, len(encoded), PART)]


def name_in(metadata: Mapping[str, str], otherwise: str) -> str:
    """The name that :func:`labels` put there."""
    count = metadata.get(_COUNT, "0")
    found = [metadata.get(f"{NAME}-{i}", "") for i in range(int(count) if count.isdecimal() else 0)]
    return unquote("".join(found)) if found else otherwise


def tags(name: str, *, named: bool = True) -> list[str]:
    """The tags that hold a name that is not taken as it is, or that the resource has no other place for (not
    ``named``); none are needed for others."""
    return [] if named and shown(name) == name else [f"{NAME}-{i}={part}" for i, part in enumerate(parts(name))]


def name_in_tags(found: Iterable[str], otherwise: str) -> str:
    """The name that :func:`tags` hold."""
    kept = dict(tag.partition("=")[::2] for tag in found if tag.startswith(f"{NAME}-"))
    return name_in(kept | {_COUNT: str(len(kept))}, otherwise)


def description(key: str) -> str:
    """The description that holds a key."""
    return f"{_PREFIX}{key}" if len(_PREFIX) + len(key) <= _LONGEST else key


def key_in_description(text: str | None) -> str:
    """The key that a description holds; empty for one from elsewhere."""
    text = text or ""
    if text.startswith(_PREFIX):
        return text.removeprefix(_PREFIX)
    return text if _LONGEST - len(_PREFIX) < len(text) and " " not in text else ""


def path_part(identifier: str) -> str:
    """An identifier as one part of a URL's path, whatever characters it has; :class:`NotFound` for one that would be
    read as another path."""
    if identifier in ("", ".", ".."):
        raise NotFound(f"there is nothing with the id {identifier!r}")
    return quote(identifier, safe="")
