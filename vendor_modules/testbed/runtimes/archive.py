"""Bundles: tar archives of a machine's working directory. They come from strangers and from machines that strangers
control, so nothing in them is trusted, and no path below a machine's directory is ever followed through a link."""

from __future__ import annotations

import io
import os
import stat
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath
from typing import IO

from descriptors.base import MIB
from descriptors.machine import BUNDLE_MANIFEST, MachineManifest
from vendor_modules.testbed.files import write_sparsely

MAX_MEMBERS = 200_000
MAX_MANIFEST = MIB
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


class BadBundle(ValueError):
    """The archive is broken, or tries what no bundle may; the message says what."""


@contextmanager
def parent_of(root: Path, path: str) -> Iterator[tuple[int, str]]:
    """Open the directory that ``path`` (relative to ``root``) is in, made as needed and reached through no link; gives
    its descriptor and the last part of the path. Raises ``OSError`` where a link or a file is in the way."""
    *folders, name = _inside(path).parts
    descriptor = os.open(root, _DIRECTORY)
    try:
        for folder in folders:
            try:
                below = os.open(folder, _DIRECTORY, dir_fd=descriptor)
            except FileNotFoundError:
                os.mkdir(folder, 0o755, dir_fd=descriptor)
                below = os.open(folder, _DIRECTORY, dir_fd=descriptor)
            os.close(descriptor)
            descriptor = below
        yield descriptor, name
    finally:
        os.close(descriptor)


def _inside(path: str) -> PurePosixPath:
    """The path, if it is relative and does not climb: machines may have names that no descriptor would accept."""
    pure = PurePosixPath(path)
    if pure.is_absolute() or ".." in pure.parts or "\0" in path:
        raise ValueError(f"the path {path!r} leads out of the machine's directory")
    return pure


def remove_entry(directory: int, name: str) -> None:
    """Remove a file or link, if there is one; ``OSError`` for a directory."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=directory)


def open_new(directory: int, name: str, mode: int) -> IO[bytes]:
    """Create a file in place of whatever file or link has the name."""
    remove_entry(directory, name)
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
    descriptor = os.open(name, flags, mode, dir_fd=directory)
    os.fchmod(descriptor, mode)  # whatever our umask
    return os.fdopen(descriptor, "wb")


def unpack(bundle: Path, root: Path, max_bytes: int) -> MachineManifest:
    """Unpack below the empty directory ``root``; returns the bundle's manifest, which is not unpacked.

    Raises :class:`BadBundle` for absolute paths, '..', links that lead outside, devices, and more than ``max_bytes``.
    """
    manifest, links, total = MachineManifest(), [], 0
    try:
        with tarfile.open(bundle, "r:") as archive:
            for count, original in enumerate(archive):
                total += original.size
                if count >= MAX_MEMBERS or total > max_bytes:
                    raise BadBundle(f"the bundle holds more than {MAX_MEMBERS} files or {max_bytes} bytes")
                member = _harmless(original)
                if member.name == BUNDLE_MANIFEST:
                    manifest = _manifest(archive, member)
                elif member.issym() or member.islnk():
                    links.append(member)  # at the end, so that nothing is unpacked through one
                else:
                    _unpack_member(archive, member, root)
            for member in links:
                _link(member, root)
    except (tarfile.TarError, OSError, ValueError) as error:
        raise BadBundle(f"the bundle cannot be unpacked: {error}") from error
    return manifest


def _harmless(member: tarfile.TarInfo) -> tarfile.TarInfo:
    path = str(_inside(member.name))
    if not (member.isreg() or member.isdir() or member.issym() or member.islnk()):
        raise BadBundle(f"{member.name!r} is neither a file, a directory nor a link")
    if member.issym() and _climbs(PurePosixPath(path).parent, member.linkname):
        raise BadBundle(f"the link {member.name!r} leads out of the machine's directory")
    if member.islnk():
        _inside(member.linkname)
    member.name, member.mode = path, member.mode & 0o755
    return member


def _climbs(folder: PurePosixPath, target: str) -> bool:
    """Whether a symbolic link in the folder is absolute, or goes up further than it has come down."""
    return target.startswith("/") or os.path.normpath(folder / target).split("/")[0] == ".."


def _manifest(archive: tarfile.TarFile, member: tarfile.TarInfo) -> MachineManifest:
    content = archive.extractfile(member) if member.isreg() and member.size <= MAX_MANIFEST else None
    if content is None:
        raise BadBundle(f"{BUNDLE_MANIFEST} is not a small file")
    return MachineManifest.model_validate_json(content.read())


def _unpack_member(archive: tarfile.TarFile, member: tarfile.TarInfo, root: Path) -> None:
    if member.name == ".":
        return
    with parent_of(root, member.name) as (directory, name):
        if member.isdir():
            with suppress(FileExistsError):  # the next line raises if it is no directory
                os.mkdir(name, dir_fd=directory)
            below = os.open(name, _DIRECTORY, dir_fd=directory)
            os.fchmod(below, (member.mode or 0o755) & 0o777 | 0o700)
            os.close(below)
            return
        content = archive.extractfile(member)
        with open_new(directory, name, (member.mode or 0o644) | 0o600) as file:
            _copy(content, file, member.size)
        os.utime(name, (member.mtime, member.mtime), dir_fd=directory, follow_symlinks=False)


def _copy(content: IO[bytes] | None, file: IO[bytes], size: int) -> None:
    while content and (chunk := content.read(MIB)):
        write_sparsely(file, chunk)
    file.truncate(size)


def _link(member: tarfile.TarInfo, root: Path) -> None:
    with parent_of(root, member.name) as (directory, name):
        remove_entry(directory, name)
        if member.issym():
            os.symlink(member.linkname, name, dir_fd=directory)
            return
        with parent_of(root, member.linkname) as (target_directory, target):
            os.link(target, name, src_dir_fd=target_directory, dst_dir_fd=directory, follow_symlinks=False)


def pack(root: Path, into: Path, manifest: MachineManifest, leave_out: frozenset[str]) -> None:
    """Write the directory as a bundle: the same content gives the same bytes. Left out are the paths named, sockets and
    pipes, and links that lead outside: they mean nothing elsewhere, and no cloud would unpack them."""
    with tarfile.open(into, "w:", format=tarfile.PAX_FORMAT) as archive:
        text = manifest.model_dump_json().encode()
        head = tarfile.TarInfo(BUNDLE_MANIFEST)
        head.size = len(text)
        archive.addfile(head, io.BytesIO(text))
        for path in _walk(root, leave_out):
            _pack_member(archive, root, path)


def _walk(root: Path, leave_out: frozenset[str]) -> Iterator[str]:
    """Relative paths below ``root``, a directory before what is in it, in an order that depends on the names only."""
    waiting = [""]
    while waiting:
        path = waiting.pop()
        if path:
            yield path
        if (root / path).is_dir() and not (root / path).is_symlink():
            names = sorted((entry.name for entry in (root / path).iterdir()), reverse=True)
            below = (f"{path}/{name}" if path else name for name in names)
            waiting.extend(child for child in below if child not in leave_out)


def _pack_member(archive: tarfile.TarFile, root: Path, path: str) -> None:
    info = tarfile.TarInfo(path)
    status = (root / path).lstat()
    info.mode = stat.S_IMODE(status.st_mode) & 0o777
    if stat.S_ISDIR(status.st_mode):
        info.type = tarfile.DIRTYPE
        archive.addfile(info)
    elif stat.S_ISLNK(status.st_mode):
        info.type, info.linkname = tarfile.SYMTYPE, str((root / path).readlink())
        inside = os.path.normpath(PurePosixPath(path).parent / info.linkname)
        if not inside.startswith(("/", "..")):
            archive.addfile(info)
    elif stat.S_ISREG(status.st_mode):
        info.size, info.mtime = status.st_size, int(status.st_mtime)
        with (root / path).open("rb") as file:
            archive.addfile(info, file)
