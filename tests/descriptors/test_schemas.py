"""The XSDs and the models say the same: neither can drift from the other unnoticed."""

from __future__ import annotations

from collections.abc import Iterator
from importlib import resources
from typing import Any, Literal, get_args, get_origin

import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from descriptors import schemas
from descriptors.base import Document, Element
from descriptors.documents import DOCUMENTS, Form, dump
from descriptors.layout import Place, Slot, slots
from tests.descriptors.strategies import DOCUMENTS as STRATEGIES

XS = "{http://www.w3.org/2001/XMLSchema}"
EACH = pytest.mark.parametrize("tag", DOCUMENTS)


def components(tag: str) -> dict[str, etree._Element]:
    """The named types of a document's schema and of those it includes."""
    found: dict[str, etree._Element] = {}
    pending = [f"{tag}.xsd"]
    while pending:
        root = etree.fromstring((resources.files(schemas) / pending.pop()).read_bytes())
        pending += [include.get("schemaLocation", "") for include in root.iter(f"{XS}include")]
        found |= {name: child for child in root if (name := child.get("name")) and child.tag != f"{XS}element"}
    return found


def models(model: type[Element]) -> Iterator[type[Element]]:
    """The model and all within it."""
    yield model
    for slot in slots(model):
        if slot.model:
            yield from models(slot.model)


def declared(type_: etree._Element) -> list[tuple[str, str, bool, bool]]:
    """A complex type's attributes and elements, in order: (kind, name, required, many); wrappers and wrapped."""
    rows = []
    for node in type_.iter(f"{XS}attribute", f"{XS}element"):
        if node.tag == f"{XS}attribute":
            rows.append(("attribute", node.get("name", ""), node.get("use") == "required", False))
        else:
            rows.append(("element", node.get("name", ""), node.get("minOccurs") != "0", "maxOccurs" in node.attrib))
    return rows


def expected(model: type[Element]) -> list[tuple[str, str, bool, bool]]:
    """The same from the model: elements in the order of the fields, then the attributes."""
    rows = []
    for slot in (s for s in slots(model) if s.place is Place.CHILD):
        if slot.wrapper:
            rows.append(("element", slot.wrapper, slot.required, False))
            rows.append(("element", slot.tag, least(model, slot) > 0, True))
        else:
            rows.append(("element", slot.tag, slot.required, slot.many))
    rows += [("attribute", s.tag, s.required, False) for s in slots(model) if s.place is Place.ATTRIBUTE]
    return rows


def least(model: type[Element], slot: Slot) -> int:
    """How many entries a list must have."""
    metadata = model.model_fields[slot.field].metadata
    return max((getattr(entry, "min_length", 0) or 0 for entry in metadata), default=0)


@pytest.mark.parametrize("model", STRATEGIES, ids=lambda model: model.tag)
@given(data=st.data())
def test_every_valid_document_is_valid_for_its_schema(model: type[Document], data: st.DataObject) -> None:
    """Whatever the models accept and print, the XSD accepts."""
    text = dump(data.draw(STRATEGIES[model]), Form.XML)
    assert schemas.complaints(model.tag, etree.fromstring(text)) == []


@EACH
def test_schema_declares_what_the_models_have(tag: str) -> None:
    """Each model has a complex type of its name with the same attributes and elements, in the same order."""
    types = components(tag)
    for model in models(DOCUMENTS[tag]):
        assert declared(types[model.__name__]) == expected(model), model.__name__


@EACH
def test_schema_has_no_type_too_many(tag: str) -> None:
    """Every complex type in a document's own schema belongs to one of its models."""
    root = etree.fromstring((resources.files(schemas) / f"{tag}.xsd").read_bytes())
    names = {type_.get("name") for type_ in root.iter(f"{XS}complexType") if type_.get("name")}
    assert names <= {model.__name__ for model in models(DOCUMENTS[tag])}


@EACH
def test_choices_agree(tag: str) -> None:
    """Where a model knows a closed list of words, the XSD lists the same."""
    types = components(tag)
    for model in models(DOCUMENTS[tag]):
        for node in types[model.__name__].iter(f"{XS}attribute"):
            name = node.get("type")
            simple = types.get(name) if name else node
            listed = [e.get("value") for e in simple.iter(f"{XS}enumeration")] if simple is not None else []
            assert listed == choices(model.model_fields[node.get("name", "")].annotation), (model, node.get("name"))


def choices(annotation: Any) -> list[str]:
    """The words of a ``Literal`` or an enumeration, optional or not."""
    if get_origin(annotation) is Literal:
        return list(get_args(annotation))
    if isinstance(annotation, type):
        return [member.value for member in getattr(annotation, "__members__", {}).values()]
    return [word for part in get_args(annotation) if not isinstance(part, str) for word in choices(part)]


@EACH
def test_patterns_and_bounds_agree(tag: str) -> None:
    """Where a model bounds a number or gives a pattern, the XSD has the same."""
    types = components(tag)
    for model in models(DOCUMENTS[tag]):
        properties = model.model_json_schema()["properties"]
        for slot in (s for s in slots(model) if s.place is Place.ATTRIBUTE):
            node = next(n for n in types[model.__name__].iter(f"{XS}attribute") if n.get("name") == slot.tag)
            spec = next((s for s in properties[slot.field].get("anyOf", []) if s.get("type") != "null"), None)
            rules = rules_of(spec or properties[slot.field])
            simple = types.get(node.get("type", ""))
            facets = {} if simple is None else facets_of(simple)
            assert rules.items() <= facets.items(), (model, slot.tag)


def rules_of(spec: dict[str, Any]) -> dict[str, str]:
    """The rules of a JSON Schema that XSD has facets for, in XSD's words."""
    rules = {}
    if "pattern" in spec and spec["pattern"].isascii() and "x00" not in spec["pattern"]:
        rules["pattern"] = spec["pattern"].removeprefix("^").removesuffix("$")
    if spec.get("type") in ("integer", "number") and "pattern" not in spec:
        low = spec.get("minimum", spec.get("exclusiveMinimum", -1) + 1)
        rules["minInclusive"] = f"{low:g}"
        if "maximum" in spec:
            rules["maxInclusive"] = str(spec["maximum"]).removesuffix(".0")  # of decimals, pydantic says floats
    return rules


def facets_of(simple: etree._Element) -> dict[str, str]:
    """The facets of a simple type, by name."""
    restriction = simple.find(f"{XS}restriction")
    assert restriction is not None
    return {str(f.tag).removeprefix(XS): f.get("value", "").replace("\\-", "-") for f in restriction}


@EACH
def test_schema_is_documented(tag: str) -> None:
    """Every complex type says in words what it is."""
    for name, type_ in components(tag).items():
        if type_.tag == f"{XS}complexType":
            assert type_.findtext(f"{XS}annotation/{XS}documentation"), name


def test_schemas_are_files_of_the_package() -> None:
    """There is one XSD for each document and the common one, and nothing in them points elsewhere."""
    names = {entry.name for entry in resources.files(schemas).iterdir() if entry.name.endswith(".xsd")}
    assert names == {f"{tag}.xsd" for tag in DOCUMENTS} | {"common.xsd"}
    for name in names:
        root = etree.fromstring((resources.files(schemas) / name).read_bytes())
        assert {include.get("schemaLocation") for include in root.iter(f"{XS}include")} <= names
        assert not list(root.iter(f"{XS}import", f"{XS}redefine"))
