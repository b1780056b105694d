"""What every virtual machine that runs a bundle boots with, made from this computer's own Debian packages: its kernel,
an initramfs of busybox and a few kernel modules, and a read-only system disk with busybox and Python.

The system disk is shared by all machines of a cloud and costs them no memory. It is made once for each kernel and
Python and kept in the cloud's folder. Nothing here needs root.
"""

from __future__ import annotations

import hashlib
import lzma
import os
import re
import shutil
import stat
import subprocess
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from descriptors.base import MIB

PACKAGES = {
    "qemu-system-x86_64": "qemu-system-x86",
    "mke2fs": "e2fsprogs",
    "e2fsck": "e2fsprogs",
    "debugfs": "e2fsprogs",
    "busybox": "busybox-static",
    "python3": "python3",
}
"""The Debian package of each program needed, besides the kernel's."""
KERNEL_PACKAGE = "linux-image-cloud-amd64"
SEARCH = "/usr/sbin:/usr/bin:/sbin:/bin"
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "button", "evdev")
INIT = Path(__file__).with_name("qemu_init.sh")
NOT_NEEDED = re.compile(r"(test|tests|idlelib|tkinter|turtledemo|lib2to3|ensurepip|distutils|config-.*|.*-packages)$")
ETC = {
    "passwd": "root:x:0:0:root:/app:/bin/sh\n",
    "group": "root:x:0:\n",
    "hosts": "127.0.0.1 localhost\n10.0.2.15 machine\n",
    "resolv.conf": "nameserver 10.0.2.3\n",
}


class MissingPackages(Exception):
    """This computer lacks what virtual machines need; the message names the Debian packages."""


@dataclass(frozen=True)
class System:
    """The files to boot with."""

    kernel: Path
    initramfs: Path
    disk: Path
    """A raw ext4 image, for reading only."""


def tool(name: str) -> str:
    """The path of a program in :data:`PACKAGES`; raises :class:`MissingPackages`."""
    if path := shutil.which(name, path=SEARCH):
        return path
    raise MissingPackages(_words([PACKAGES[name]]))


def prepare(folder: Path) -> System:
    """The system, made in ``folder`` if it is not there yet. Takes some seconds the first time.

    Raises :class:`MissingPackages` with all that are missing.
    """
    kernel = check()
    release = kernel.name.removeprefix("vmlinuz-")
    system = System(kernel, folder / "initramfs.cpio", folder / "system.ext4")
    complete = folder / f"made-from-{_fingerprint(kernel)}"
    if not complete.exists():
        shutil.rmtree(folder, ignore_errors=True)  # what an older kernel or Python, or a sudden end, has left
        folder.mkdir(parents=True)
        _make_disk(system.disk)
        system.initramfs.write_bytes(initramfs(release))
        complete.touch()
    return system


def check() -> Path:
    """Whether all that is needed is there: the kernel; raises :class:`MissingPackages` with all that are missing."""
    missing = {package for name, package in PACKAGES.items() if not shutil.which(name, path=SEARCH)}
    kernel = _kernel()
    if missing or kernel is None:
        raise MissingPackages(_words([*sorted(missing), *([KERNEL_PACKAGE] if kernel is None else [])]))
    return kernel


def _words(packages: list[str]) -> str:
    return f"virtual machines need Debian packages that are not installed: apt-get install {' '.join(packages)}"


def _kernel() -> Path | None:
    """The newest kernel that can be read and has its modules, one made for clouds before others."""

    def rank(path: Path) -> tuple[bool, list[int]]:
        return "cloud" in path.name, [int(number) for number in re.findall(r"\d+", path.name)]

    found = [
        path
        for path in Path("/boot").glob("vmlinuz-*")
        if os.access(path, os.R_OK) and _modules_of(path.name.removeprefix("vmlinuz-")).is_dir()
    ]
    return max(found, key=rank, default=None)


def _modules_of(release: str) -> Path:
    return Path("/lib/modules") / release


def _fingerprint(kernel: Path) -> str:
    """Another one whenever what the system is made from has changed."""
    parts = [kernel, Path(tool("busybox")), Path(tool("python3")).resolve(), INIT, Path(__file__)]
    text = "\n".join(f"{part} {part.stat().st_size} {part.stat().st_mtime_ns}" for part in parts)
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


# --- the initramfs ---


def initramfs(release: str) -> bytes:
    """The initramfs for the kernel of that release: an archive to which another can be appended."""
    files = {"init": (INIT.read_bytes(), 0o755), "bin/busybox": (Path(tool("busybox")).read_bytes(), 0o755)}
    for number, module in enumerate(modules(release)):
        files[f"boot/modules/{number:02}-{module.name.split('.ko')[0]}"] = (_unpacked(module), 0o644)
    return cpio(files, ("proc", "sys", "dev", "system"))


def modules(release: str, wanted: Sequence[str] = MODULES) -> list[Path]:
    """The kernel modules wanted, each after all that it depends on."""
    folder = _modules_of(release)
    lines = (line.split(":", 1) for line in (folder / "modules.dep").read_text().splitlines())
    depends = {path: after.split() for path, after in lines}
    names = {Path(path).name.split(".ko")[0].replace("-", "_"): path for path in depends}
    order: dict[str, None] = {}
    for name in wanted:
        if path := names.get(name):  # one that is built in has no file
            order.update(dict.fromkeys([*reversed(depends[path]), path]))
    return [folder / path for path in order]


def _unpacked(module: Path) -> bytes:
    content = module.read_bytes()
    return lzma.decompress(content) if module.suffix == ".xz" else content


def cpio(files: Mapping[str, tuple[bytes, int]], folders: tuple[str, ...] = ()) -> bytes:
    """A cpio archive ("newc") of these files (path to content and mode) and empty folders, all owned by root."""
    parents = {str(parent) for path in (*files, *folders) for parent in Path(path, "x").parents}
    parents -= {".", *files}
    members = [(path, b"", stat.S_IFDIR | 0o755) for path in sorted(parents)]
    members += [(path, content, stat.S_IFREG | mode) for path, (content, mode) in files.items()]
    parts = [_member(number, *member) for number, member in enumerate((*members, ("TRAILER!!!", b"", 0)), 1)]
    return b"".join(parts)


def _member(number: int, path: str, content: bytes, mode: int) -> bytes:
    name = path.encode() + b"\0"
    fields = [number, mode, 0, 0, 1, 0, len(content), 0, 0, 0, 0, len(name), 0]
    head = b"070701" + b"".join(b"%08X" % field for field in fields) + name
    return head.ljust(-(-len(head) // 4) * 4, b"\0") + content.ljust(-(-len(content) // 4) * 4, b"\0")


# --- the system disk ---


def _make_disk(disk: Path) -> None:
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        root = Path(name)
        for folder in ("app", "dev", "proc", "sys", "tmp", "run", "etc", "bin"):
            (root / folder).mkdir()
        for path, text in ETC.items():
            (root / "etc" / path).write_text(text)
        shutil.copy(tool("busybox"), root / "bin" / "busybox")
        for applet in subprocess.run(
            [tool("busybox"), "--list"], check=True, capture_output=True, text=True
        ).stdout.split():
            if applet != "busybox":
                (root / "bin" / applet).symlink_to("busybox")
        for source in python():
            target = root / source.relative_to("/")
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(source, target)
        (root / "usr" / "bin" / "python3").symlink_to(Path(tool("python3")).resolve())
        make_ext4(root, disk, spare=MIB, journal=False)


def python() -> Iterator[Path]:
    """All the files of this computer's Python: program, standard library, shared libraries."""
    program = Path(tool("python3")).resolve()
    show = "import sysconfig; print(sysconfig.get_path('stdlib'))"
    library = Path(
        subprocess.run([program, "-I", "-c", show], check=True, capture_output=True, text=True).stdout.strip()
    )
    files = [program]
    for folder, below, names in os.walk(library):
        below[:] = [name for name in below if not NOT_NEEDED.match(name)]
        files += [Path(folder, name) for name in names if Path(folder, name).is_file()]
    yield from files
    yield from _shared_libraries([path for path in files if path == program or path.suffix == ".so"])
    certificates = Path("/etc/ssl/certs/ca-certificates.crt")
    if certificates.exists():
        yield certificates


def _shared_libraries(programs: list[Path]) -> set[Path]:
    output = subprocess.run(["/usr/bin/ldd", *programs], check=True, capture_output=True, text=True).stdout
    return {Path(path) for path in re.findall(r"(?:=> |^\s+)(/\S+) \(0x", output, re.MULTILINE)}


def make_ext4(root: Path, disk: Path, *, spare: int, journal: bool = True) -> None:
    """Make a file system image with the content of the folder and at least ``spare`` bytes free (as a sparse file).

    Raises ``OSError`` with mke2fs's words.
    """
    sizes = [path.lstat().st_size + 4096 for path in root.rglob("*")]
    kibibytes = (sum(sizes) * 5 // 4 + spare) // 1024 + 2048
    features = ["-O", "^has_journal"] if not journal else []
    options = ["-q", "-F", "-t", "ext4", "-m", "0", "-E", "root_owner=0:0", *features]
    made = subprocess.run(
        [tool("mke2fs"), *options, "-d", root, disk, f"{kibibytes}k"], capture_output=True, text=True, check=False
    )
    if made.returncode:
        raise OSError(f"the disk could not be made: {made.stderr.strip()}")
