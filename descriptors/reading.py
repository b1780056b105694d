"""Reading YAML and JSON into plain data that knows where every value stood.

All three forms become a :class:`Reading`: the data that the models validate, and the place of each path in it, so that
an error about ``resources[0].cores`` can name its line. Scalars stay text, as they are in XML: the model decides what
is a number, so a price is never squeezed through a binary float and ``no`` is a word.
"""

from __future__ import annotations

import bisect
import json
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import regex
import yaml
import yaml.reader

from descriptors.problems import Problem, refuse

try:
    from yaml import CSafeLoader as _Loader  # libyaml: about ten times faster
except ImportError:
    from yaml import SafeLoader as _Loader  # type: ignore[assignment]  # the same events, in Python

MAX_DEPTH = 100
MAX_ENTRIES = 10_000
"""Entries in one list, mapping or element: it keeps every later step, among them the schema's, far from quadratic."""

Path = tuple[str | int, ...]
"""The way to a value: field names and list positions, as pydantic reports it."""


@dataclass(frozen=True)
class Mark:
    """Where a value stood and what to call it."""

    line: int
    column: int
    element: str
    subject: str = "the value"

    @property
    def place(self) -> tuple[int, int]:
        """Line and column."""
        return self.line, self.column


@dataclass
class Reading:
    """A document as plain data, with the place of every path and what is already known to be wrong."""

    data: dict[str, Any] = field(default_factory=dict)
    marks: dict[Path, Mark] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def mark(self, path: Path) -> Mark:
        """The place of ``path``, or of the nearest thing around it."""
        while path and path not in self.marks:
            path = path[:-1]
        return self.marks[path]


def read_yaml(text: str, file: str) -> Reading:
    """Read one YAML document without anchors, aliases or tags; :class:`DocumentError` otherwise."""
    builder = _Builder(file)
    try:
        for event in yaml.parse(text, Loader=_Loader):
            _take_event(builder, event)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line, column = (mark.line + 1, mark.column + 1) if mark else (1, 1)
        refuse(file, line, column, builder.here, f"not YAML: {error.problem or error.context}")
    except yaml.reader.ReaderError as error:
        line, column = Lines(text).place(error.position)
        refuse(file, line, column, builder.here, f"not YAML: {error.reason}")
    return builder.finish()


def _take_event(builder: _Builder, event: yaml.Event) -> None:
    start = event.start_mark
    line, column = (start.line + 1, start.column + 1) if start else (1, 1)
    if getattr(event, "anchor", None):  # on an alias too
        builder.refuse(line, column, "anchors and aliases ('&', '*') are not allowed", "the value itself")
    if tag := getattr(event, "tag", None):
        builder.refuse(line, column, f"tags ({tag}) are not allowed", "a plain value")
    if isinstance(event, yaml.DocumentStartEvent) and builder.done:
        builder.refuse(line, column, "a second YAML document", "one document")
    if isinstance(event, yaml.ScalarEvent):
        builder.scalar(event.value, line, column, null=not event.style and event.value in ("", "~", "null"))
    elif isinstance(event, yaml.MappingStartEvent):
        builder.open({}, line, column)
    elif isinstance(event, yaml.SequenceStartEvent):
        builder.open([], line, column)
    elif isinstance(event, yaml.CollectionEndEvent):
        builder.close()


_LEXEME = regex.compile(r'"(?:[^"\\]++|\\.)*+"?|[\[\]{}]|[^\s\[\]{},:"]++', regex.DOTALL)
"""JSON's tokens, without the commas and colons that well-formed text needs no second look at. Possessive: linear;
and so not by ``re``, whose possessive quantifiers are broken before Python 3.11.5."""


def read_json(text: str, file: str) -> Reading:
    """Read JSON; :class:`DocumentError` when it is none, nests too deeply, has a key twice, NaN or Infinity."""
    lines = Lines(text)
    _check_json_depth(text, file, lines)
    try:
        json.loads(text, parse_int=str, parse_float=str)
    except json.JSONDecodeError as error:
        refuse(file, error.lineno, error.colno, "", f"not JSON: {error.msg}")
    builder = _Builder(file)
    for lexeme, offset in _json_lexemes(text):
        _take_lexeme(builder, lexeme, *lines.place(offset))
    return builder.finish()


SMALL = 16 * 1024
"""Characters of JSON that cannot hold more than :data:`MAX_ENTRIES` entries in one list, whatever they say."""


def plain_json(text: str) -> dict[str, Any] | None:
    """The data of small JSON text without a flaw, its scalars text as in :func:`read_json`; None for anything else."""
    if len(text) > SMALL:
        return None
    try:
        data = json.loads(
            text, parse_int=str, parse_float=str, parse_constant=_no_constant, object_pairs_hook=_without_twins
        )
    except (ValueError, RecursionError):
        return None
    return data if isinstance(data, dict) else None


def _no_constant(name: str) -> Any:
    raise ValueError(f"{name} is not allowed")


def _without_twins(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    mapping = dict(pairs)
    if len(mapping) < len(pairs):
        raise ValueError("a key is there twice")
    return mapping


def _check_json_depth(text: str, file: str, lines: Lines) -> None:
    """Before the recursive parser sees it."""
    depth = 0
    for lexeme, offset in _json_lexemes(text):
        depth += (lexeme in "[{") - (lexeme in "]}")
        if depth > MAX_DEPTH:
            refuse(file, *lines.place(offset), "", f"more than {MAX_DEPTH} levels", "a flatter document")


def _json_lexemes(text: str) -> Iterator[tuple[str, int]]:
    return ((match[0], match.start()) for match in _LEXEME.finditer(text))


def _take_lexeme(builder: _Builder, lexeme: str, line: int, column: int) -> None:
    if lexeme in "[{":
        builder.open({} if lexeme == "{" else [], line, column)
    elif lexeme in "]}":
        builder.close()
    elif lexeme in ("NaN", "Infinity", "-Infinity"):
        builder.refuse(line, column, f"{lexeme} is not allowed", "a finite number")
    elif lexeme in ("true", "false"):
        builder.scalar(lexeme, line, column)
    else:
        value = json.loads(lexeme, parse_int=str, parse_float=str)
        builder.scalar(value or "", line, column, null=value is None)


@dataclass
class _Frame:
    """A mapping or list that is still open."""

    value: dict[str, Any] | list[Any]
    path: Path
    key: str | None = None


class _Builder:
    """Builds a :class:`Reading` from a stream of scalars and brackets, without recursion."""

    def __init__(self, file: str) -> None:
        self.reading = Reading()
        self.done = False
        self._file = file
        self._root: Any = None
        self._open: list[_Frame] = []

    @property
    def here(self) -> str:
        """The path of what is open now, in words."""
        return _in_words(self._open[-1].path) if self._open else ""

    def refuse(self, line: int, column: int, message: str, expected: str = "") -> None:
        """Raise :class:`DocumentError` about the present place."""
        refuse(self._file, line, column, self.here, message, expected)

    def scalar(self, value: str, line: int, column: int, *, null: bool = False) -> None:
        """A key, where a mapping waits for one, or else a value."""
        frame = self._open[-1] if self._open else None
        if frame and isinstance(frame.value, dict) and frame.key is None:
            self._key(frame, value, line, column)
        else:
            self._add(None if null else value, line, column)

    def open(self, value: dict[str, Any] | list[Any], line: int, column: int) -> None:
        """Begin a mapping or list."""
        if len(self._open) == MAX_DEPTH:
            self.refuse(line, column, f"more than {MAX_DEPTH} levels", "a flatter document")
        frame = self._open[-1] if self._open else None
        if frame and isinstance(frame.value, dict) and frame.key is None:
            self.refuse(line, column, "a mapping or list as a key", "a plain word")
        path = self._add(value, line, column)
        self._open.append(_Frame(value, path))
        self.reading.marks[path] = replace(self.reading.marks[path], element=_in_words(path))

    def close(self) -> None:
        """End the innermost mapping or list."""
        self._open.pop()

    def finish(self) -> Reading:
        """The finished reading, whose data is a mapping."""
        if not isinstance(self._root, dict):
            what = "the document is empty" if self._root is None else "the document is no mapping"
            refuse(self._file, 1, 1, "", what, "a mapping with the key 'document'")
        self.reading.data = self._root
        return self.reading

    def _key(self, frame: _Frame, key: str, line: int, column: int) -> None:
        if key in frame.value:
            self.refuse(line, column, f"the key {key!r} is there twice", "each key once")
        frame.key = key
        self._check_size(frame, line, column)
        self.reading.marks[(*frame.path, key)] = Mark(line, column, _in_words(frame.path), key)

    def _add(self, value: Any, line: int, column: int) -> Path:
        """Put ``value`` where it belongs and say where that is."""
        self.done = True
        if not self._open:
            self._root = value
            self.reading.marks[()] = Mark(line, column, _in_words(()))
            return ()
        frame = self._open[-1]
        if isinstance(frame.value, list):
            self._check_size(frame, line, column)
            path: Path = (*frame.path, len(frame.value))
            frame.value.append(value)
            self.reading.marks[path] = Mark(line, column, _in_words(path))
            return path
        assert frame.key is not None  # noqa: S101 - `scalar` and `open` have seen to it
        key, frame.key = frame.key, None
        frame.value[key] = value
        return (*frame.path, key)

    def _check_size(self, frame: _Frame, line: int, column: int) -> None:
        if len(frame.value) == MAX_ENTRIES:
            self.refuse(line, column, f"more than {MAX_ENTRIES} entries", "a smaller document")


def _in_words(path: Path) -> str:
    """``resources[0].cores`` for ``("resources", 0, "cores")``; the root is ``document``."""
    words = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)
    return words.lstrip(".") or "document"


class Lines:
    """Turns offsets in a text into lines and columns, both from 1."""

    def __init__(self, text: str) -> None:
        self._starts = [0, *(match.end() for match in regex.finditer("\n", text))]

    def place(self, offset: int) -> tuple[int, int]:
        """The line and column of the character at ``offset``."""
        line = bisect.bisect_right(self._starts, offset)
        return line, offset - self._starts[line - 1] + 1
