"""OCCI 1.2: categories, entities and actions in its three renderings.

Text (GFD.229) has two forms: lines of a body (``text/plain``) and HTTP headers (``text/occi``); both are a list of
:data:`Header` here. JSON (GFD.226) is a value for :mod:`json`. A *type* is a scheme and a term in one:
``http://schemas.ogf.org/occi/infrastructure#compute``. :class:`OcciError` says what cannot be read or written.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

PLAIN, HEADERS, JSON, URIS = "text/plain", "text/occi", "application/occi+json", "text/uri-list"
"""The media types of the renderings."""
INFRASTRUCTURE = "http://schemas.ogf.org/occi/infrastructure#"
OS_TEMPLATE = f"{INFRASTRUCTURE}os_tpl"
RESOURCE_TEMPLATE = f"{INFRASTRUCTURE}resource_tpl"

Value = str | int | float | bool
Header = tuple[str, str]
"""A name (``Category``, ``Link``, ``X-OCCI-Attribute``, ``X-OCCI-Location``) and one value."""
Class = Literal["kind", "mixin", "action"]

_CATEGORY, _LINK, _ATTRIBUTE, _LOCATION = "Category", "Link", "X-OCCI-Attribute", "X-OCCI-Location"
_NAMES = {name.lower(): name for name in (_CATEGORY, _LINK, _ATTRIBUTE, _LOCATION)}
_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*")
_NUMBER = re.compile(r"-?\d{1,18}")
_FLOAT = re.compile(r"-?\d{1,18}\.\d{1,18}([eE][+-]?\d{1,3})?")
_CORE = {"id": "occi.core.id", "title": "occi.core.title", "summary": "occi.core.summary"}
T = TypeVar("T")


class OcciError(ValueError):
    """What was to be read is not OCCI, or what was to be written cannot be said in the rendering."""


@dataclass(frozen=True)
class Category:
    """A kind, a mixin or an action. ``related`` are a kind's parent or what a mixin depends on; ``defaults`` are the
    attributes' values where none are given, which only JSON tells."""

    type: str
    cls: Class
    title: str = ""
    related: tuple[str, ...] = ()
    location: str = ""
    attributes: tuple[str, ...] = ()
    actions: tuple[str, ...] = ()
    defaults: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Link:
    """A link from a resource to another. ``location`` is the link's own, empty in JSON, which tells its ``id``."""

    target: str
    target_kind: str = ""
    kind: str = ""
    location: str = ""
    attributes: Mapping[str, Value] = field(default_factory=dict)


@dataclass(frozen=True)
class Entity:
    """A resource or a link. Its id, title and summary are the attributes ``occi.core.…``, as are a link's source and
    target. ``actions`` are the types of those that can be invoked now."""

    kind: str
    mixins: tuple[str, ...] = ()
    attributes: Mapping[str, Value] = field(default_factory=dict)
    links: tuple[Link, ...] = ()
    actions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Invocation:
    """An action to invoke."""

    action: str
    attributes: Mapping[str, Value] = field(default_factory=dict)


# --- text: writing ---


def headers_of(thing: Entity | Invocation) -> list[Header]:
    """What is sent to create an entity or to invoke an action. Links are not among it: they are created apart."""
    if isinstance(thing, Invocation):
        headers = [(_CATEGORY, _short(thing.action, "action"))]
    else:
        headers = [(_CATEGORY, _short(thing.kind, "kind"))]
        headers += [(_CATEGORY, _short(mixin, "mixin")) for mixin in thing.mixins]
    return headers + [(_ATTRIBUTE, f"{_checked(name)}={_shown(value)}") for name, value in thing.attributes.items()]


def body_of(headers: Iterable[Header]) -> str:
    """The headers as a body of ``text/plain``."""
    return "".join(f"{name}: {value}\r\n" for name, value in headers)


def joined(headers: Iterable[Header]) -> dict[str, str]:
    """The headers as HTTP headers of ``text/occi``: one of each name, its values separated by commas. Headers take
    ASCII only; :class:`OcciError` for other text."""
    found: dict[str, list[str]] = {}
    for name, value in headers:
        if not value.isascii():
            raise OcciError(f"{name} has letters that HTTP headers cannot have")
        found.setdefault(name, []).append(value)
    return {name: ", ".join(values) for name, values in found.items()}


def split_type(type_: str) -> tuple[str, str]:
    """The scheme, with its ``#``, and the term."""
    scheme, mark, term = type_.rpartition("#")
    if not mark or not scheme or not _NAME.fullmatch(term):
        raise OcciError(f"{type_!r} is no type: a scheme that ends with '#', and a term")
    return f"{scheme}#", term


def _short(type_: str, cls: Class) -> str:
    scheme, term = split_type(type_)
    return f'{term}; scheme="{scheme}"; class="{cls}"'


def _checked(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise OcciError(f"{name!r} is no name of an attribute")
    return name


def _shown(value: Value) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if any(ord(letter) < 32 or ord(letter) == 127 for letter in value):
        raise OcciError("a text has control characters, which this rendering cannot have")
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


# --- text: reading ---


def headers_in(body: str) -> list[Header]:
    """The headers in a body of ``text/plain``; a line without a colon ends the reading with :class:`OcciError`."""
    headers = []
    for line in body.replace("\r\n", "\n").split("\n"):
        if line.strip():
            name, colon, value = line.partition(":")
            if not colon or name.strip().lower() not in _NAMES:
                raise OcciError(f"a line is no OCCI header: {name[:40]!r}")
            headers += values_in(name.strip(), value)
    return headers


def values_in(name: str, value: str) -> list[Header]:
    """The headers of one HTTP header, whose values may be separated by commas."""
    name = _NAMES[name.lower()]
    return [(name, part.strip()) for part in _split(value, ",") if part.strip()]


def categories_of(headers: Iterable[Header]) -> list[Category]:
    """The categories of the query interface."""
    return [_category(value) for name, value in headers if name == _CATEGORY]


def locations_of(headers: Iterable[Header]) -> list[str]:
    """The locations of the entities of a collection."""
    return [value.strip("<>") for name, value in headers if name == _LOCATION]


def uris_in(body: str) -> list[str]:
    """The locations in a body of ``text/uri-list`` (RFC 2483)."""
    return [line.strip() for line in body.splitlines() if line.strip() and not line.startswith("#")]


def entity_of(headers: Iterable[Header]) -> Entity:
    """A resource or a link; its first category of class kind is its kind."""
    kinds: list[str] = []
    mixins: list[str] = []
    attributes: dict[str, Value] = {}
    links: list[Link] = []
    actions: list[str] = []
    for name, value in headers:
        if name == _CATEGORY:
            category = _category(value)
            (kinds if category.cls == "kind" else mixins).append(category.type)
        elif name == _ATTRIBUTE:
            key, _, text = value.partition("=")
            attributes[_checked(key.strip())] = _read(text.strip())
        elif name == _LINK:
            link = _link(value)
            if re.search(r"\?action=[\w-]+$", link.target):
                actions.append(link.target_kind)
            else:
                links.append(link)
    if not kinds:
        raise OcciError("an entity has no kind")
    return Entity(kinds[0], tuple(mixins), attributes, tuple(links), tuple(actions))


def _category(value: str) -> Category:
    term, *parameters = _split(value, ";")
    given = _parameters(parameters)
    cls = given.get("class", "")
    if cls not in ("kind", "mixin", "action") or "scheme" not in given:
        raise OcciError("a category has no class or no scheme")
    type_ = given["scheme"] + term.strip()
    split_type(type_)
    names = (re.sub(r"\{.*", "", name) for name in re.split(r"\s+(?![^{]*\})", given.get("attributes", "")))
    return Category(
        type=type_,
        cls=cls,  # type: ignore[arg-type]  # it is one of them
        title=given.get("title", ""),
        related=tuple(given.get("rel", "").split()),
        location=given.get("location", ""),
        attributes=tuple(name for name in names if name),
        actions=tuple(given.get("actions", "").split()),
    )


def _link(value: str) -> Link:
    target, *parameters = _split(value, ";")
    if not re.fullmatch(r"\s*<[^<>]*>\s*", target):
        raise OcciError("a link has no target")
    known: dict[str, str] = {}
    attributes: dict[str, Value] = {}
    for parameter in parameters:
        name, _, text = parameter.partition("=")
        if name.strip() in ("rel", "self", "category"):
            known[name.strip()] = str(_text(text.strip()))
        elif name.strip():
            attributes[_checked(name.strip())] = _read(text.strip())
    kind = (known.get("category", "").split() or [""])[0]
    return Link(
        target.strip()[1:-1], (known.get("rel", "").split() or [""])[0], kind, known.get("self", ""), attributes
    )


def _parameters(parts: Iterable[str]) -> dict[str, str]:
    pairs = (part.partition("=") for part in parts if part.strip())
    return {name.strip(): _text(value.strip()) for name, _, value in pairs}


def _read(text: str) -> Value:
    if text.startswith('"'):
        return _text(text)
    if text in ("true", "false"):
        return text == "true"
    if _NUMBER.fullmatch(text):
        return int(text)
    return float(text) if _FLOAT.fullmatch(text) else text


def _text(text: str) -> str:
    """A quoted string without its quotes, or a token."""
    if not text.startswith('"'):
        return text
    if len(text) < 2 or not text.endswith('"'):
        raise OcciError("a quoted string does not end")
    return re.sub(r"\\(.)", r"\1", text[1:-1])


def _split(text: str, separator: str) -> list[str]:
    """The parts between separators that are not quoted, and not within angle brackets."""
    parts, part, quoted, escaped, bracketed = [], "", False, False, False
    for letter in text:
        if not escaped and not quoted and not bracketed and letter == separator:
            parts.append(part)
            part = ""
            continue
        part += letter
        if letter == '"' and not escaped and not bracketed:
            quoted = not quoted
        elif not quoted and letter in "<>":
            bracketed = letter == "<"
        escaped = quoted and letter == "\\" and not escaped
    if quoted:
        raise OcciError("a quoted string does not end")
    return [*parts, part]


# --- JSON ---


def json_of(thing: Entity | Invocation) -> dict[str, Any]:
    """What is sent to create an entity or to invoke an action."""
    if isinstance(thing, Invocation):
        return {"action": thing.action, "attributes": dict(thing.attributes)}
    known = {short: thing.attributes[name] for short, name in _CORE.items() if name in thing.attributes}
    ends = {end: f"occi.core.{end}" for end in ("source", "target")}
    linked: dict[str, Any] = {
        end: {"location": thing.attributes[name]} for end, name in ends.items() if name in thing.attributes
    }
    apart = {*_CORE.values(), *ends.values()}
    rest = {_checked(name): value for name, value in thing.attributes.items() if name not in apart}
    return {"kind": thing.kind, "mixins": list(thing.mixins), "attributes": rest} | known | linked


def entity_from_json(value: Any) -> Entity:
    """A resource or a link."""
    item = _expect(value, dict, "an entity")
    attributes = dict(_flat(_expect(item.get("attributes", {}), dict, "attributes")))
    attributes |= {name: _expect(item[short], str, short) for short, name in _CORE.items() if item.get(short)}
    for end in ("source", "target"):
        if end in item:
            attributes[f"occi.core.{end}"] = _end(item[end])[0]
    links = [_link_from_json(link) for link in _expect(item.get("links", []), list, "links")]
    return Entity(
        kind=_expect(item.get("kind"), str, "a kind"),
        mixins=_texts(item.get("mixins", [])),
        attributes=attributes,
        links=tuple(links),
        actions=_texts(item.get("actions", [])),
    )


def entities_from_json(value: Any) -> list[Entity]:
    """The entities of a collection: resources, links, or both."""
    held = _expect(value, dict, "a collection")
    if not {"resources", "links"} & held.keys():
        raise OcciError("a collection has neither resources nor links")
    items = [_expect(held.get(name, []), list, name) for name in ("resources", "links")]
    return [entity_from_json(item) for part in items for item in part]


def categories_from_json(value: Any) -> list[Category]:
    """The categories of the query interface."""
    held = _expect(value, dict, "a collection of categories")
    found = []
    for name, cls in (("kinds", "kind"), ("mixins", "mixin"), ("actions", "action")):
        for item in _expect(held.get(name, []), list, name):
            found.append(_category_from_json(item, cls))  # type: ignore[arg-type]  # noqa: PERF401 - it is one of them
    return found


def _category_from_json(value: Any, cls: Class) -> Category:
    item = _expect(value, dict, "a category")
    type_ = _expect(item.get("scheme"), str, "a scheme") + _expect(item.get("term"), str, "a term")
    split_type(type_)
    parent = [item["parent"]] if isinstance(item.get("parent"), str) else item.get("parent") or []
    described = _expect(item.get("attributes", {}), dict, "attributes")
    defaults = {n: d["default"] for n, d in described.items() if isinstance(d, dict) and _is_value(d.get("default"))}
    return Category(
        type=type_,
        cls=cls,
        title=str(item.get("title") or ""),
        related=_texts(parent) + _texts(item.get("depends") or []),
        location=str(item.get("location") or ""),
        attributes=tuple(described),
        actions=_texts(item.get("actions") or []),
        defaults=defaults,
    )


def _link_from_json(value: Any) -> Link:
    item = _expect(value, dict, "a link")
    target, kind = _end(item.get("target"))
    attributes = dict(_flat(_expect(item.get("attributes", {}), dict, "attributes")))
    if item.get("id"):
        attributes["occi.core.id"] = _expect(item["id"], str, "an id")
    return Link(target, kind or str(item.get("rel") or ""), _expect(item.get("kind"), str, "a kind"), "", attributes)


def _end(value: Any) -> tuple[str, str]:
    """Where a link begins or ends: an object, or in drafts of the standard just a text."""
    if isinstance(value, str):
        return value, ""
    item = _expect(value, dict, "an end of a link")
    return _expect(item.get("location"), str, "a location"), str(item.get("kind") or "")


def _flat(attributes: Mapping[str, Any], above: str = "") -> Iterable[tuple[str, Value]]:
    """Names and values; drafts of the standard have an object for each part of a name."""
    for name, value in attributes.items():
        if isinstance(value, dict):
            yield from _flat(value, f"{above}{name}.")
        elif _is_value(value):
            yield f"{above}{name}", value


def _is_value(value: Any) -> bool:
    return isinstance(value, str | int | float | bool)


def _texts(value: Any) -> tuple[str, ...]:
    return tuple(_expect(item, str, "a type") for item in _expect(value, list, "a list of types"))


def _expect(value: Any, kind: type[T], what: str) -> T:
    if not isinstance(value, kind):
        raise OcciError(f"{what} is missing, or of another type")
    return value
