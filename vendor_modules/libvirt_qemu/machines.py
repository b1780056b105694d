"""What is done with domains, over a ``virConnect``. Every function here blocks."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.libvirt_qemu import domains
from vendor_modules.libvirt_qemu.connection import sdk
from vendor_modules.libvirt_qemu.domains import Disk, Domain, Notes
from vendor_modules.libvirt_qemu.errors import translate
from vendor_modules.libvirt_qemu.storage import Storage
from vendor_modules.resources import Attachment, DiskFormat

ENDINGS = ("img", "iso", "log")
"""Of a machine's files: its disk, its seed, its console."""
OPERATION_INVALID = 55


@contextmanager
def translated() -> Iterator[None]:
    """libvirt's errors as ours."""
    try:
        yield
    except sdk().libvirtError as error:
        raise translate(error) from error


def lookup(libvirt: Any, machine_id: str) -> Any:
    """The ``virDomain`` of that id; :class:`~vendor_modules.errors.NotFound` if there is none."""
    if not domains.is_id(machine_id):
        raise NotFound(f"there is no machine {machine_id}")
    with translated():
        return libvirt.lookupByUUIDString(machine_id)


def all_of(libvirt: Any) -> list[Domain]:
    """All machines, also those of others."""
    found = []
    for handle in libvirt.listAllDomains():
        with suppress(NotFound), translated():  # one may go meanwhile
            found.append(domains.read(handle.XMLDesc()))
    return found


def attached(libvirt: Any) -> dict[str, tuple[str, str]]:
    """Where each volume that is attached is: its file, to the machine's id and the disk that it is there."""
    return {disk.file: (domain.id, disk.target) for domain in all_of(libvirt) for disk in domain.volumes()}


def free_disk(storage: Storage, held: list[Domain], attachment: Attachment) -> Disk:
    """The disk that an attachment makes of a volume, which must be there and free."""
    disk = Disk(f"{attachment.volume}.img", domains.target_of(attachment.device))
    if not attachment.volume.startswith("volume-") or not storage.record(attachment.volume).complete:
        raise NotFound(f"there is no volume {attachment.volume}")
    for domain in held:
        if any(other.file == disk.file for other in domain.disks):
            raise Conflict(f"volume {attachment.volume} is attached to machine {domain.id}")
    return disk


def distinct(disks: tuple[Disk, ...]) -> tuple[Disk, ...]:
    """The disks; :class:`~vendor_modules.errors.InvalidRequest` if two are the same device, or the same volume."""
    if len({disk.target for disk in disks}) < len(disks) or len({disk.file for disk in disks}) < len(disks):
        raise InvalidRequest("each volume needs a device of its own")
    return disks


def is_free(host: str, port: int) -> bool:
    """Whether nothing listens there, as far as this computer can tell: the address may be another's."""
    try:
        with socket.create_server((host, port)):
            return True
    except PermissionError:
        return False
    except OSError as error:
        return error.errno != 98  # EADDRINUSE


def note(handle: Any, notes: Notes) -> None:
    """Write the notes of a machine that is there."""
    library = sdk()
    where = library.VIR_DOMAIN_AFFECT_CONFIG | (library.VIR_DOMAIN_AFFECT_LIVE if handle.isActive() else 0)
    kind = library.VIR_DOMAIN_METADATA_ELEMENT
    handle.setMetadata(kind, domains.notes_xml(notes), "agency", domains.METADATA, where)


def reach(handle: Any) -> int:
    """The flags of a change that is to last, and to be seen now."""
    library = sdk()
    now = library.VIR_DOMAIN_AFFECT_LIVE if handle.isActive() else 0
    return int(library.VIR_DOMAIN_AFFECT_CONFIG | now)


def has_looked_at(libvirt: Any, machine_id: str, target: str) -> bool:
    """Whether a guest has read of a disk; one that does not run need not."""
    handle = lookup(libvirt, machine_id)
    return bool(handle.state()[0] != domains.RUNNING or handle.blockStats(target)[0] > 0)


def ask_to_end(handle: Any) -> bool:
    """Press the guest's power button, waking it if it is suspended; whether it is off already."""
    state = handle.state()[0]
    if state == domains.SHUT_OFF:
        return True
    with _unless_it_has_ended():
        if state == domains.PAUSED:
            handle.resume()
        if state == domains.PM_SUSPENDED:
            handle.pMWakeup()
        handle.shutdown()
    return not handle.isActive()


def cut_off(handle: Any) -> None:
    """End the guest at once; ended already is fine."""
    if handle.isActive():
        with _unless_it_has_ended():
            handle.destroy()


@contextmanager
def _unless_it_has_ended() -> Iterator[None]:
    try:
        yield
    except sdk().libvirtError as error:
        if error.get_error_code() != OPERATION_INVALID:
            raise


def erase(storage: Storage, handle: Any) -> None:
    """Remove a machine with its disk, seed and console. Its files go first: it is listed as long as one is there."""
    library = sdk()
    machine_id = handle.UUIDString()
    cut_off(handle)
    for ending in ENDINGS:
        storage.remove(f"machine-{machine_id}.{ending}")
    flags = (
        library.VIR_DOMAIN_UNDEFINE_MANAGED_SAVE
        | library.VIR_DOMAIN_UNDEFINE_SNAPSHOTS_METADATA
        | library.VIR_DOMAIN_UNDEFINE_CHECKPOINTS_METADATA
        | library.VIR_DOMAIN_UNDEFINE_NVRAM
    )
    with translated():
        handle.undefineFlags(flags)


def own_disk(handle: Any) -> Disk:
    """A machine's own disk."""
    disks = domains.read(handle.XMLDesc()).disks
    for disk in disks:
        if disk.file == f"machine-{handle.UUIDString()}.img":
            return disk
    raise Conflict("it was not made here, and its disk is not known")


def copy_of_machine(libvirt: Any, storage: Storage, machine_id: str, file: str) -> int:
    """Copy a stopped machine's own disk; returns the copy's bytes."""
    handle = lookup(libvirt, machine_id)
    disk = own_disk(handle)
    if handle.state()[0] != domains.SHUT_OFF:
        raise Conflict("the machine is not stopped")
    storage.make(file, 0, DiskFormat(disk.format), copy_of=disk.file)
    return storage.size(file)


def copy_at_rest(libvirt: Any, storage: Storage, volume_id: str, file: str) -> int:
    """Copy a volume that no running machine has; returns the copy's bytes."""
    if not volume_id.startswith("volume-"):
        raise NotFound(f"there is no volume {volume_id}")
    record = storage.record(volume_id)
    where = attached(libvirt).get(f"{volume_id}.img")
    if where and lookup(libvirt, where[0]).state()[0] != domains.SHUT_OFF:
        raise Conflict(f"the volume is attached to machine {where[0]}, which is not stopped")
    storage.make(file, record.size, copy_of=f"{volume_id}.img")
    return record.size
