"""What every document shares: namespace, strictness, names, money, moments and sizes.

A *document* is an immutable pydantic model with an XML form (pydantic-xml). YAML and JSON forms say the same.
All of them enter and leave through :mod:`descriptors.documents`; nothing else parses or prints a document.
"""

from __future__ import annotations

import re
import secrets
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    AfterValidator,
    AwareDatetime,
    ConfigDict,
    Field,
    PlainSerializer,
    StringConstraints,
    ValidationError,
)
from pydantic_core import InitErrorDetails, PydanticCustomError
from pydantic_xml import BaseXmlModel, attr

NAMESPACE = "urn:cloud-agency:documents:1"
"""The XML namespace of every element, and the version of the document family."""

MIB = 1024 * 1024


def utc_now() -> datetime:
    """The present moment, aware, in UTC, cut to whole microseconds as documents carry it."""
    return datetime.now(UTC)


def new_id(prefix: str) -> str:
    """An unguessable identifier such as ``offer-3f9c2a7b10d4e6f8`` (64 bits of randomness)."""
    return f"{prefix}-{secrets.token_hex(8)}"


def _plain_decimal(value: Decimal) -> str:
    """``Decimal`` without an exponent, as ``xs:decimal`` demands: ``1E+2`` becomes ``100``."""
    return format(value, "f")


def _in_utc(value: datetime) -> datetime:
    """The same moment in UTC; ``ValueError`` at the edges of the calendar, where there is none."""
    try:
        return value.astimezone(UTC)
    except OverflowError:
        raise ValueError(f"the moment {value} lies outside the calendar") from None


Name = Annotated[str, StringConstraints(pattern=r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$")]
"""A name people choose: lower-case letters, digits and inner hyphens, at most 40 (part of a DNS label, RFC 1123)."""

Identifier = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9._:/@-]{1,255}$")]
"""An identifier a machine chose: ours (``offer-…``) or a provider's."""

Printable = Annotated[str, StringConstraints(pattern=r"^[^\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]*$")]
"""Any text without control characters: they could not be written as XML 1.0."""

Text = Annotated[Printable, StringConstraints(min_length=1, max_length=4096, strip_whitespace=True)]
"""Words for people."""

# Bounds stand beside the type, so that pydantic checks them natively: after a validator of ours it would do so in
# Python, which took four times as long. A float is read by its shortest text, never by its binary value.
_AS_TEXT = PlainSerializer(_plain_decimal, return_type=str)
Money = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=6), _AS_TEXT]
"""A sum in the currency named beside it; at most 6 decimal places."""
Quantity = Annotated[Decimal, Field(ge=0, max_digits=18, decimal_places=6), _AS_TEXT]
"""An amount of anything, in the unit that its field names."""
Percent = Annotated[Decimal, Field(ge=0, le=100, max_digits=9, decimal_places=6), _AS_TEXT]
Share = Annotated[Decimal, Field(ge=0, le=1, max_digits=7, decimal_places=6), _AS_TEXT]
"""A part of 1."""
Count = Annotated[int, Field(ge=0, le=2**53)]
Currency = Annotated[str, StringConstraints(pattern=r"^[A-Z]{3}$")]
"""An ISO 4217 code."""
Digest = Annotated[str, StringConstraints(pattern=r"^blake3:[0-9a-f]{64}$")]
"""``blake3:`` and 64 hexadecimal digits."""
Token = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$", max_length=16384)]
"""A signed document: a JWS in compact form (RFC 7515)."""
Mebibytes = Annotated[int, Field(gt=0, le=2**40)]
Bytes = Annotated[int, Field(ge=0, le=2**60)]
Seconds = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Moment = Annotated[AwareDatetime, AfterValidator(_in_utc)]
"""A point in time, given with its offset and kept in UTC: equal moments have equal digests."""
Revision = Annotated[int, Field(ge=1, le=2**53)]
"""Counts the changes of a document. Bounded, as every number of ours is: JSON and XSD cannot hold more."""
Port = Annotated[int, Field(ge=1, le=65535)]


class Element(BaseXmlModel, nsmap={"": NAMESPACE}, ns=""):
    """A part of a document: immutable, and strict about what it does not know."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class Reference(Element, tag="reference"):
    """Another document, by its id and by its digest: that one and no other."""

    id: Identifier = attr()
    digest: Digest = attr()


class Document(Element):
    """A whole document: the root of an XML tree, with a version so that old ones keep loading."""

    tag: ClassVar[str]
    """The root element in XML and the value of ``document`` in YAML and JSON; the registry's key."""

    version: Literal["1"] = attr(default="1")

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Record the ``tag=`` of the class statement as :attr:`tag`."""
        super().__init_subclass__(**kwargs)
        if tag := kwargs.get("tag"):
            cls.tag = tag


def relative_path(value: str) -> str:
    """Accept a relative path that stays below its root; raise ``ValueError`` with clear words otherwise."""
    outside = not value or value.startswith(("/", "~")) or ".." in value.split("/")
    if outside or re.search(r"[\x00-\x1f\x7f\\\ufffe\uffff]", value):
        raise ValueError(f"the path {value!r} must be relative, with '/' between its parts, and stay below its folder")
    return value


Location = tuple[str | int, ...]
"""The way to a value inside a model: field names and list positions."""
Misfit = tuple[Location, str]
"""Something that does not fit the rest of its document: where, and why in words."""


def raise_misfits(title: str, misfits: list[Misfit]) -> None:
    """For validators that look across fields: raise all of them, each with its place; nothing when there are none."""
    errors = [
        InitErrorDetails(type=PydanticCustomError("misfit", "{words}", {"words": words}), loc=location, input=None)
        for location, words in misfits
    ]
    if errors:
        raise ValidationError.from_exception_data(title, errors)
