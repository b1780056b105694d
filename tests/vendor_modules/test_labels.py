"""Names that carry a key."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis import strategies as st

from vendor_modules.labels import key_in, name_for

KEYS = st.text("abcdefghijklmnopqrstuvwxyzABCXYZ0123456789._:/@-", min_size=1, max_size=255)


@given(KEYS, st.text(max_size=255), st.integers(min_value=24, max_value=255))
def test_a_name_is_legal_everywhere(key: str, name: str, longest: int) -> None:
    """Whatever the key and the name, what is made of them is short enough and has only small letters, digits and inner
    hyphens, beginning with a letter."""
    made = name_for(key, name, longest=longest)
    assert len(made) <= longest
    assert re.fullmatch(r"[a-z]([a-z0-9-]*[a-z0-9])?", made)


@given(KEYS, st.text(max_size=255), st.lists(KEYS, max_size=5))
def test_the_key_is_found_again(key: str, name: str, others: list[str]) -> None:
    """Among all keys that are remembered, the one that a name was made from is found, also after the name was cut."""
    assert key_in(name_for(key, name), [*(o for o in others if o != key), key]) == key
    assert key_in(name_for(key, name), [o for o in others if o != key]) == ""


@given(KEYS, st.text(max_size=255))
def test_it_is_the_same_every_time(key: str, name: str) -> None:
    """A creation that is repeated asks for the same name."""
    assert name_for(key, name) == name_for(key, name)


def test_a_name_from_elsewhere_has_no_key() -> None:
    """What somebody else made is not taken for ours."""
    assert key_in("web-1", ["web-1", "1"]) == ""
