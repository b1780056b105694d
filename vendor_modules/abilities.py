"""What a module can do, as data per operation: natively, on creation only, emulated, or not at all, and on what terms.

An operation is a public method of the core or of a capability. One that a module implements is native unless its class
says otherwise in :attr:`~vendor_modules.module.VendorModule.abilities`; one of a capability that it does not inherit is
unsupported. The matrix, the documentation and the conformance suite read :func:`abilities`, and the suite fails a
module that does not behave as it declares.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum

from vendor_modules.resources import DiskFormat


class Support(StrEnum):
    """How an operation is done."""

    NATIVE = "native"
    """One call of the provider's."""
    ON_CREATION = "on creation only"
    """Only together with creating the resource that it concerns."""
    EMULATED = "emulated"
    """The module brings it about with several other calls; what that costs is in the ability's note."""
    UNSUPPORTED = "unsupported"


class Requirement(StrEnum):
    """What must hold before an operation; :class:`~vendor_modules.errors.Conflict` where it does not."""

    STOPPED = "the machine is stopped"
    RUNNING = "the machine runs"
    DETACHED = "the volume is detached"
    UNUSED = "nothing uses it"
    SAME_ZONE = "both are in the same zone"


@dataclass(frozen=True)
class Ability:
    """One operation of one module. ``formats`` are the disk formats that it takes in or gives out (uploads and
    downloads); ``largest_mib`` is a limit in MiB; ``note`` says in a sentence what a user should know."""

    support: Support = Support.NATIVE
    requires: tuple[Requirement, ...] = ()
    formats: tuple[DiskFormat, ...] = ()
    largest_mib: int | None = None
    note: str = ""


UNSUPPORTED = Ability(Support.UNSUPPORTED)
