"""What the guests of the labs are made of: this computer's own busybox, Python and kernel, put together on the spot.

The same small system (``guest_init.sh`` is its first process) becomes a bootable disk for virtual machines and a root
file system for containers. Nothing here needs root, a mount, or the network. Raises :class:`MissingPackages`, with
the names of the Debian packages.
"""

from __future__ import annotations

import shutil
import struct
import subprocess
import tempfile
from pathlib import Path

from descriptors.base import MIB
from vendor_modules.testbed.runtimes import qemu_system
from vendor_modules.testbed.runtimes.qemu_system import SEARCH, MissingPackages, cpio, make_ext4, tool

APART = [
    *("setpriv", "--pdeathsig", "KILL"),
    *("unshare", "--mount", "--propagation", "private", "--pid", "--fork", "--kill-child", "--mount-proc"),
]
"""Runs a program with process numbers and mounts of its own (as root): it ends with us, and all its processes with
it."""
INIT = Path(__file__).with_name("guest_init.sh")
PACKAGES = {"syslinux": "syslinux", "mcopy": "mtools", "mkfs.fat": "dosfstools"}
MBR = Path("/usr/lib/syslinux/mbr/mbr.bin")
SECTOR = 512
BOOT_MIB = 20
SPARE = 48 * MIB
"""Free space on a virtual machine's disk."""
MODULES = ("virtio_pci", "virtio_blk", "virtio_net", "isofs", "ata_piix", "sr_mod", "button", "evdev", "af_packet")
KERNEL_LINE = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable random.trust_cpu=on"
ETC = {
    "passwd": "root:x:0:0:root:/root:/bin/sh\n",
    "group": "root:x:0:\n",
    "hosts": "127.0.0.1 localhost\n",
    "dhcp.sh": (
        '#!/bin/sh\n[ "$1" = bound ] || exit 0\nip addr add "$ip/$mask" dev "$interface"\nip link set "$interface" up\n'
        '[ -z "$router" ] || ip route add default via "$router"\n'
    ),
}
INITRAMFS = """#!/bin/busybox sh
/bin/busybox mount -t proc proc /proc
/bin/busybox mount -t devtmpfs dev /dev
for module in /modules/*; do /bin/busybox insmod "$module"; done
/bin/busybox mount -t ext4 /dev/vda2 /root
/bin/busybox mount --move /dev /root/dev
/bin/busybox umount /proc
exec /bin/busybox switch_root /root /sbin/init
"""


def root(folder: Path) -> None:
    """Fill ``folder`` with the guest's files."""
    for name in ("dev", "proc", "sys", "tmp", "run", "etc", "bin", "sbin", "root", "srv/machine", "usr/bin"):
        (folder / name).mkdir(parents=True)
    for name, text in ETC.items():
        (folder / "etc" / name).write_text(text)
    (folder / "etc" / "dhcp.sh").chmod(0o755)
    busybox = tool("busybox")
    shutil.copy(busybox, folder / "bin" / "busybox")
    applets = subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split()
    for applet in applets:
        if applet != "busybox":
            (folder / "bin" / applet).symlink_to("busybox")
    for source in qemu_system.python():
        target = folder / source.relative_to("/")
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(source, target)
    (folder / "usr" / "bin" / "python3").symlink_to(Path(tool("python3")).resolve())
    shutil.copy(INIT, folder / "sbin" / "init")
    (folder / "sbin" / "init").chmod(0o755)


def make_disk(disk: Path) -> None:
    """Make a raw disk that boots by itself: a FAT partition with syslinux and the kernel, and the system on ext4."""
    kernel = check()
    with tempfile.TemporaryDirectory(dir=disk.parent) as name:
        work = Path(name)
        (work / "root").mkdir()
        root(work / "root")
        (work / "root" / "srv" / "machine" / "dev").symlink_to("/dev")
        make_ext4(work / "root", work / "system", spare=SPARE, journal=False)
        _make_boot(work, kernel)
        boot, system = (work / "boot").stat().st_size, (work / "system").stat().st_size
        with disk.open("wb") as file:
            file.truncate(MIB + boot + system)
            file.write(_boot_record((MIB, boot, 0x0E, True), (MIB + boot, system, 0x83, False)))
        for part, offset in (("boot", 1), ("system", 1 + boot // MIB)):
            arguments = [f"if={work / part}", f"of={disk}", "bs=1M", f"seek={offset}", "conv=notrunc,sparse"]
            subprocess.run(["dd", *arguments, "status=none"], check=True)


def check_root() -> None:
    """Whether all is there that the guest's files are made of."""
    for name in ("busybox", "python3"):
        tool(name)


def check() -> Path:
    """The kernel to use, if all is there that a disk is made of."""
    kernel = qemu_system.check()
    missing = {package for name, package in PACKAGES.items() if not shutil.which(name, path=SEARCH)}
    if missing or not MBR.exists():
        raise MissingPackages(f"apt-get install {' '.join(sorted(missing | {'syslinux-common'}))}")
    return kernel


def _make_boot(work: Path, kernel: Path) -> None:
    boot = work / "boot"
    with boot.open("wb") as file:
        file.truncate(BOOT_MIB * MIB)
    (work / "vmlinuz").write_bytes(kernel.read_bytes())
    (work / "initrd").write_bytes(_initramfs(kernel.name.removeprefix("vmlinuz-")))
    (work / "syslinux.cfg").write_text(f"DEFAULT l\nLABEL l\nKERNEL vmlinuz\nINITRD initrd\nAPPEND {KERNEL_LINE}\n")
    programs = {name: str(shutil.which(name, path=SEARCH)) for name in PACKAGES}
    for command in (
        [programs["mkfs.fat"], "-F", "16", "-h", str(MIB // SECTOR), boot],
        [programs["mcopy"], "-i", boot, *(work / name for name in ("vmlinuz", "initrd", "syslinux.cfg")), "::"],
        [programs["syslinux"], "--install", boot],
    ):
        subprocess.run(command, check=True, capture_output=True)


def _initramfs(release: str) -> bytes:
    files = {"init": (INITRAMFS.encode(), 0o755), "bin/busybox": (Path(tool("busybox")).read_bytes(), 0o755)}
    for number, module in enumerate(qemu_system.modules(release, MODULES)):
        files[f"modules/{number:02}-{module.name}"] = (module.read_bytes(), 0o644)
    return cpio(files, ("proc", "dev", "root"))


def _boot_record(*partitions: tuple[int, int, int, bool]) -> bytes:
    """The first sector: the boot code, and (offset, bytes, type, bootable) of each partition."""
    entries = [
        struct.pack(
            "<B3sB3sII", 0x80 * bootable, b"\xfe\xff\xff", kind, b"\xfe\xff\xff", start // SECTOR, size // SECTOR
        )
        for start, size, kind, bootable in partitions
    ]
    return MBR.read_bytes()[:440].ljust(446, b"\0") + b"".join(entries).ljust(64, b"\0") + b"\x55\xaa"
