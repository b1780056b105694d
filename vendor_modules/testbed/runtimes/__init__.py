"""The ways to run machines on a desktop; each fulfils :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""

from __future__ import annotations

from pathlib import Path

from vendor_modules.testbed.runtimes.base import Runtime
from vendor_modules.testbed.runtimes.embedded import Embedded
from vendor_modules.testbed.runtimes.qemu import Qemu
from vendor_modules.testbed.runtimes.qemu_system import MissingPackages


class NoRuntime(Exception):
    """The runtime cannot be used here; the message says why."""


async def load(name: str, folder: Path) -> Runtime:
    """The runtime of that name, ready to use; what it keeps for all machines is in ``folder``. Raises
    :class:`NoRuntime` if it cannot be used on this computer."""
    if name == Embedded.name:
        return await Embedded.probe()
    if name in ("qemu", "qemu-kvm"):
        try:
            return await Qemu.probe(folder, "kvm" if name == "qemu-kvm" else "tcg")
        except MissingPackages as error:
            raise NoRuntime(str(error)) from error
    raise NoRuntime(f"this testbed has no runtime {name!r}")
