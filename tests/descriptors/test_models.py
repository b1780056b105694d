"""The models refuse what cannot be, with words that say what to do."""

from __future__ import annotations

from decimal import Decimal
from typing import Any, get_args

import pytest
from hypothesis import given
from pydantic import ValidationError

from descriptors.application import Application, Component, File, Rewrite
from descriptors.base import Document
from descriptors.deployment import Deployment
from descriptors.documents import DOCUMENTS, DocumentError, load
from descriptors.resources import Reason, ResourceClass
from descriptors.sla import (
    MEASURES,
    TRANSITIONS,
    Agreement,
    AgreementState,
    Constraint,
    CounterOffer,
    GuaranteeTerm,
    MoveTerms,
    NegotiableTerm,
    Offer,
)
from tests.descriptors.strategies import agreements, offers

START = {"phase": "start", "line": "run"}


def component(**fields: Any) -> dict[str, Any]:
    """A component as data, valid but for ``fields``."""
    return {"name": "app", "resource": "machine", "commands": [START], **fields}


def application(*components: dict[str, Any], **fields: Any) -> dict[str, Any]:
    """An application as data, with a machine, two volumes and a bucket."""
    resources = [
        {"name": "machine", "type": "COMPUTE", "cores": 1},
        {"name": "disk", "type": "STORAGE", "kind": "block", "size_mib": 1},
        {"name": "disk2", "type": "STORAGE", "kind": "block", "size_mib": 1},
        {"name": "bucket", "type": "STORAGE", "kind": "object"},
    ]
    return {
        "name": "a",
        "resources": resources,
        "tiers": [{"name": "t", "components": list(components) or [component()]}],
        **fields,
    }


def words(model: type[Any], data: dict[str, Any]) -> list[str]:
    """What the model says against the data: ``place: words``."""
    with pytest.raises(ValidationError) as caught:
        model.model_validate(data)
    return [f"{'.'.join(map(str, e['loc']))}: {e['msg'].removeprefix('Value error, ')}" for e in caught.value.errors()]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"type": "NETWORK", "cores": 1}, "'cores' belongs to CLUSTER or COMPUTE or MAP_REDUCE, not to NETWORK"),
        ({"type": "COMPUTE", "nodes": 1}, "'nodes' belongs to CLUSTER or MAP_REDUCE, not to COMPUTE"),
        ({"type": "COMPUTE", "size_mib": 1}, "'size_mib' belongs to STORAGE, not to COMPUTE"),
        ({"type": "STORAGE"}, "STORAGE needs kind='block' or kind='object'"),
        ({"type": "STORAGE", "kind": "block"}, "block storage needs size_mib"),
        ({"type": "STORAGE", "kind": "object", "size_mib": 1}, "an object store has no size_mib and no fallback"),
        ({"type": "COMPUTE", "provider": "x"}, "provider and agreement come together, after provisioning"),
    ],
)
def test_resource_class(fields: dict[str, Any], expected: str) -> None:
    """A resource class holds only what its type can have."""
    assert words(ResourceClass, {"name": "r", **fields}) == [f": resource 'r': {expected}"]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"commands": []}, ": component 'app': needs exactly one command with phase='start'"),
        ({"commands": [START, START]}, ": component 'app': needs exactly one command with phase='start'"),
        ({"depends_on": ["app"]}, ": component 'app' depends on itself: remove it from its depends_on"),
        ({"health": {"path": "/"}}, ": component 'app': a health or content probe needs a port"),
        ({"files": [{"source": s, "target": "x"} for s in "ab"]}, "files.1: component 'app': file target 'x' is there"),
        ({"volumes": [{"resource": r} for r in "ab"]}, "volumes.1: component 'app': device 'dev/vdb' is there twice"),
        ({"rewrites": [{"file": "x", "pattern": "a", "value": ""}]}, "rewrites.0: component 'app': rewrite of 'x', wh"),
    ],
)
def test_component(fields: dict[str, Any], expected: str) -> None:
    """A component is whole by itself."""
    assert words(Component, component(**fields))[0].startswith(expected)


def test_placeholders() -> None:
    """A rewrite may use only the placeholders that its component will have, and is told which these are."""
    data = component(
        files=[{"source": "x", "target": "x"}],
        buckets=[{"resource": "b"}],
        rewrites=[{"file": "x", "pattern": "a", "value": "{bucket.c.endpoint}{bucket.b.endpoint}"}],
    )
    assert words(Component, data) == [
        "rewrites.0: component 'app': unknown placeholder {bucket.c.endpoint}; "
        "known: bucket.b.access_key, bucket.b.endpoint, bucket.b.secret_key"
    ]


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"depends_on": ["x"]}, "depends_on.0: component 'app' depends on 'x', which is no component"),
        ({"resource": "x"}, "resource: component 'app' uses 'x': no such resource; expected a COMPUTE resource"),
        ({"resource": "disk"}, "resource: component 'app' uses 'disk': expected a COMPUTE resource, found a STORAGE"),
        (
            {"volumes": [{"resource": "bucket"}]},
            "volumes.0.resource: component 'app' uses 'bucket': expected a STORAGE",
        ),
        ({"buckets": [{"resource": "disk"}]}, "buckets.0.resource: component 'app' uses 'disk': expected a STORAGE"),
    ],
)
def test_references(fields: dict[str, Any], expected: str) -> None:
    """Every reference in an application leads to something of the right kind."""
    assert words(Application, application(component(**fields)))[0].startswith(f"tiers.0.components.0.{expected}")


def test_duplicates_are_told_all_at_once() -> None:
    """Names are unique, a volume serves one component, and every offence is told with its place."""
    twice = component(volumes=[{"resource": "disk"}])
    data = application(twice, twice)
    data["resources"].append(data["resources"][0])
    data["tiers"].append({"name": "t", "components": [component(name="other")]})
    assert words(Application, data) == [
        "resources.4: resource 'machine' is there twice",
        "tiers.1: tier 't' is there twice",
        "tiers.0.components.1: component 'app' is there twice",
        "tiers.0.components.1.volumes.0: a block volume serves one component; volume 'disk' is there twice",
    ]


def test_circle() -> None:
    """Components that depend on each other in a circle are named in its order."""
    data = application(
        component(name="a", depends_on=["b"]),
        component(name="b", depends_on=["c"]),
        component(name="c", depends_on=["a"]),
    )
    assert "components depend on each other in a circle: " in words(Application, data)[0]
    assert any(circle in words(Application, data)[0] for circle in ("a → b → c → a", "b → c → a → b", "c → a → b → c"))


def test_start_order() -> None:
    """What others depend on starts first; otherwise the order of the document holds."""
    data = application(component(name="c", depends_on=["a"]), component(name="b"), component(name="a"))
    assert [c.name for c in Application.model_validate(data).start_order()] == ["b", "a", "c"]


def test_thousands_of_components_are_checked_soon() -> None:
    """Checking an application takes time in proportion to its size: nine thousand in a chain are no burden."""
    chain = [component(name=f"c{n}", depends_on=[f"c{n - 1}"] if n else []) for n in range(9000)]
    assert len(Application.model_validate(application(*reversed(chain))).start_order()) == 9000


@pytest.mark.parametrize("path", ["", "/etc/passwd", "~/x", "../x", "a/../../x", "a\\b", "a\nb", "a\x7f"])
def test_paths_stay_below(path: str) -> None:
    """A path that is absolute, climbs out or hides control characters is refused in clear words."""
    assert "must be relative, with '/' between its parts" in words(File, {"source": path, "target": "x"})[0]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("(", "not a regular expression: missing )"),
        ("a{99999999999999999999}", "the regular expression repeats too much"),
        (r"\+{1000000}", "the regular expression repeats too much"),
        ("((a{100}){100}){100}", "the regular expression repeats too much"),
        ("(?:" * 30 + "a" + ")+" * 30, "the regular expression repeats too much"),
        ("(?ix)( a ) # {1\n{1000 000}", "a regular expression in verbose mode is of no use"),
        ("(" * 500 + ")" * 500, "the regular expression is nested too deeply"),
    ],
)
def test_patterns_compile(pattern: str, expected: str) -> None:
    """A rewrite's pattern is a regular expression that can be compiled; nothing else is raised."""
    assert words(Rewrite, {"file": "x", "pattern": pattern, "value": ""})[0].startswith(f"pattern: {expected}")


@pytest.mark.parametrize(
    "pattern",
    [
        r"^(?:[0-9]{1,3}\.){3}[0-9]{1,3}:\d+$",
        r"(?i)[0-9a-f]{8}-(?:[0-9a-f]{4}-){3}[0-9a-f]{12} [0-9a-f]{64}",
        r"(?P<key>\w+)\s*=\s*(?:\"(?:[^\"\\]|\\.)*\"|(?:[+-]?\d+)+)++",
        r"^# (a|a)+$",
    ],
)
def test_usual_patterns_are_not_refused(pattern: str) -> None:
    """What people write for addresses, identifiers and quoted strings is within the bounds; slowness shows later."""
    assert Rewrite(file="x", pattern=pattern, value="").expression().pattern == pattern


def test_nothing_holds_control_characters() -> None:
    """Characters that XML cannot carry are refused on the way in, so that every model can be printed."""
    for character in "\0\x1b\x7f￾\r":
        assert words(Reason, {"code": "x", "message": f"a{character}"})[0].startswith("message: ")
        assert words(Rewrite, {"file": "x", "pattern": "a", "value": character})[0].startswith("value: ")


def test_moments_need_an_offset_and_a_calendar() -> None:
    """A moment without offset is refused, and so is one that UTC cannot hold."""
    data = {"id": "x", "application": "a", "revision": 1, "status": "running", "agreements": ["x"]}
    assert "timezone" in words(Deployment, {**data, "changed": "2026-11-22T10:00:00"})[0]
    assert "outside the calendar" in words(Deployment, {**data, "changed": "0001-01-01T00:00:00+14:00"})[0]


@pytest.mark.parametrize("model", DOCUMENTS.values(), ids=DOCUMENTS)
def test_documents_are_immutable_and_strict(model: type[Document]) -> None:
    """No document can be changed once made, and none swallows what it does not know."""
    assert model.model_config["frozen"]
    assert model.model_config["extra"] == "forbid"
    with pytest.raises(DocumentError, match="unknown key 'surprise'"):
        load(f"document: {model.tag}\nsurprise: 1\n")


GUARANTEE = {"name": "g", "penalty": 10}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"property": "availability"}, ": availability needs one bound: at_least or at_most"),
        ({"property": "availability", "at_least": 9, "at_most": 99}, ": availability needs one bound"),
        ({"property": "availability", "at_least": 101}, ": availability is at most 100 %, not 101"),
        ({"property": "availability", "at_most": 99}, ": a guarantee of availability says at_least"),
        ({"property": "response-time", "at_least": 99}, ": a guarantee of response-time says at_most"),
        ({"property": "speed", "at_least": 1}, "property: Input should be 'availability', 'response-time'"),
    ],
)
def test_guarantee(fields: dict[str, Any], expected: str) -> None:
    """A guarantee has one bound, on the side that its property asks for, and no higher than there is."""
    assert words(GuaranteeTerm, {**GUARANTEE, **fields})[0].startswith(expected)


def test_guarantees_in_words() -> None:
    """A guarantee says for people what is held to what, in which unit."""
    up = GuaranteeTerm(**GUARANTEE, property="availability", at_least=Decimal("99.9"))
    soon = GuaranteeTerm(**GUARANTEE, property="response-time", at_most=200)
    assert (up.words(), soon.words()) == ("99.9 % availability", "at most 200 ms response-time")


@given(offers)
def test_only_what_is_guaranteed_for_everything_counts(offer: Offer) -> None:
    """A guarantee of some resources only, or on a condition, is no guarantee for the application; of several that
    hold for the same resources the best counts."""
    every = [resource.name for resource in offer.resources]
    low, high, conditional = (
        GuaranteeTerm(**GUARANTEE, property="availability", at_least=least, condition=condition)
        for least, condition in ((99, None), (Decimal("99.9"), None), (100, {"property": "throughput", "at_most": 1}))
    )

    def guaranteed(*terms: GuaranteeTerm) -> Decimal | None:
        return offer.model_copy(update={"guarantees": terms}).guaranteed("availability")

    assert guaranteed(low, high, conditional) == Decimal("99.9")
    assert guaranteed(conditional) is None
    assert guaranteed(high.model_copy(update={"scope": ("elsewhere",)})) is None
    assert guaranteed(low, high.model_copy(update={"scope": tuple(every)})) == Decimal("99.9")
    if len(set(every)) > 1:
        assert guaranteed(high.model_copy(update={"scope": (every[0],)})) is None
        assert guaranteed(low, high.model_copy(update={"scope": (every[0],)})) == 99


def test_every_negotiable_term_is_measured() -> None:
    """There is a unit and a direction for each term that a counter-offer may change."""
    assert set(MEASURES) == set(get_args(NegotiableTerm))


def test_move_terms_say_something() -> None:
    """Terms of a move that promise nothing are refused."""
    assert words(MoveTerms, {})[0].startswith(": move needs one of egress_per_gib, window_hours")


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"at_least": 1, "choices": [1]}, ": constraint on cores: give a range or choices, not both"),
        ({"at_least": 2, "at_most": 1}, ": constraint on cores: at_least is over at_most, so nothing fits"),
    ],
)
def test_constraint(fields: dict[str, Any], expected: str) -> None:
    """A constraint is a range or choices, and can be met."""
    assert words(Constraint, {"term": "cores", **fields}) == [expected]


@pytest.mark.parametrize(
    ("fields", "allowed", "described"),
    [
        ({}, [0, 1, 2, 3], "anything"),
        ({"at_least": 1}, [1, 2, 3], "at least 1"),
        ({"at_most": 2}, [0, 1, 2], "at most 2"),
        ({"at_least": 1, "at_most": 2}, [1, 2], "1 to 2"),
        ({"choices": (1, 3)}, [1, 3], "1 or 3"),
    ],
)
def test_constraint_allows(fields: dict[str, Any], allowed: list[int], described: str) -> None:
    """A constraint allows what lies in its range, bounds included, or is one of its choices, and says so."""
    constraint = Constraint(term="cores", **fields)
    assert [value for value in range(4) if constraint.allows(value)] == allowed
    assert constraint.words() == described


def test_counter_offer_changes_each_term_once() -> None:
    """A counter-offer that wants two values for one term is refused, and told which."""
    data = {
        "id": "c",
        "call": "c",
        "application": "a",
        "vendor": "v",
        "offer": {"id": "o", "digest": "blake3:" + "0" * 64},
    }
    data |= dict.fromkeys(("issued", "expires"), "2026-11-22T10:00:00Z")
    changes = [{"term": "setup", "value": value} for value in (1, 2)]
    assert words(CounterOffer, {**data, "changes": changes}) == ["changes.1: setup is changed twice"]


@given(agreements)
def test_agreement_states(agreement: Agreement) -> None:
    """An agreement takes only the steps that the table has, keeps everything else, and never leaves an end."""
    for state in get_args(AgreementState):
        if state == agreement.state or state in TRANSITIONS[agreement.state]:
            assert agreement.become(state) == agreement.model_copy(update={"state": state})
        else:
            with pytest.raises(ValueError, match=f"it cannot become {state}"):
                agreement.become(state)
    assert {state for state, following in TRANSITIONS.items() if not following} == {"rejected", "terminated", "expired"}
