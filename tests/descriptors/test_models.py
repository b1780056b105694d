"""The models refuse what cannot be, with words that say what to do."""

from __future__ import annotations

from typing import Any

import pytest
from pydantic import ValidationError

from descriptors.application import Application, Component, File, Rewrite
from descriptors.base import Document
from descriptors.deployment import Deployment
from descriptors.documents import DOCUMENTS, DocumentError, load
from descriptors.resources import Reason, ResourceClass

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
