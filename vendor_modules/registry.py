"""Which modules there are: found by entry point, so that third parties ship theirs outside this repository."""

from __future__ import annotations

from importlib.metadata import EntryPoint, entry_points

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
    except Exception as error:
        raise BrokenModule(f"vendor module {name!r} ({points[0].value}) cannot be imported: {error}") from error
    if not (isinstance(module, type) and issubclass(module, VendorModule)):
        raise BrokenModule(f"vendor module {name!r} ({points[0].value}) is not a VendorModule class")
    return module
