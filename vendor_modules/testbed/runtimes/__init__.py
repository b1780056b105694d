"""The ways to run machines on a desktop; each fulfils :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""

from __future__ import annotations

from vendor_modules.testbed.runtimes.base import Runtime
from vendor_modules.testbed.runtimes.embedded import Embedded


class NoRuntime(Exception):
    """The runtime cannot be used here; the message says why."""


async def load(name: str) -> Runtime:
    """The runtime of that name, ready to use; :class:`NoRuntime` if it cannot be used on this computer."""
    if name == Embedded.name:
        return await Embedded.probe()
    raise NoRuntime(f"this testbed has no runtime {name!r}")
