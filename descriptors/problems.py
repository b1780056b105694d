"""What is wrong with a document, in words that help: where it is, what was found and what was expected."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import NoReturn

from pydantic import BaseModel
from pydantic_core import ErrorDetails

MAX_PROBLEMS = 20
"""As many as anyone reads at a time; more are not even put into words."""


@dataclass(frozen=True)
class Problem:
    """One thing that is wrong, and where."""

    file: str
    line: int
    """From 1; 0 when the problem is the file itself, such as a missing one."""
    column: int
    element: str
    """The XML element (``<resource>``), or the path in YAML and JSON (``resources[0]``)."""
    message: str
    expected: str = ""

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}:{self.column}" if self.line else self.file
        words = ": ".join(part for part in (place, self.element, self.message) if part)
        return f"{words}; expected {self.expected}" if self.expected else words


class DocumentError(ValueError):
    """A document was refused. ``problems`` says why; ``str()`` has one line for each."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(problems)
        super().__init__(self.problems)

    def __str__(self) -> str:
        return "\n".join(map(str, self.problems))


def refuse(file: str, line: int, column: int, element: str, message: str, expected: str = "") -> NoReturn:
    """Raise a :class:`DocumentError` with this one problem."""
    raise DocumentError([Problem(file, line, column, element, message, expected)])


def unknown(what: str, name: str, choices: Iterable[str]) -> tuple[str, str]:
    """Message and expectation for a name that is none of ``choices``, with the nearest one as a suggestion."""
    known = sorted(choices)
    near = difflib.get_close_matches(name.lower(), known, n=1)
    hint = f": did you mean {near[0]!r}?" if near else ""
    return f"unknown {what} {found(name)}{hint}", listed(known) if known else f"no {what}"


def listed(choices: Iterable[str]) -> str:
    """``one of a, b, c``, or the only choice."""
    known = list(choices)
    return known[0] if len(known) == 1 else f"one of {', '.join(known)}"


def found(value: object) -> str:
    """The value as it was found, cut to a readable length."""
    if isinstance(value, (dict, list, tuple)):
        return "a mapping" if isinstance(value, dict) else "a list"
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}…{text[0]}"


PATTERNS = {
    r"^[a-z0-9]([a-z0-9-]{0,38}[a-z0-9])?$": "lower-case letters, digits and inner hyphens, at most 40 characters",
    r"^[A-Za-z0-9._:/@-]{1,255}$": "1 to 255 letters, digits and . _ : / @ -",
    r"^[A-Za-z0-9][A-Za-z0-9-]{0,62}$": "letters, digits and hyphens, not a hyphen first, at most 63 characters",
    r"^[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+$": "a JWS: three parts in base64url, with dots between",
    r"^[A-Z]{3}$": "three capital letters (ISO 4217), such as EUR",
    r"^blake3:[0-9a-f]{64}$": "'blake3:' and 64 hexadecimal digits in lower case",
    r"^/[!-~]{0,1023}$": "a path that starts with '/', of at most 1024 visible ASCII characters",
    r"^[^\x00-\x08\x0b-\x1f\x7f\ufffe\uffff]*$": "text without control characters",
}
"""The models' patterns in words."""

_BOUNDS = {"greater_than": "gt", "greater_than_equal": "ge", "less_than": "lt", "less_than_equal": "le"}
_COMPARED = {"gt": "greater than", "ge": "at least", "lt": "less than", "le": "at most"}
_KINDS = {
    "int": "a whole number",
    "float": "a number",
    "decimal": "a decimal number",
    "finite": "a finite number",
    "bool": "true or false",
    "datetime": "a date and time with its offset, such as 2026-11-22T12:00:00Z",
    "timezone": "a date and time with its offset, such as 2026-11-22T12:00:00Z",
    "string": "text",
    "tuple": "a list",
    "model": "a mapping",
}
"""What a field holds, by the first word of pydantic's error type."""
_JSON_KINDS = {
    "array": "at least one entry",
    "integer": "a whole number",
    "number": "a number",
    "object": "its content",
    "string": "text",
}
"""What a field holds, by its type in JSON Schema."""


def explain(error: ErrorDetails, subject: str) -> tuple[str, str]:
    """Turn one of pydantic's errors about ``subject`` into a message and what was expected (may be empty)."""
    kind, ctx, value = error["type"], error.get("ctx", {}), error["input"]
    if kind == "value_error":
        return str(ctx["error"]), ""
    if kind == "misfit":
        return error["msg"], ""
    if kind in _BOUNDS:
        bound = _BOUNDS[kind]
        return f"{subject} must be {_COMPARED[bound]} {ctx[bound]} (found {found(value)})", ""
    if kind in ("literal_error", "enum"):
        return _not_a_choice(subject, value, ctx["expected"])
    if kind == "string_pattern_mismatch":
        return f"{subject} is not valid (found {found(value)})", PATTERNS.get(ctx["pattern"], ctx["pattern"])
    if kind in ("string_too_short", "string_too_long", "too_short", "too_long"):
        return _wrong_length(subject, kind, ctx)
    if expected := _KINDS.get(kind.partition("_")[0]):
        return f"{subject} is not valid (found {found(value)})", _digits(kind, ctx) or expected
    return f"{subject}: {error['msg']}", ""


@cache
def wanted(model: type[BaseModel], field: str) -> str:
    """What the model wants in the field, in words."""
    schema = model.model_json_schema()
    spec = schema["properties"][field]
    spec = schema["$defs"][spec["$ref"].rpartition("/")[2]] if "$ref" in spec else spec
    if choices := spec.get("enum"):
        return listed(choices)
    if spec.get("format") == "date-time":
        return _KINDS["datetime"]
    return PATTERNS.get(spec.get("pattern", "")) or _JSON_KINDS.get(spec.get("type", ""), "a value")


def _not_a_choice(subject: str, value: object, expected: str) -> tuple[str, str]:
    choices = re.findall(r"'([^']*)'", expected)
    near = difflib.get_close_matches(str(value).lower(), [c.lower() for c in choices], n=1)
    hint = next((f": did you mean {c!r}?" for c in choices if c.lower() in near), "")
    return f"{subject} {found(value)} is not known{hint}", listed(choices)


def _wrong_length(subject: str, kind: str, ctx: dict[str, object]) -> tuple[str, str]:
    bound = f"at least {ctx['min_length']}" if kind.endswith("short") else f"at most {ctx['max_length']}"
    unit = "character(s)" if kind.startswith("string") else "entry or entries"
    return f"{subject} must have {bound} {unit}", ""


def _digits(kind: str, ctx: dict[str, object]) -> str:
    """What a decimal's digits may be, when there are too many of them."""
    return {
        "decimal_max_digits": f"at most {ctx.get('max_digits')} digits",
        "decimal_max_places": f"at most {ctx.get('decimal_places')} decimal places",
        "decimal_whole_digits": f"at most {ctx.get('whole_digits')} digits before the point",
    }.get(kind, "")
