"""The XSDs of the documents, and validation against them. They are package files: nothing is fetched."""

from __future__ import annotations

import re
import threading
from functools import cache
from importlib import resources

from lxml import etree

from descriptors.problems import found, listed

_LOCK = threading.Lock()
"""An ``XMLSchema`` keeps the log of its last validation, so one thread at a time."""


@cache
def schema(tag: str) -> etree.XMLSchema:
    """The schema of the document with this tag."""
    with resources.as_file(resources.files(__name__)) as folder:
        return etree.XMLSchema(etree.parse(folder / f"{tag}.xsd", etree.XMLParser(no_network=True)))


def complaints(tag: str, root: etree._Element) -> list[tuple[str | None, str, str]]:
    """What the schema has against the tree: XPath of the element, message and what was expected, in plain words."""
    with _LOCK:
        if schema(tag).validate(root):
            return []
        entries = [(entry.path, entry.message) for entry in schema(tag).error_log]
    return [(path, *words) for path, message in entries if (words := _in_words(message))]


_NAMESPACED = re.compile(r"\{[^}]*\}")
_VALUE = re.compile(
    r"Element '[^']+'(?:, attribute '([^']+)')?: '(.*)' is not a valid value of the (?:local )?atomic type '([^']+)'",
    re.DOTALL,
)


def _in_words(message: str) -> tuple[str, str] | None:
    """libxml2's sentence in ours; None for the second half of a pair that says the same."""
    plain = _NAMESPACED.sub("", message)
    if match := re.match(r"Element '([^']+)': This element is not expected\.(?: Expected is (.*)\.)?", plain):
        choices = re.findall(r"[\w-]+", (match[2] or "").replace("one of", ""))
        expected = listed(f"<{c}>" for c in choices) if choices else "it further up: the order of elements is fixed"
        return f"<{match[1]}> is out of place", expected
    if match := _VALUE.match(plain):
        expected = f"the form that the schema gives for {match[3]}"
        return f"{match[1] or 'the text'} is not valid (found {found(match[2])})", expected
    if "[facet" in plain:
        return None
    return plain.rstrip("."), ""
