"""Which modules there are: found by entry point, so that third parties ship theirs outside this repository."""

from __future__ import annotations

import sys
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path

from vendor_modules.module import VendorModule

GROUP = "cloud_agency.vendor_modules"


class UnknownModule(LookupError):
    """There is no module of that name."""


class BrokenModule(Exception):
    """A module is registered, and cannot be used."""


def names() -> list[str]:
    """The names of all modules installed, sorted."""
    return sorted({point.name for point in entry_points(group=GROUP)})


def load(name: str) -> type[VendorModule]:
    """The module of that name; :class:`UnknownModule` or :class:`BrokenModule` say what to do."""
    points: list[EntryPoint] = [point for point in entry_points(group=GROUP) if point.name == name]
    if not points:
        raise UnknownModule(f"no vendor module {name!r} is installed; there are: {', '.join(names()) or 'none'}")
    try:
        module = points[0].load()
    except (Exception, SystemExit) as error:
        raise BrokenModule(f"vendor module {name!r} ({points[0].value}) cannot be imported: {error}") from error
    return _checked(module, f"vendor module {name!r} ({points[0].value})")


def load_file(file: Path, class_name: str) -> type[VendorModule]:
    """The class of that name in a Python file: a module that is being written, and not installed yet."""
    name = f"_vendor_module_{file.stem}"  # not the file's own: that may be a library's
    spec = spec_from_file_location(name, file)
    if not file.is_file() or spec is None or spec.loader is None:
        raise UnknownModule(f"there is no Python file {file}")
    loaded = module_from_spec(spec)
    sys.modules[name] = loaded  # where dataclasses and pydantic look for the annotations' names
    try:
        spec.loader.exec_module(loaded)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        raise BrokenModule(f"{file} cannot be imported: {error}") from error
    return _checked(getattr(loaded, class_name, None), f"{class_name} in {file}")


def _checked(module: object, what: str) -> type[VendorModule]:
    if not (isinstance(module, type) and issubclass(module, VendorModule)):
        raise BrokenModule(f"{what} is not a VendorModule class")
    return module
