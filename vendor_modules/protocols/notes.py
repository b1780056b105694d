"""Key and name of a resource in a free text that the provider keeps with it: a description, a summary."""

from __future__ import annotations

import re

from vendor_modules.labels import KEY, NAME

_NOTE = re.compile(rf"{KEY}=(?P<key>[A-Za-z0-9._:/@-]+) {NAME}=(?P<name>.+)", re.DOTALL)


def note(key: str, name: str) -> str:
    """The text for a resource."""
    return f"{KEY}={key} {NAME}={name}"


def noted(text: str | None) -> tuple[str, str]:
    """The key and the name in a text; both are empty in a text of somebody else's."""
    found = _NOTE.fullmatch(text or "")
    return (found["key"], found["name"]) if found else ("", "")
