"""Where each field of a model stands in XML: as an attribute, as the text, as child elements, or wrapped in one.

Read from the models themselves (pydantic-xml's annotations), so there is no second description to keep in step.
"""

from __future__ import annotations

import types
from dataclasses import dataclass
from enum import Enum
from functools import cache
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic_xml.fields import extract_field_xml_entity_info
from pydantic_xml.typedefs import EntityLocation

from descriptors.base import Element


class Place(Enum):
    """The ways a field can stand in XML."""

    ATTRIBUTE = "attribute"
    TEXT = "text"
    CHILD = "child"


@dataclass(frozen=True)
class Slot:
    """One field of a model and its place in XML."""

    field: str
    place: Place
    tag: str
    wrapper: str | None
    """The element around the children, if there is one."""
    many: bool
    model: type[Element] | None
    """What a child is read as; None: text."""
    required: bool

    @property
    def outer(self) -> str:
        """The tag of the child element that the parent sees."""
        return self.wrapper or self.tag

    @property
    def label(self) -> str:
        """What people call it in XML."""
        return {
            Place.ATTRIBUTE: f"attribute {self.tag!r}",
            Place.TEXT: "the text",
            Place.CHILD: f"element <{self.outer}>",
        }[self.place]


@cache
def slots(model: type[Element]) -> tuple[Slot, ...]:
    """The model's fields in order, which is the order of the elements in XML."""
    return tuple(_slot(model, name) for name in model.model_fields)


def _slot(model: type[Element], name: str) -> Slot:
    field = model.model_fields[name]
    info = extract_field_xml_entity_info(field)
    many, inner = _inner(field.annotation)
    child = inner if isinstance(inner, type) and issubclass(inner, Element) else None
    place, tag, wrapper = Place.CHILD, name, None
    if info is None:
        place = Place.CHILD if child else Place.TEXT
    elif info.location is EntityLocation.ATTRIBUTE:
        place, tag = Place.ATTRIBUTE, info.path or name
    elif info.location is EntityLocation.WRAPPED and info.wrapped:
        tag, wrapper = info.wrapped.path or name, info.path
    else:
        tag = info.path or name
    return Slot(name, place, tag, wrapper, many, child, field.is_required())


def _inner(annotation: Any) -> tuple[bool, Any]:
    """Whether the type is a tuple of many, and the type of one: ``tuple[X, ...] -> (True, X)``, ``X | None -> X``."""
    origin, args = get_origin(annotation), get_args(annotation)
    if origin is Annotated:
        return _inner(args[0])
    if origin in (Union, types.UnionType):
        return _inner(next(arg for arg in args if arg is not type(None)))
    if origin is tuple:
        return True, _inner(args[0])[1]
    return False, annotation


def model_at(model: type[Element], path: tuple[str | int, ...]) -> type[Element] | None:
    """The model of what stands at ``path`` within ``model``; None when it is no element or unknown."""
    here: type[Element] | None = model
    for part in path:
        if here is not None and isinstance(part, str):
            here = next((slot.model for slot in slots(here) if slot.field == part), None)
    return here
