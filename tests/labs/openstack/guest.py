"""The lab's guest: a small bootable disk image (14 MB) of Debian's cloud kernel and busybox.

The first partition (FAT16) holds syslinux, kernel and initramfs; the second (ext4) is the guest's own, see
``guest-init.sh``. Needs no mount and no loop device.
"""

from __future__ import annotations

import gzip
import shutil
import subprocess
import tempfile
from pathlib import Path

from tests.labs.openstack.installation import HERE, SEARCH, cache, fingerprint, made_once

INIT = HERE / "guest-init.sh"
MODULES = (
    *(
        "virtio*",
        "isofs",
        "sr_mod",
        "cdrom",
        "scsi_mod",
        "scsi_common",
        "libata",
        "ata_piix",
        "net_failover",
        "failover",
    ),
    *("sd_mod", "button", "evdev", "t10-pi", "crc-t10dif", "crc64*", "ext4", "jbd2", "mbcache", "crc32c*", "libcrc32c"),
)
"""Patterns of the kernel's modules that the guest may need."""
SECTOR, SYSTEM_START, SYSTEM_SECTORS, DATA_START, DATA_SECTORS = 512, 2048, 73728, 75776, 53248
SYSLINUX = """DEFAULT l
PROMPT 0
TIMEOUT 0
LABEL l
 KERNEL vmlinuz
 INITRD initrd.gz
 APPEND console=ttyS0 quiet panic=-1 mitigations=off nokaslr no_timer_check tsc=reliable audit=0
"""


def guest_image() -> Path:
    """The image (qcow2), made once."""
    kernel = max(Path("/boot").glob("vmlinuz-*cloud-amd64"), key=lambda path: path.stat().st_mtime)
    image = cache() / f"guest-{kernel.name.removeprefix('vmlinuz-')}-{fingerprint(Path(__file__), INIT)}.qcow2"
    with made_once(image) as part, tempfile.TemporaryDirectory(prefix="agency-guest-") as folder:
        if part:
            _make(kernel, Path(folder), part)
    return image


def _make(kernel: Path, folder: Path, image: Path) -> None:
    release = kernel.name.removeprefix("vmlinuz-")
    disk, system, data = folder / "disk.raw", folder / "system", folder / "data"
    (folder / "initrd.gz").write_bytes(_initramfs(release, folder / "root"))
    (folder / "syslinux.cfg").write_text(SYSLINUX)
    _sized(system, SYSTEM_SECTORS)
    _tool("mkfs.fat", "-F", "16", "-n", "LABBOOT", "--invariant", system)
    _tool("mcopy", "-i", system, kernel, "::vmlinuz")
    _tool("mcopy", "-i", system, folder / "initrd.gz", folder / "syslinux.cfg", "::")
    _tool("syslinux", "-i", system)
    _sized(data, DATA_SECTORS)
    _tool("mke2fs", "-q", "-t", "ext4", "-L", "data", "-E", "root_owner=0:0", "-O", "^metadata_csum", data)
    _sized(disk, DATA_START + DATA_SECTORS)
    table = f"label: dos\n{SYSTEM_START},{SYSTEM_SECTORS},6,*\n{DATA_START},{DATA_SECTORS},83\n"
    _tool("sfdisk", "-q", disk, given=table.encode())
    loader = Path("/usr/lib/syslinux/mbr/mbr.bin").read_bytes()[:440]
    with disk.open("r+b") as file:
        for position, content in ((0, loader), (SYSTEM_START, system.read_bytes()), (DATA_START, data.read_bytes())):
            file.seek(position * SECTOR)
            file.write(content)
    _tool("qemu-img", "convert", "-q", "-f", "raw", "-O", "qcow2", "-c", disk, image)


def _initramfs(release: str, root: Path) -> bytes:
    for name in ("bin", "proc", "sys", "dev", "data", "cfg", "etc", "tmp"):
        (root / name).mkdir(parents=True)
    source, target = Path("/lib/modules", release), root / "lib/modules" / release
    found = {path for pattern in MODULES for path in (source / "kernel").rglob(f"{pattern}.ko")}
    for path in (*found, *source.glob("modules.order"), *source.glob("modules.builtin*")):
        copy = target / path.relative_to(source)
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, copy)
    _tool("depmod", "-b", root, release)
    shutil.copy(shutil.which("busybox", path=SEARCH) or "/bin/busybox", root / "bin/busybox")
    shutil.copy(INIT, root / "init")
    (root / "init").chmod(0o755)
    names = sorted(str(path.relative_to(root)) for path in root.rglob("*"))
    archive = ["--null", "-o", "-H", "newc", "--quiet", "--owner", "0:0"]
    return gzip.compress(_tool("cpio", *archive, given="\0".join(names).encode(), cwd=root), mtime=0)


def _sized(path: Path, sectors: int) -> None:
    with path.open("wb") as file:
        file.truncate(sectors * SECTOR)


def _tool(name: str, *arguments: str | Path, given: bytes | None = None, cwd: Path | None = None) -> bytes:
    program = shutil.which(name, path=SEARCH) or name
    done = subprocess.run([program, *arguments], input=given, cwd=cwd, capture_output=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{name}: {done.stderr.decode(errors='replace')}")
    return done.stdout
