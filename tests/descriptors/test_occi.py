"""OCCI 1.2: what is written in a rendering is read back the same, and what the standard prints is read."""

from __future__ import annotations

import json
import string
from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors.standards import occi
from descriptors.standards.occi import Category, Entity, Invocation, Link, OcciError

# --- what is written is read back ---

NAMES = st.from_regex(r"[a-z][a-z0-9_-]{0,8}(\.[a-z][a-z0-9_-]{0,8}){0,3}", fullmatch=True)
TYPES = st.builds(
    "http://{}.example.org/{}#{}".format,
    *(st.text(string.ascii_lowercase + string.digits, min_size=1, max_size=12) for _ in range(3)),
)
TEXTS = st.text(st.characters(blacklist_categories=("Cs", "Cc", "Zl", "Zp")), max_size=60)
ASCII = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=60)
NUMBERS = st.integers(-(10**15), 10**15) | st.floats(-1e9, 1e9).filter(lambda f: f == 0 or abs(f) > 1e-3)


def entities(texts):
    """Entities without links, which are not created together with them."""
    attributes = st.dictionaries(NAMES, texts | NUMBERS | st.booleans(), max_size=6)
    return st.builds(Entity, TYPES, st.lists(TYPES, max_size=3).map(tuple), attributes)


@given(entities(TEXTS))
def test_body_is_read_back(entity):
    """An entity written as a body of text/plain is read back the same, whatever letters its texts have."""
    assert occi.entity_of(occi.headers_in(occi.body_of(occi.headers_of(entity)))) == entity


@given(entities(ASCII))
def test_http_headers_are_read_back(entity):
    """An entity written as HTTP headers, each name once with its values separated by commas, is read back the same."""
    joined = occi.joined(occi.headers_of(entity))
    headers = [header for name, value in joined.items() for header in occi.values_in(name, value)]
    assert occi.entity_of(headers) == entity


@given(entities(TEXTS))
def test_json_is_read_back(entity):
    """An entity written as JSON is read back the same."""
    assert occi.entity_from_json(json.loads(json.dumps(occi.json_of(entity)))) == entity


@given(TYPES, st.dictionaries(NAMES, TEXTS, max_size=3))
def test_invocations_name_their_action(type_, attributes):
    """An action's invocation names the action and its attributes, in text and in JSON."""
    invocation = Invocation(type_, attributes)
    headers = occi.headers_of(invocation)
    scheme, term = occi.split_type(type_)
    assert headers[0] == ("Category", f'{term}; scheme="{scheme}"; class="action"')
    assert len(headers) == 1 + len(attributes)
    assert occi.json_of(invocation) == {"action": type_, "attributes": attributes}


@given(st.text(max_size=200))
def test_any_text_is_read_or_refused(text):
    """Whatever text comes, reading it gives a result or an OcciError, and nothing else."""
    for read in (occi.headers_in, lambda t: occi.values_in("Category", t), occi.uris_in):
        with suppress(OcciError):
            headers = read(text)
            occi.categories_of(header for header in headers if isinstance(header, tuple))


JSONS = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=8),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["kind", "mixins", "attributes", "links", "kinds", "term", "scheme"]), inner)
    ),
    max_leaves=8,
)


@given(JSONS)
def test_any_json_is_read_or_refused(value):
    """Whatever JSON comes, reading it gives a result or an OcciError, and nothing else."""
    for read in (occi.entity_from_json, occi.entities_from_json, occi.categories_from_json):
        with suppress(OcciError):
            read(value)


# --- what the standard prints ---

PRINTED = """Category: compute; scheme="http://schemas.ogf.org/occi/infrastructure#"; class="kind";
Link: </users/foo/compute/b9ff813e?action=start>; rel="http://schemas.ogf.org/occi/infrastructure/compute/action#start"
X-OCCI-Attribute: occi.core.id="urn:uuid:b9ff813e-fee5-4a9d-b839-673f39746096"
X-OCCI-Attribute: occi.core.title="My Dummy VM"
X-OCCI-Attribute: occi.compute.state="inactive"
X-OCCI-Attribute: occi.compute.memory=2.0
X-OCCI-Attribute: occi.compute.cores=2
"""
LINKED = """Category: compute; scheme="http://schemas.ogf.org/occi/infrastructure#"; class=kind
Link: </storage/1>; rel="http://schemas.ogf.org/occi/infrastructure#storage"; self="/link/7"; \
category="http://schemas.ogf.org/occi/infrastructure#storagelink"; occi.storagelink.deviceid="/dev/vdb, second"
"""
QUERY = (
    'storage; scheme="http://schemas.ogf.org/occi/infrastructure#"; class="kind"; title="Storage, of blocks"; '
    'rel="http://schemas.ogf.org/occi/core#resource"; location="/storage/"; '
    'attributes="occi.storage.size{required} occi.storage.state{immutable required}"; '
    'actions="http://schemas.ogf.org/occi/infrastructure/storage/action#online"'
)
NETWORK_INTERFACE = {
    "kind": "http://schemas.ogf.org/occi/infrastructure#networkinterface",
    "mixins": ["http://schemas.ogf.org/occi/infrastructure/networkinterface#ipnetworkinterface"],
    "attributes": {"occi.infrastructure.networkinterface.address": "192.168.0.100"},
    "id": "urn:uuid:22fe83ae-a20f-54fc-b436-cec85c94c5e8",
    "target": {
        "location": "/network/b7d55bf4-7057-5113-85c8-141871bf7635",
        "kind": "http://schemas.ogf.org/occi/infrastructure#network",
    },
    "source": {
        "location": "/compute/996ad860-2a9a-504f-8861-aeafd0b2ae29",
        "kind": "http://schemas.ogf.org/occi/infrastructure#compute",
    },
}
MEDIUM = {
    "term": "medium",
    "scheme": "http://example.com/template/resource#",
    "depends": ["http://schemas.ogf.org/occi/infrastructure#resourcetpl"],
    "attributes": {"occi.compute.speed": {"type": "number", "default": 2.8}},
    "title": "MediumVM",
    "location": "/template/resource/medium/",
}


def test_printed_compute_is_read():
    """The compute resource that the standard prints in text is read: attributes with their types, and its action."""
    entity = occi.entity_of(occi.headers_in(PRINTED))
    assert entity.kind == "http://schemas.ogf.org/occi/infrastructure#compute"
    assert (entity.attributes["occi.compute.memory"], entity.attributes["occi.compute.cores"]) == (2.0, 2)
    assert entity.actions == ("http://schemas.ogf.org/occi/infrastructure/compute/action#start",)
    assert entity.links == ()


def test_link_is_read():
    """A link has its target, the target's kind, its own kind and location, and attributes, commas in them included."""
    (link,) = occi.entity_of(occi.headers_in(LINKED)).links
    infrastructure = "http://schemas.ogf.org/occi/infrastructure#"
    attributes = {"occi.storagelink.deviceid": "/dev/vdb, second"}
    expected = Link("/storage/1", f"{infrastructure}storage", f"{infrastructure}storagelink", "/link/7", attributes)
    assert link == expected


def test_category_is_read():
    """A category of the query interface is read with all its parts; properties of attributes are left out."""
    (category,) = occi.categories_of(occi.values_in("Category", QUERY))
    assert category == Category(
        type="http://schemas.ogf.org/occi/infrastructure#storage",
        cls="kind",
        title="Storage, of blocks",
        related=("http://schemas.ogf.org/occi/core#resource",),
        location="/storage/",
        attributes=("occi.storage.size", "occi.storage.state"),
        actions=("http://schemas.ogf.org/occi/infrastructure/storage/action#online",),
    )


def test_printed_link_is_read_from_json():
    """The network interface that the standard prints in JSON is read: where it begins and ends, and its id."""
    attributes = occi.entity_from_json(NETWORK_INTERFACE).attributes
    assert attributes["occi.core.target"] == "/network/b7d55bf4-7057-5113-85c8-141871bf7635"
    assert attributes["occi.core.source"] == "/compute/996ad860-2a9a-504f-8861-aeafd0b2ae29"
    assert attributes["occi.core.id"] == "urn:uuid:22fe83ae-a20f-54fc-b436-cec85c94c5e8"


def test_printed_mixin_is_read_from_json():
    """The resource template that the standard prints in JSON is read with its default value."""
    (category,) = occi.categories_from_json({"mixins": [MEDIUM]})
    assert (category.cls, category.defaults) == ("mixin", {"occi.compute.speed": 2.8})
    assert category.related == ("http://schemas.ogf.org/occi/infrastructure#resourcetpl",)


def test_stacked_attributes_of_drafts_are_read():
    """Attributes that are stacked objects, as in drafts of the standard, are read as the flat ones."""
    value = {"kind": "http://a.example.org#b", "attributes": {"occi": {"compute": {"cores": 2}}}}
    assert occi.entity_from_json(value).attributes == {"occi.compute.cores": 2}


@pytest.mark.parametrize("text", ["a\nb", "tab\there", "\x7f"])
def test_control_characters_are_not_written(text):
    """A text that a line cannot hold is refused, rather than written as something else."""
    with pytest.raises(OcciError, match="control"):
        occi.headers_of(Entity("http://a.example.org#b", attributes={"occi.core.title": text}))


@pytest.mark.parametrize(
    "body",
    [
        'Category: compute; scheme="http://a#"; class="kind',
        "no header at all",
        'Category: compute; class="kind"',
        'X-OCCI-Attribute: a.b="c"',
        'Category: b; scheme="http://a#"; class="kind"\nLink: nowhere; rel="x"',
    ],
)
def test_what_is_no_entity_is_refused(body):
    """Text that is no OCCI, or lacks what an entity must have, is an OcciError."""
    with pytest.raises(OcciError):
        occi.entity_of(occi.headers_in(body))
