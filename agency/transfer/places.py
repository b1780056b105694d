"""Files below a proxy's root, by name: whatever a name says, and whoever renames what, nothing else is reached."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from agency.problems import AgencyError, refuse

_LONGEST = 200
"""Bytes of a part of a name."""
_DEEPEST = 16


def check_name(name: str) -> list[str]:
    """The parts of a name that can be one; refused (``bad-name``) otherwise."""
    parts = name.split("/")
    if len(parts) > _DEEPEST or not all(map(_is_plain, parts)):
        raise refuse(
            "bad-name",
            f"{name[:80]!r} is no name of a file below the proxy's root",
            f"its parts have 1 to {_LONGEST} bytes, and no dot first, backslash or control character",
        )
    return parts


def _is_plain(part: str) -> bool:
    try:
        length = len(part.encode())
    except UnicodeEncodeError:
        return False
    return 0 < length <= _LONGEST and part[0] != "." and "\\" not in part and part.isprintable()


@contextmanager
def below(root: Path, name: str) -> Iterator[tuple[Path, str]]:
    """The directory that the file is in, as a path that leads there and nowhere else while inside (also for processes
    that we start), and the file's own name. No part of it may be a symbolic link."""
    *folders, last = check_name(name)
    place = os.open(root, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for folder in folders:
            entered = _enter(place, folder, name)
            os.close(place)
            place = entered
        _check_kind(place, last, name)
        yield Path(f"/proc/{os.getpid()}/fd/{place}"), last
    finally:
        os.close(place)


def _enter(place: int, folder: str, name: str) -> int:
    try:
        return os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=place)
    except OSError:
        raise _unusable(name, f"{folder!r} in it is no directory") from None


def _check_kind(place: int, last: str, name: str) -> None:
    try:
        mode = os.stat(last, dir_fd=place, follow_symlinks=False).st_mode
    except FileNotFoundError:
        return
    if not (stat.S_ISREG(mode) or stat.S_ISBLK(mode)):
        raise _unusable(name, "it is neither a file nor a block device")


def _unusable(name: str, why: str) -> AgencyError:
    return refuse("bad-name", f"{name[:80]!r} cannot be used: {why}", "name a file in a directory below the root")
