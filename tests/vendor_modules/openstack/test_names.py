"""Names and keys come back from a cloud as they went in, though it can hold few letters."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from vendor_modules.errors import NotFound
from vendor_modules.labels import KEY
from vendor_modules.openstack import names

NAMES = st.text(min_size=1, max_size=255)
KEYS = st.from_regex(r"[A-Za-z0-9._:/@-]{1,255}", fullmatch=True)


@given(KEYS, NAMES)
def test_metadata_hold_a_key_and_a_name(key, name):
    """A key and any name are read from metadata as they were written, whose values fit their 255 characters."""
    kept = names.labels(key, name)
    assert (kept[KEY], names.name_in(kept, names.shown(name))) == (key, name)
    assert all(len(value) <= 255 and value.isascii() for value in kept.values())


@given(NAMES)
def test_tags_hold_a_name(name):
    """Any name is read from tags as it was written; tags need no more than what a tag may have."""
    kept = names.tags(name)
    assert names.name_in_tags(reversed(kept), names.shown(name)) == name
    assert all(len(tag) <= 255 for tag in kept)
    assert names.name_in_tags(names.tags(name, named=False), "") == name


@given(NAMES)
def test_what_is_shown_is_taken(name):
    """What is shown in place of a name has no character that clouds stumble over, and is not empty."""
    plain = names.shown(name)
    assert 0 < len(plain) <= 255
    assert plain == plain.strip()
    assert all(" " <= letter < "\ud800" or "\udfff" < letter <= "\uffff" for letter in plain)


@given(KEYS)
def test_descriptions_hold_a_key(key):
    """A key is read from a description as it was written, and a description has at most 255 characters."""
    kept = names.description(key)
    assert names.key_in_description(kept) == key
    assert len(kept) <= 255


@pytest.mark.parametrize("text", [None, "", "Default security group", "for the web shop"])
def test_descriptions_of_others_hold_none(text):
    """A description that somebody else wrote is not taken for a key."""
    assert names.key_in_description(text) == ""


@pytest.mark.parametrize(("identifier", "part"), [("a/b", "a%2Fb"), ("x?y#z", "x%3Fy%23z"), ("ü", "%C3%BC")])
def test_an_identifier_is_one_part_of_a_path(identifier, part):
    """No identifier leads to another path, or into a query."""
    assert names.path_part(identifier) == part


@pytest.mark.parametrize("identifier", ["", ".", ".."])
def test_an_identifier_that_is_another_path_is_not_found(identifier):
    """An identifier that cannot be written as a part of a path is nobody's."""
    with pytest.raises(NotFound):
        names.path_part(identifier)
