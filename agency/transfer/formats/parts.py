"""A name in a directory, and what leads to it: the part that is written, its manifest, and one transfer at a time.

``.NAME.part`` is content that is not complete. It becomes ``NAME`` in one rename; ``.NAME.manifest`` says what is in
either.
"""

from __future__ import annotations

import errno
import fcntl
import glob
import os
import stat
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from blake3 import blake3

from agency.problems import AgencyError, refuse
from agency.transfer.manifest import Manifest, identity_of

_LONGEST = 200
"""Bytes of a name: there is room for what is added to it."""
_RECORD = struct.Struct("@hhqqi4x")  # struct flock; from 0, to the end of the file
_OPENED = os.O_RDWR | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC


class Part:
    """The part of a name, open and locked: nobody else can have it. Its ``manifest`` is what is known of it for
    certain.

    What was delivered under the name before is the part if its manifest still describes it: it loses its name when it
    is first written to. What else has the name stays as it is until it is replaced.
    """

    def __init__(self, directory: Path, name: str, format_: str) -> None:
        """The name has been checked. Errors: ``no-such-directory``, ``not-a-file``, ``transfer-running``."""
        self._directory, self._name, self._format = directory, name, format_
        self._manifest_file = manifest_beside(directory / name)
        try:
            self._place = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except (FileNotFoundError, NotADirectoryError) as error:
            raise refuse("no-such-directory", f"{directory} is not a directory", "make it, or name another") from error
        self._beginning = threading.Lock()
        self.manifest: Manifest | None = None
        """Of a part that nobody changed since it was made; None: only its bytes can tell."""
        self.length: int | None = None
        """Bytes that the file gets when it is first written to; None: it has its own."""
        self.is_new = False
        self._is_named = self._is_begun = self._given_up = False
        self.file = -1
        try:
            with self._alone():
                self._take()
        except BaseException:
            self.close()
            raise

    def _take(self) -> None:
        if self._open(self._part):
            self.manifest = self._load(self._proof())
        elif self._open(self._name) and self._is_ours():
            self._is_named = True
        else:
            self._create()
        for leftover in self._directory.glob(f".{glob.escape(self._name)}.manifest" + "?" * 8):
            leftover.unlink()  # one that was not finished; nobody else can be writing it

    def _is_ours(self) -> bool:
        """Whether what has the name was delivered by us, and nobody changed it."""
        self.manifest = self._load(self._proof())
        if self.manifest is not None:
            return True
        unproven = self._load(self._proof(named=False))
        if unproven is None:
            return False
        unproven.close()
        return True

    def _create(self) -> None:
        if self.file >= 0:
            os.close(self.file)
        self.file = os.open(self._part, _OPENED | os.O_CREAT | os.O_EXCL, 0o600, dir_fd=self._place)
        fcntl.flock(self.file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        self.is_new = True

    def restart(self) -> None:
        """What is in the part is of no use: begin with a new one."""
        if self.manifest is not None:
            self.manifest.close()
            self.manifest = None
        with self._alone():
            if not self._is_named:
                os.unlink(self._part, dir_fd=self._place)
            self._is_named = False
            self._create()

    def begin(self) -> None:
        """It is going to be written to: it has neither name nor manifest from now on. Threads may call it at any
        time."""
        if self._is_begun:
            return
        with self._beginning:
            if not self._is_begun:
                if self._is_named:
                    with self._alone():
                        self._rename(self._name, self._part)
                self._manifest_file.unlink(missing_ok=True)
                os.fsync(self._place)  # or it might be there again after a power loss, with the file's old times
                if self.length is not None:
                    os.ftruncate(self.file, self.length)
                self._is_named, self._is_begun = False, True

    def give_up(self) -> None:
        """It is not to have its name any more; any thread may say so."""
        self._given_up = True

    def deliver(self, manifest: Manifest) -> None:
        """Its content is complete: make it durable, give it the name, and keep the manifest with it."""
        self.begin()
        os.fsync(self.file)
        if self._given_up:
            raise refuse("cancelled", f"the transfer to {self._name} was given up", "transfer it again")
        manifest.save(self._manifest_file, self._proof(named=False))
        with self._alone():
            self._rename(self._part, self._name)
        manifest.save(self._manifest_file, self._proof())

    def keep(self, manifest: Manifest | None) -> None:
        """It is not complete: keep it for the next attempt, with what is known of it for certain. What was not written
        to is as it was before."""
        if self.is_new and not self._is_begun:
            os.unlink(self._part, dir_fd=self._place)
            return
        os.fsync(self.file)
        if manifest is not None:
            manifest.save(self._manifest_file, self._proof())

    def close(self) -> None:
        """Let go of it, and let others have it."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1
        os.close(self._place)

    @property
    def _part(self) -> str:
        return f".{self._name}.part"

    def _open(self, name: str) -> bool:
        """Open that file and lock it; False if it is not there."""
        try:
            file = os.open(name, _OPENED, dir_fd=self._place)
        except FileNotFoundError:
            return False
        except OSError as error:
            if error.errno in (errno.ELOOP, errno.EISDIR, errno.ENXIO):
                raise self._not_a_file() from error
            raise
        self.file = file
        if not stat.S_ISREG(os.fstat(file).st_mode):
            raise self._not_a_file()
        with suppress(BlockingIOError):
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if not _locked_by_others(file):
                return True
        raise refuse(
            "transfer-running",
            f"something is being transferred to {self._name} already, or is using it",
            "wait for it, or cancel it; or choose another name",
        )

    def _not_a_file(self) -> AgencyError:
        return refuse(
            "not-a-file",
            f"{self._name} in {self._directory} is a link, a directory, or another thing that is not a plain file",
            "name the file or device itself",
        )

    def _rename(self, old: str, new: str) -> None:
        os.rename(old, new, src_dir_fd=self._place, dst_dir_fd=self._place)
        os.fsync(self._place)

    def _load(self, proof: bytes) -> Manifest | None:
        return Manifest.load(self._manifest_file, proof, self._directory)

    def _proof(self, *, named: bool = True) -> bytes:
        """What a manifest says of the file that it describes: which file, as of when, in which format. Renaming a file
        changes when; until it has its name, a manifest proves nothing but whose file it is."""
        identity = identity_of(self.file)
        known = identity if named else identity[:32] + b"not yet named"
        return blake3(known + self._format.encode()).digest(length=40)

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Nobody else looks for names in this directory, or changes them."""
        fcntl.flock(self._place, fcntl.LOCK_EX)
        try:
            yield
        finally:
            fcntl.flock(self._place, fcntl.LOCK_UN)


def _locked_by_others(file: int) -> bool:
    """Whether anybody has the file's records locked, as QEMU has those of a running machine's disk."""
    answer = fcntl.fcntl(file, fcntl.F_OFD_GETLK, _RECORD.pack(fcntl.F_WRLCK, os.SEEK_SET, 0, 0, 0))
    return bool(_RECORD.unpack(answer)[0] != fcntl.F_UNLCK)


def manifest_beside(path: Path) -> Path:
    """Where the manifest of a file is that a transfer brought."""
    return path.parent / f".{path.name}.manifest"


def check_name(name: str) -> None:
    """``bad-name`` if a file cannot have it, or it leads elsewhere."""
    if not name or name[0] == "." or "/" in name or not name.isprintable() or len(name.encode()) > _LONGEST:
        raise refuse(
            "bad-name",
            "that is no name for a file in the directory",
            f"a name has 1 to {_LONGEST} bytes, does not begin with a dot, and has no slash or control characters",
        )
