"""The one door in and out: every document that enters or leaves is read and printed here, and nowhere else.

:func:`load` takes XML, YAML or JSON and answers with a model that holds, or with a :class:`DocumentError` that says
for each problem the file, line, column, element and what was expected. It bounds size and depth, resolves no entities,
loads no DTD and opens neither the network nor any file but the one it was asked for.

:func:`dump` prints a document in any form. :func:`canonical` gives the bytes that are signed and hashed: the same for
a document and for its copy that went out and came back in any form.
"""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Iterator, Mapping
from enum import StrEnum
from importlib import import_module
from pathlib import Path
from typing import TypeVar, overload

import yaml
from pydantic import ValidationError
from pydantic_core import ErrorDetails, from_json

from descriptors.base import MIB, Document
from descriptors.digests import canonical, digest, plain
from descriptors.layout import model_at, slots
from descriptors.problems import MAX_PROBLEMS, DocumentError, Problem, explain, refuse, unknown, wanted
from descriptors.reading import Lines, Reading, plain_json, read_json, read_yaml
from descriptors.xml_form import XmlReading, read_xml

__all__ = ["DOCUMENTS", "DocumentError", "Form", "Problem", "canonical", "digest", "dump", "load", "load_canonical"]

MAX_BYTES = 4 * MIB

_MODELS = {
    "application": "application.Application",
    "agreement-template": "sla.AgreementTemplate",
    "call-for-proposals": "cfp.CallForProposals",
    "offer": "sla.Offer",
    "counter-offer": "sla.CounterOffer",
    "refusal": "sla.Refusal",
    "composition": "comparison.Composition",
    "comparison": "comparison.Comparison",
    "mandate": "negotiation.Mandate",
    "negotiation": "negotiation.Negotiation",
    "delegation": "trust.Delegation",
    "acceptance": "trust.Acceptance",
    "record": "comparison.Record",
    "agreement": "sla.Agreement",
    "deployment": "deployment.Deployment",
    "relocation-plan": "relocation.RelocationPlan",
    "relocation-receipt": "relocation.RelocationReceipt",
    "transfer-manifest": "transfer.TransferManifest",
    "registration": "directory.Registration",
    "search": "directory.Search",
    "search-result": "directory.SearchResult",
    "request": "messages.Request",
    "problem": "messages.Problem",
}


class _Documents(Mapping[str, type[Document]]):
    """Models by tag. Each is imported when it is first asked for: to make them all takes long, and most processes see
    few."""

    def __getitem__(self, tag: str) -> type[Document]:
        module, name = _MODELS[tag].split(".")
        model: type[Document] = getattr(import_module(f"descriptors.{module}"), name)
        return model

    def __iter__(self) -> Iterator[str]:
        return iter(_MODELS)

    def __len__(self) -> int:
        return len(_MODELS)

    def __contains__(self, tag: object) -> bool:
        return tag in _MODELS


DOCUMENTS = _Documents()
"""Every document by its tag: the root element in XML, the value of ``document`` in YAML and JSON."""

D = TypeVar("D", bound=Document)


class Form(StrEnum):
    """The three forms of a document. They say the same."""

    XML = "xml"
    YAML = "yaml"
    JSON = "json"


_SUFFIXES = {".xml": Form.XML, ".yaml": Form.YAML, ".yml": Form.YAML, ".json": Form.JSON}


@overload
def load(
    source: bytes | str | Path, *, form: Form | None = None, expect: None = None, name: str = "<input>"
) -> Document: ...
@overload
def load(source: bytes | str | Path, *, form: Form | None = None, expect: type[D], name: str = "<input>") -> D: ...
def load(
    source: bytes | str | Path,
    *,
    form: Form | None = None,
    expect: type[Document] | None = None,
    name: str = "<input>",
) -> Document:
    """Read one document.

    ``source`` is a file (a ``Path``) or the text itself (``bytes`` or ``str``). Without ``form`` a file's suffix
    decides, then the first character: ``<`` is XML, ``{`` is JSON, anything else is YAML. With ``expect`` any other
    document is refused. ``name`` is what errors call the source when it is no file.

    Raises :class:`DocumentError`, and nothing else, with up to 20 problems.
    """
    if isinstance(source, Path):
        name, form = str(source), form or _SUFFIXES.get(source.suffix.lower())
        source = _file_content(source)
    text = _text(source, name)
    form = form or _sniffed(text)
    if form is Form.JSON and (document := _flawless(text)) and expect in (None, type(document)):
        return document
    reading, model = _read(text, form, name)
    if expect is not None and model is not expect:
        mark = reading.mark(())
        refuse(name, mark.line, mark.column, mark.element, f"the document is {model.tag!r}", repr(expect.tag))
    return _validated(reading, model, name)


def load_canonical(source: bytes, expect: type[D], *, name: str = "<input>", compared: bool = True) -> D:
    """The document of which these are the :func:`canonical` bytes.

    That they are is compared in the end, so they are read in the fastest way there is, which a key that is there twice,
    or a number in place of a text, would get past. The comparison is half of the work: without it (``compared``) the
    document is as it says, and nothing may rest on its digest yet. :class:`DocumentError` says what is wrong.
    """
    try:
        data = from_json(source, allow_inf_nan=False, cache_strings="keys")
        if isinstance(data, dict) and data.pop("document", None) == expect.tag:
            document = expect.model_validate(data)
            if not compared or canonical(document) == source:
                return document
    except (ValueError, RecursionError):  # ValidationError is one
        pass
    load(source, form=Form.JSON, expect=expect, name=name)  # says what and where, if anything else is wrong
    raise DocumentError([Problem(name, 1, 1, "", "the document is not in its canonical form", "its canonical form")])


def _file_content(path: Path) -> bytes:
    """The bytes of a regular file, or one byte more than allowed; never waits on a FIFO or a device."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            if not stat.S_ISREG(os.fstat(descriptor).st_mode):
                raise OSError("not a regular file")
            with os.fdopen(descriptor, "rb", closefd=False) as file:
                return file.read(MAX_BYTES + 1)
        finally:
            os.close(descriptor)
    except (OSError, ValueError) as error:  # ValueError: a NUL in the path
        refuse(str(path), 0, 0, "", f"cannot be read: {getattr(error, 'strerror', None) or error}", "a readable file")


def _text(source: bytes | str, name: str) -> str:
    """The source as text that is small enough, UTF-8 and free of NUL."""
    raw = source.encode(errors="surrogatepass") if isinstance(source, str) else source
    if len(raw) > MAX_BYTES:
        refuse(name, 1, 1, "", f"larger than {MAX_BYTES} bytes", "a smaller document")
    try:
        text = raw.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        before = raw[: error.start].decode(errors="replace")
        refuse(name, *Lines(before).place(len(before)), "", "the text is not UTF-8", "UTF-8")
    if "\0" in text:
        refuse(name, *Lines(text).place(text.index("\0")), "", "a NUL character (is it UTF-16?)", "UTF-8 text")
    if not text.strip():
        refuse(name, 1, 1, "", "the document is empty", "XML, YAML or JSON")
    return text


def _sniffed(text: str) -> Form:
    return {"<": Form.XML, "{": Form.JSON}.get(text.lstrip()[0], Form.YAML)


def _flawless(text: str) -> Document | None:
    """The document in small JSON text that has no flaw: what agents send each other, read five times as fast as by the
    reading that knows where everything stood. None when there is a flaw: that reading then tells which."""
    data = plain_json(text)
    model = DOCUMENTS.get(str(data.pop("document", None))) if data else None
    try:
        return model.model_validate(data) if model else None
    except ValidationError:
        return None


def _read(text: str, form: Form, name: str) -> tuple[Reading, type[Document]]:
    """The plain data, and the model that its tag names."""
    if form is Form.XML:
        reading = read_xml(text, name, DOCUMENTS)
        return reading, DOCUMENTS[reading.tag]
    plain = read_yaml(text, name) if form is Form.YAML else read_json(text, name)
    mark = plain.mark(("document",))
    if "document" not in plain.data:
        refuse(name, mark.line, mark.column, mark.element, "the key 'document' is missing", _known())
    tag = plain.data.pop("document")
    if not isinstance(tag, str) or tag not in DOCUMENTS:
        refuse(name, mark.line, mark.column, mark.element, unknown("document", str(tag), DOCUMENTS)[0], _known())
    return plain, DOCUMENTS[tag]


def _known() -> str:
    return f"document: one of {', '.join(sorted(DOCUMENTS))}"


def _validated(reading: Reading, model: type[Document], name: str) -> Document:
    """The model, when nothing at all is wrong."""
    problems = list(reading.problems)
    document = None
    try:
        document = model.model_validate(reading.data)
    except ValidationError as error:
        problems += [_problem(details, reading, model, name) for details in _telling(error, reading)]
    if not problems and isinstance(reading, XmlReading):
        problems = reading.against_schema()
    if problems or document is None:
        raise DocumentError(sorted(problems, key=lambda p: (p.line, p.column))[:MAX_PROBLEMS])
    return document


def _telling(error: ValidationError, reading: Reading) -> list[ErrorDetails]:
    """The first of its errors, without complaints that a list is too short because the entries it has are wrong."""
    errors = error.errors(include_url=False)
    within = {details["loc"][:end] for details in errors for end in range(len(details["loc"]))}
    telling = [details for details in errors if details["type"] != "too_short" or details["loc"] not in within]
    return sorted(telling, key=lambda details: reading.mark(details["loc"]).place)[:MAX_PROBLEMS]


def _problem(error: ErrorDetails, reading: Reading, model: type[Document], name: str) -> Problem:
    """One of pydantic's errors, with its place in the source."""
    path = error["loc"]
    mark, parent = reading.mark(path), reading.mark(path[:-1])
    if error["type"] not in ("missing", "extra_forbidden"):
        return Problem(name, mark.line, mark.column, mark.element, *explain(error, mark.subject))
    owner = model_at(model, path[:-1])
    known = {slot.field: slot for slot in slots(owner)} if owner else {}
    field = str(path[-1])
    if error["type"] == "extra_forbidden":
        return Problem(name, mark.line, mark.column, parent.element, *unknown("key", field, known))
    assert owner is not None  # noqa: S101 - only a model can miss a field
    label = known[field].label if isinstance(reading, XmlReading) else f"key {field!r}"
    return Problem(name, parent.line, parent.column, parent.element, f"{label} is missing", wanted(owner, field))


def dump(document: Document, form: Form) -> str:
    """Print the document; :func:`load` gives an equal one back."""
    if form is Form.XML:
        return str(document.to_xml(skip_empty=True, exclude_none=True, encoding="unicode", pretty_print=True))
    if form is Form.JSON:
        return json.dumps(plain(document), ensure_ascii=False, indent=2) + "\n"
    return str(yaml.safe_dump(plain(document), allow_unicode=True, sort_keys=False, width=120))
