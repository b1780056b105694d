"""The one door: a source or a sink for a path, in a format."""

from __future__ import annotations

import errno
import os
import stat
import struct
from contextlib import ExitStack
from pathlib import Path
from uuid import UUID

from agency.problems import AgencyError, refuse
from agency.transfer.ends import Sink, Source
from agency.transfer.formats import qcow2, qemu
from agency.transfer.formats.disks import Disk, FileDisk, Flat, size_of
from agency.transfer.formats.files import DeviceSink, DiskSource, Hashing, PartSink
from agency.transfer.formats.nbd import NbdDisk
from agency.transfer.formats.parts import Part, check_name, manifest_beside

FORMATS = ("raw", "qcow2", "vmdk", "vdi", "vhdx", "vpc")
"""What content can be in. A source's may be ``auto`` too."""

_SECTOR = 512
_LONGEST_CHAIN = 16
"""Images that may be differences to one another."""
_VHDX_TABLE = 64 << 10
_VHDX_METADATA = UUID("8B7CA206-4790-4B9A-B8FE-575F050F886E").bytes_le
_VHDX_PARAMETERS = UUID("CAA16737-FA36-4D43-B3B6-33F0AA44E76B").bytes_le
_MAGICS: tuple[tuple[int, bytes, str], ...] = (
    (0, qcow2.MAGIC, "qcow2"),
    (0, b"KDMV", "vmdk"),
    (0, b"COWD", "vmdk"),
    (0, b"# Disk DescriptorFile", "vmdk"),
    (0x40, 0xBEDA107F.to_bytes(4, "little"), "vdi"),
    (0, b"vhdxfile", "vhdx"),
    (0, b"conectix", "vpc"),
)


def open_source(path: Path, format_: str) -> Source:
    """Content to read: a file or block device.

    ``auto`` looks at the first bytes, and is for content that nobody could have made to look like another: what is in a
    raw image is up to whoever had the machine, who may well begin it as a qcow2 that names a file of ours. What is
    known to be raw is opened as ``raw``, and its content is not looked at.

    Errors: ``unknown-format``, ``no-such-file``, ``not-readable``, ``not-a-file``, ``in-use``, ``tool-missing``,
    ``image-damaged``, ``image-unsupported``, ``image-unreadable``, ``image-format-wrong``.
    """
    check_format(format_, (*FORMATS, "auto"))
    with ExitStack() as opened:
        file = _open_to_read(path)
        opened.callback(os.close, file)
        if format_ == "auto":
            format_ = detect(file)
        files = [file]
        if format_ == "raw":
            disk: Disk = _flat(file)
        elif format_ == "qcow2":
            disk = _qcow2(file, path, files, opened)
        else:
            _check_whole(file, format_)
            disk = NbdDisk(qemu.node(format_, file, **_NO_BACKING.get(format_, {})), files, path.name)
        opened.callback(disk.close)
        source = DiskSource(disk, files, path.name)
        opened.pop_all()
        return source


def open_sink(
    directory: Path,
    name: str,
    size: int,
    format_: str,
    hashing: Hashing = lambda _done, _all: None,
    base: Source | None = None,
) -> Sink:
    """Where content of ``size`` bytes is to be put: the file ``name`` in the directory, or the block device of that
    name.

    ``base``: content that a file which is not there yet is filled with, to begin from; it is the caller's to close.
    ``hashing`` is told how far it is with what is there from before. Errors: those of :class:`~.parts.Part` and
    ``unknown-format``, ``bad-size``, ``too-small``, ``in-use``, ``tool-missing``, ``image-unusable``, ``no-base``.
    """
    check_format(format_, FORMATS)
    if size < 0 or (format_ != "raw" and (size % _SECTOR or not size)):
        raise refuse(
            "bad-size",
            f"content of {size} bytes cannot be a {format_} image",
            f"transfer it as raw, or make it a multiple of {_SECTOR} bytes",
        )
    check_name(name)
    if _is_device(directory, name):
        if base is not None:
            raise refuse("no-base", f"{name} is a device, and begins from what is in it", "leave the base out")
        return _open_device(directory, name, size, format_, hashing)
    with ExitStack() as opened:
        part = Part(directory, name, format_)
        opened.callback(part.close)
        opened.callback(part.keep, None)
        if not part.is_new and not _fits(part, size, format_):
            part.restart()
        if format_ == "raw":
            part.length = size
        elif part.is_new:
            qemu.create(part.file, format_, size, name)
        disk = _written(part, format_, name)
        opened.callback(disk.close)
        if disk.size != size:
            raise refuse(
                "bad-size", f"a {format_} image of {size} bytes gets {disk.size}", "transfer it as raw or qcow2"
            )
        sink = PartSink(part, disk, directory, hashing, base)
        opened.pop_all()
        return sink


def detect(file: int) -> str:
    """The format that the first bytes say; raw if they say none."""
    head = os.pread(file, _SECTOR, 0)
    return next((format_ for at, magic, format_ in _MAGICS if head[at : at + len(magic)] == magic), "raw")


# --- sources


def _open_to_read(path: Path) -> int:
    try:
        file = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)  # a FIFO is not waited for
    except FileNotFoundError as error:
        raise refuse("no-such-file", f"{path} is not there", "name a file or block device that is") from error
    except PermissionError as error:
        raise refuse("not-readable", f"{path} may not be read", "let the agency's user read it") from error
    except OSError as error:
        if error.errno == errno.ENXIO:  # a socket
            raise _not_a_file(path) from error
        raise
    kind = os.fstat(file).st_mode
    if not stat.S_ISREG(kind) and not stat.S_ISBLK(kind):
        os.close(file)
        raise _not_a_file(path)
    if stat.S_ISBLK(kind):
        try:
            os.close(os.open(path, os.O_RDONLY | os.O_EXCL | os.O_CLOEXEC))
        except OSError as error:
            os.close(file)
            if error.errno == errno.EBUSY:
                raise _in_use(path) from error
            raise
    return file


def _flat(file: int) -> FileDisk:
    return FileDisk(os.dup(file), Flat(size_of(file)))


def _qcow2(file: int, path: Path, files: list[int], opened: ExitStack) -> Disk:
    """By its own layout; through QEMU where that does not have all."""
    header = qcow2.read_header(file)
    layout = qcow2.Qcow2Layout(file, header)
    if layout.is_plain():
        return FileDisk(os.dup(file), layout)
    return NbdDisk(_chain(file, header, path.resolve(), files, opened), files, path.name)


def _chain(file: int, header: qcow2.Header, path: Path, files: list[int], opened: ExitStack) -> qemu.Node:
    """The image and those that it is a difference to. The file says their names: they may be in its own directory,
    nowhere else."""
    if header.backing is None:
        return qemu.node("qcow2", file, backing=None)
    backing = (path.parent / header.backing).resolve()
    if backing.parent != path.parent or len(files) == _LONGEST_CHAIN:
        raise _bad_backing("a file outside of its directory" if backing.parent != path.parent else "too many others")
    if manifest_beside(path).exists():
        raise _bad_backing("another, and came by a transfer: who sent it must not choose what is read here")
    if header.backing_format not in ("raw", "qcow2"):
        raise _bad_backing(f"an image in the format {header.backing_format!r}")
    below = _open_to_read(backing)
    opened.callback(os.close, below)
    files.append(below)
    if header.backing_format == "raw":
        return qemu.node("qcow2", file, backing=qemu.node("raw", below))
    rest = _chain(below, qcow2.read_header(below), backing, files, opened)
    return qemu.node("qcow2", file, backing=rest)


def _bad_backing(what: str) -> AgencyError:
    return refuse(
        "image-unsupported",
        f"the qcow2 image is a difference to {what}",
        "make it an image of its own (qemu-img convert -O qcow2), or have the other one in its directory, and its "
        "format said (qemu-img rebase -u -F FORMAT -b NAME)",
    )


_NO_BACKING: dict[str, dict[str, None]] = {"vmdk": {"backing": None}}


def _check_whole(file: int, format_: str) -> None:
    """Refuse what is not that format, and images that have content in other files: those that we read have it all."""
    tail = os.pread(file, _SECTOR, max(0, size_of(file) - _SECTOR))
    if detect(file) != format_ and not (format_ == "vpc" and tail.startswith(b"conectix")):
        raise refuse("image-format-wrong", f"the file is no {format_} image", "say the format that it has")
    if _IS_PARTIAL.get(format_, lambda _: False)(file):
        raise refuse(
            "image-unsupported",
            f"the {format_} image has some of its content in other files",
            f"make it one file: qemu-img convert -O {format_}",
        )


def _is_partial_vmdk(file: int) -> bool:
    """VMware's Virtual Disk Format 5.0: one sparse extent, its descriptor within, has it all."""
    head = os.pread(file, _SECTOR, 0)
    if not head.startswith(b"KDMV"):
        return True
    capacity, _, descriptor, sectors = struct.unpack_from("<QQQQ", head, 12)
    words = os.pread(file, min(sectors, 128) * _SECTOR, min(descriptor, 1 << 32) * _SECTOR)
    return not capacity or b"parentFileNameHint" in words


def _is_partial_vpc(file: int) -> bool:
    """Microsoft's Virtual Hard Disk Image Format: disk type 4 in the footer is a difference."""
    footer = os.pread(file, _SECTOR, max(0, size_of(file) - _SECTOR))
    return struct.unpack_from(">I", footer, 60) not in ((2,), (3,))


def _is_partial_vhdx(file: int) -> bool:
    """[MS-VHDX] 2.2.3 and 2.6.2.1: the file parameters, found through the region and metadata tables, say HasParent."""
    regions = os.pread(file, _VHDX_TABLE, 192 << 10)
    if (at := regions.find(_VHDX_METADATA)) < 0:
        return False  # QEMU says what is wrong
    (metadata,) = struct.unpack_from("<Q", regions.ljust(_VHDX_TABLE + 40, b"\0"), at + 16)
    items = os.pread(file, _VHDX_TABLE, min(metadata, 1 << 60))
    if (at := items.find(_VHDX_PARAMETERS)) < 0:
        return False
    (offset,) = struct.unpack_from("<I", items.ljust(_VHDX_TABLE + 40, b"\0"), at + 16)
    flags = os.pread(file, 4, min(metadata, 1 << 60) + offset + 4)
    return bool(flags and flags[0] & 2)


_IS_PARTIAL = {"vmdk": _is_partial_vmdk, "vhdx": _is_partial_vhdx, "vpc": _is_partial_vpc}


# --- sinks


def _written(part: Part, format_: str, name: str) -> Disk:
    if part.length is not None:
        return FileDisk(os.dup(part.file), Flat(part.length))
    if format_ == "qcow2":
        return FileDisk(os.dup(part.file), qcow2.Qcow2Layout(part.file, qcow2.read_header(part.file)))
    return NbdDisk(qemu.node(format_, part.file, **_NO_BACKING.get(format_, {})), [part.file], name, writing=True)


def _fits(part: Part, size: int, format_: str) -> bool:
    """Whether a part from before can be gone on with: any raw one, and images of that size."""
    if format_ == "raw":
        return True
    try:
        disk = _written(part, format_, "the unfinished image")
    except AgencyError:
        return False
    disk.close()
    return disk.size == size


def _is_device(directory: Path, name: str) -> bool:
    try:
        return stat.S_ISBLK((directory / name).lstat().st_mode)
    except OSError:
        return False


def _open_device(directory: Path, name: str, size: int, format_: str, hashing: Hashing) -> Sink:
    path = directory / name
    if format_ != "raw":
        raise refuse("unknown-format", f"{path} is a device: it is written as raw", "say raw, or name a file")
    try:
        file = os.open(path, os.O_RDWR | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC)  # O_EXCL: not while it is mounted
    except OSError as error:
        if error.errno == errno.EBUSY:
            raise _in_use(path) from error
        raise
    if (room := size_of(file)) < size:
        os.close(file)
        raise refuse("too-small", f"{path} has {room} bytes, and the content {size}", "name a larger device")
    return DeviceSink(file, FileDisk(os.dup(file), Flat(size)), directory / f".{name}.part", hashing)


# --- refusals


def check_format(format_: str, known: tuple[str, ...] = FORMATS) -> None:
    """Refuse (``unknown-format``) what is none of these."""
    if format_ not in known:
        raise refuse(
            "unknown-format", f"{format_!r} is not a format that is known here", "say one of " + ", ".join(known)
        )


def _not_a_file(path: Path) -> AgencyError:
    return refuse("not-a-file", f"{path} is neither a file nor a block device", "name one that is")


def _in_use(path: Path) -> AgencyError:
    return refuse("in-use", f"{path} is mounted or otherwise in use", "unmount it, or take a snapshot and name that")
