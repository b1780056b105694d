"""What is moved: a Debian-like root disk, a volume, and the disk's difficult relatives. Made once a scale, and kept.

disk            ext4 in 10 GiB, 5.4 GiB of them allocated: files of this machine's /usr, logs, database pages, blobs
volume          512 MiB of random bytes
changed         the disk after 5 % of its bytes were written anew, in runs of 4 KiB to 4 MiB
duplicated      ten copies of a tenth of the disk, each at a multiple of 1 MiB: images within an image
incompressible  random bytes wherever the disk has something

Sizes are times the scale. All but the files of /usr comes from seeded generators. Who cannot leave holes out is given
the disk as qcow2, which has none.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from blake3 import blake3

PACKAGES = {"mkfs.ext4": "e2fsprogs", "qemu-img": "qemu-utils"}
Name = Literal["disk", "volume", "changed", "duplicated", "incompressible", "disk.qcow2"]

BLOCK = 64 * 1024
MIB = 1 << 20
VIRTUAL, ALLOCATED, VOLUME = 10 << 30, int(5.4 * (1 << 30)), 512 << 20
ROOM = 6 * ALLOCATED
"""Bytes of disk that all inputs take at scale 1, a destination and what is there while they are made included."""
_CHANGED, _COPIES = 0.05, 10
_PAGE = 4096
_TREES = ("/usr/lib", "/usr/share", "/usr/bin", "/usr/include")
_OF_TREES, _OF_LOGS, _OF_PAGES = 0.80, 0.05, 0.06
"""Parts of what is allocated; the rest, and what /usr does not fill, is random blobs, as media are."""
_FULL = 0.99
_BLOB = 64 * MIB
_BEGINNING = 1_700_000_000
_VERSION = 1
_UUID = "6f1f3a52-0d4e-4f7a-9b43-5a3c1f6f9a10"


@dataclass(frozen=True)
class Content:
    """A file that is to be moved."""

    path: Path
    allocated: int
    """Bytes that are not in holes."""
    digest: str


def missing() -> dict[str, str]:
    """Programs that making inputs needs and that are not there, each with its Debian package."""
    return {program: package for program, package in PACKAGES.items() if not shutil.which(program)}


def parts(file: Path) -> Iterator[tuple[int, bytes]]:
    """What a sparse file has, as offsets and bytes, at most 1 MiB at once; holes are not read."""
    with file.open("rb", buffering=0) as opened:
        for start, end in extents(opened.fileno()):
            for offset in range(start, end, MIB):
                yield offset, os.pread(opened.fileno(), min(MIB, end - offset), offset)


def extents(opened: int) -> Iterator[tuple[int, int]]:
    """Where a file is not a hole: beginnings and ends; a beginning is a multiple of the file system's block."""
    size, end = os.fstat(opened).st_size, 0
    while end < size:
        try:
            start = os.lseek(opened, end, os.SEEK_DATA)
        except OSError:  # ENXIO: nothing but a hole
            return
        end = os.lseek(opened, start, os.SEEK_HOLE)
        yield start, end


def digest(file: Path) -> str:
    """The same for two files exactly if a reader sees the same bytes in both: BLAKE3 over the size, the offsets of
    pages that are not all zeros, and those pages. A hole in one may be zeros in the other."""
    offsets, pages, nothing = blake3(file.stat().st_size.to_bytes(8, "big")), blake3(), bytes(_PAGE)
    for offset, part in parts(file):
        view, begun = memoryview(part), 0
        for place in range(0, len(part), _PAGE):
            if view[place : place + _PAGE] == nothing[: len(part) - place]:
                pages.update(view[begun:place])
                begun = place + _PAGE
            else:
                offsets.update((offset + place).to_bytes(8, "big"))
        pages.update(view[begun:])
    return blake3(offsets.digest() + pages.digest()).hexdigest()


def inputs(work: Path, scale: float) -> dict[Name, Content]:
    """All of them, from ``work`` if they are there as they were made, else made there, if there is room."""
    folder = work / f"inputs-{scale:g}"
    made = folder / "made.json"
    if made.exists():
        kept = json.loads(made.read_text())
        untouched = all(_stamp(folder / file) == stamp for file, stamp in kept["stamps"].items())
        if kept["version"] == _VERSION and untouched:
            return {name: Content(folder / entry.pop("path"), **entry) for name, entry in kept["contents"].items()}
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    if (free := shutil.disk_usage(folder).free) < (needed := int(ROOM * scale)):
        room = f"{free / 1e9:.1f} GB free; the inputs and copies need {needed / 1e9:.1f}"
        raise RuntimeError(f"{folder} has {room}: name another --work")
    contents = _made(folder, scale)
    stamps = {str(each.path.relative_to(folder)): _stamp(each.path) for each in contents.values()}
    entries = {name: asdict(each) | {"path": str(each.path.relative_to(folder))} for name, each in contents.items()}
    made.write_text(json.dumps({"version": _VERSION, "stamps": stamps, "contents": entries}, indent=1))
    return contents


def _stamp(file: Path) -> list[int]:
    if not file.exists():
        return []
    status = file.stat()
    return [status.st_size, status.st_mtime_ns]


def _made(folder: Path, scale: float) -> dict[Name, Content]:
    disk = _place(folder, "disk", "disk.img")
    _make_disk(disk, int(VIRTUAL * scale) // MIB * MIB, int(ALLOCATED * scale))
    volume = _place(folder, "volume", "volume.img")
    with volume.open("wb") as opened:
        for part in _noise("volume", int(VOLUME * scale)):
            opened.write(part)
    changed, duplicated, incompressible = (
        _place(folder, name, "disk.img") for name in ("changed", "duplicated", "incompressible")
    )
    _change(disk, changed)
    _duplicate(disk, duplicated)
    _replace_by_noise(disk, incompressible)
    compact = _place(folder, "compact", "disk.qcow2")
    _run("qemu-img", "convert", "-O", "qcow2", str(disk), str(compact))
    files: dict[Name, Path] = {
        "disk": disk,
        "volume": volume,
        "changed": changed,
        "duplicated": duplicated,
        "incompressible": incompressible,
        "disk.qcow2": compact,
    }
    os.sync()  # before holes are looked for: a file system may know them only then
    return {name: Content(file, _allocated(file), digest(file)) for name, file in files.items()}


def _allocated(file: Path) -> int:
    with file.open("rb") as opened:
        return sum(end - start for start, end in extents(opened.fileno()))


def _place(folder: Path, name: str, file: str) -> Path:
    """Inputs that are another's next version have its file's name."""
    place = folder / name / file
    place.parent.mkdir()
    return place


def _make_disk(disk: Path, virtual: int, allocated: int) -> None:
    tree = disk.parent / "tree"
    tree.mkdir()
    filled = _fill_from_usr(tree / "usr", int(allocated * _OF_TREES))
    for name, generated, share in (("log", _log, _OF_LOGS), ("database", _pages, _OF_PAGES)):
        with (tree / name).open("wb") as opened:
            for part in generated(int(allocated * share)):
                filled += opened.write(part)
    for number in range(-(-(allocated - filled) // _BLOB)):
        with (tree / f"blob{number}").open("wb") as opened:
            for part in _noise(f"blob{number}", min(_BLOB, allocated - filled)):
                filled += opened.write(part)
    disk.touch()
    os.truncate(disk, virtual)
    stable = {**os.environ, "E2FSPROGS_FAKE_TIME": str(_BEGINNING)}
    options = ["-q", "-F", "-U", _UUID, "-E", f"hash_seed={_UUID},root_owner=0:0", "-m", "1", "-d", str(tree)]
    _run("mkfs.ext4", *options, str(disk), env=stable)
    shutil.rmtree(tree)


def _fill_from_usr(target: Path, length: int) -> int:
    """Files of /usr, as many as fit, in a mixture that depends on nothing but their names; the bytes that they take."""
    found = []
    for top in _TREES:
        for folder, _, names in os.walk(top):
            found += [os.path.join(folder, name) for name in names]  # noqa: PTH118 - hundreds of thousands
    found.sort()
    random.Random(1).shuffle(found)  # noqa: S311 - wants to be the same each time
    filled = 0
    for number, name in enumerate(found):
        if filled > length * _FULL:
            break
        file = Path(name)
        if file.is_symlink() or not file.is_file() or not os.access(file, os.R_OK):
            continue
        size = -(-file.stat().st_size // _PAGE) * _PAGE
        if filled + size > length:
            continue
        copy = target / str(number // 1000) / str(number)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(file, copy)
        os.utime(copy, (_BEGINNING, _BEGINNING))
        filled += size
    return filled


def _log(length: int) -> Iterator[bytes]:
    """Lines as an application's log has them."""
    chance, time, written = random.Random(2), _BEGINNING, 0  # noqa: S311 - wants to be the same each time
    while written < length:
        lines = []
        for _ in range(5000):
            bits = chance.getrandbits(128)
            time += bits % 3
            lines.append(
                f"{time} INFO worker-{bits % 32} request id={bits:032x} path=/api/v1/items/{bits % 9999} "
                f"status={(200, 200, 200, 404, 500)[bits % 5]} took={bits % 907}ms\n"
            )
        part = "".join(lines).encode()[: length - written]
        written += len(part)
        yield part


def _pages(length: int) -> Iterator[bytes]:
    """Pages of 16 KiB as a database has them: a part full of something, the rest empty."""
    chance = random.Random(3)  # noqa: S311 - wants to be the same each time
    for _ in range(length // (4 * _PAGE)):
        yield chance.randbytes(chance.randrange(4000, 9000)).ljust(4 * _PAGE, b"\0")


def _noise(seed: str, length: int) -> Iterator[bytes]:
    chance = random.Random(seed)  # noqa: S311 - wants to be the same each time
    for offset in range(0, length, MIB):
        yield chance.randbytes(min(MIB, length - offset))


def _change(disk: Path, changed: Path) -> None:
    """Runs of pages, anywhere something is, get what is elsewhere on the disk, with a few bytes of their own a page."""
    _run("cp", "--sparse=always", str(disk), str(changed))
    chance = random.Random(4)  # noqa: S311 - wants to be the same each time
    with disk.open("rb") as source, changed.open("r+b") as target:
        there = [page for start, end in extents(source.fileno()) for page in range(start // _PAGE, end // _PAGE)]
        left, done = int(len(there) * _CHANGED), set[int]()
        while left > 0:
            first, other = chance.randrange(len(there)), chance.randrange(len(there))
            length = min(left, int(2 ** chance.uniform(0, 10)))
            for page, copied in zip(there[first : first + length], there[other : other + length], strict=False):
                if page in done:
                    break
                content = os.pread(source.fileno(), _PAGE, copied * _PAGE)
                os.pwrite(target.fileno(), chance.randbytes(16) + content[16:], page * _PAGE)
                done.add(page)
                left -= 1


def _duplicate(disk: Path, duplicated: Path) -> None:
    size = disk.stat().st_size
    share = size // _COPIES // MIB * MIB
    left = _allocated(disk) // _COPIES
    with duplicated.open("wb") as target:
        target.truncate(size)
        for offset, part in parts(disk):
            if left <= 0 or offset + len(part) > share:
                break
            for copy in range(_COPIES):
                os.pwrite(target.fileno(), part, offset + copy * share)
            left -= len(part)


def _replace_by_noise(disk: Path, incompressible: Path) -> None:
    chance = random.Random(5)  # noqa: S311 - wants to be the same each time
    with incompressible.open("wb") as target:
        target.truncate(disk.stat().st_size)
        for offset, part in parts(disk):
            os.pwrite(target.fileno(), chance.randbytes(len(part)), offset)


def _run(*command: str, env: dict[str, str] | None = None) -> None:
    done = subprocess.run(command, capture_output=True, text=True, check=False, env=env)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
