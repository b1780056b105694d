"""The serialization service: how a module turns our documents into text and back, without knowing the forms."""

from __future__ import annotations

from typing import Protocol, TypeVar

from descriptors import documents
from descriptors.base import Document

D = TypeVar("D", bound=Document)


class Serialization(Protocol):
    """Documents to text and back."""

    def dump(self, document: Document) -> str:
        """The document as text."""

    def load(self, text: str, expect: type[D]) -> D:
        """The document of that type; :class:`descriptors.documents.DocumentError` if the text is not one."""


class JsonSerialization:
    """Documents as JSON, through the one door."""

    def dump(self, document: Document) -> str:
        """See :class:`Serialization`."""
        return documents.dump(document, documents.Form.JSON)

    def load(self, text: str, expect: type[D]) -> D:
        """See :class:`Serialization`."""
        return documents.load(text, form=documents.Form.JSON, expect=expect)
