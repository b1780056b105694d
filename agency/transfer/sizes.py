"""Sizes as people write them."""

from __future__ import annotations

import re

from agency.problems import refuse

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}


def parse(text: str) -> int:
    """Bytes: a whole number, K, M, G or T (of 1024) after it; refused (``bad-value``) if it is none, or nothing."""
    found = re.fullmatch(r"([0-9]{1,15})([KMGT]?)", text.upper())
    if not found or not int(found[1]):
        raise refuse("bad-value", f"{text[:40]!r} is no size", "give a number of bytes, such as 500000 or 20G")
    return int(found[1]) * _UNITS[found[2]]
