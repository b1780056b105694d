"""A vendor as a file describes it: which module, its settings and credentials, and what the conformance suite must know
of the account."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict

from vendor_modules import registry
from vendor_modules.conformance import Subject
from vendor_modules.module import VendorModule
from vendor_modules.services.credentials import Credentials


class BadVendorFile(Exception):
    """A vendor file cannot be read: the message says where and why, and shows no secret."""


class VendorFile(BaseModel):
    """A vendor, in YAML or JSON: for ``agency vendor add``, ``agency vendor check`` and module authors' tests."""

    model_config = ConfigDict(extra="forbid")

    module: str
    """The module's name; or ``FILE.py:Class``, a file beside this one, while it is being written."""
    settings: dict[str, Any] = {}
    credentials: Credentials
    negotiation: dict[str, Any] = {}
    """How the agency negotiates in this vendor's name, see docs/negotiation.md; nothing said: it does not."""
    image: str = "base"
    """The image that the check's machines start from; where machines have endpoints, it must have Python."""
    size: str | None = None
    """The machine size that the check uses; by default the cheapest."""

    _read_from: Path = Path()

    @classmethod
    def read(cls, file: Path) -> VendorFile:
        """The vendor in the file; :class:`BadVendorFile` if it is no YAML or JSON, pydantic's ``ValidationError`` if it
        says something that makes no sense."""
        try:
            content = yaml.safe_load(file.read_text())
        except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
            where = str(getattr(error, "problem_mark", "") or getattr(error, "strerror", "") or "not text").strip()
            raise BadVendorFile(f"{file} cannot be read: {where}") from None
        read = cls.model_validate(content)
        read._read_from = file.parent
        return read

    @property
    def folder(self) -> Path | None:
        """Where the module's file is looked for; None for a module that is installed."""
        return self._read_from if ".py:" in self.module else None

    def kind(self) -> type[VendorModule]:
        """The module's class; :mod:`~vendor_modules.registry`'s errors say why there is none."""
        if self.folder is None:
            return registry.load(self.module)
        file, _, class_name = self.module.rpartition(":")
        return registry.load_file(self.folder / file, class_name)

    def subject(self, vendor: str) -> Subject:
        """What the conformance suite examines, under the vendor's name."""
        kind = self.kind()
        settings = kind.Settings.model_validate(self.settings)
        return Subject(kind, settings, self.credentials, vendor=vendor, image=self.image, size=self.size)
