"""What the lab needs on this computer: Debian's packages, and OpenStack in a virtual environment of its own, kept
between runs in a cache directory outside the checkout."""

from __future__ import annotations

import fcntl
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from hashlib import sha256
from pathlib import Path

HERE = Path(__file__).parent
REQUIREMENTS = HERE / "requirements.txt"
PYTHON = "/usr/bin/python3"
"""Debian's, because its libvirt bindings (python3-libvirt) are lent to the virtual environment."""
SEARCH = f"{os.environ.get('PATH', '')}:/usr/sbin:/sbin"

PROGRAMS = {
    "mariadbd": "mariadb-server-core",
    "mariadb": "mariadb-client-core",
    "mariadb-dump": "mariadb-client",
    "mariadb-install-db": "mariadb-server-core",
    "/usr/lib/rabbitmq/bin/rabbitmq-server": "rabbitmq-server",
    "libvirtd": "libvirt-daemon",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "genisoimage": "genisoimage",
    "ip": "iproute2",
    "busybox": "busybox-static",
    "cpio": "cpio",
    "syslinux": "syslinux",
    "mcopy": "mtools",
    "mkfs.fat": "dosfstools",
    "sfdisk": "fdisk",
    "mke2fs": "e2fsprogs",
    "depmod": "kmod",
}
FILES = {
    "/usr/lib/python3/dist-packages/libvirt.py": "python3-libvirt",
    "/usr/lib/python3*/ensurepip": "python3-venv",
    "/usr/lib/*/libvirt/connection-driver/libvirt_driver_qemu.so": "libvirt-daemon-driver-qemu",
    "/usr/lib/syslinux/mbr/mbr.bin": "syslinux-common",
    "/boot/vmlinuz-*cloud-amd64": "linux-image-cloud-amd64",
}


def missing() -> str | None:
    """Why the lab cannot run here; None when it can."""
    packages = {package for program, package in PROGRAMS.items() if not shutil.which(program, path=SEARCH)}
    packages |= {package for pattern, package in FILES.items() if not list(Path("/").glob(pattern.lstrip("/")))}
    if packages:
        return f"the OpenStack lab needs Debian packages that are not installed: {' '.join(sorted(packages))}"
    if os.geteuid() != 0:
        return "the OpenStack lab needs root: nova and cinder mount file systems"
    return None


def cache() -> Path:
    """Where tests keep what takes long to make: AGENCY_TEST_CACHE, or the user's cache directory."""
    if given := os.environ.get("AGENCY_TEST_CACHE"):
        return Path(given)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "cloud-agency-tests"


def fingerprint(*files: Path) -> str:
    """Changes when one of the files does."""
    digest = sha256()
    for file in sorted(files):
        digest.update(file.name.encode() + b"\0" + file.read_bytes() + b"\0")
    return digest.hexdigest()[:12]


@contextmanager
def made_once(path: Path) -> Iterator[Path | None]:
    """A place to make ``path`` in, which becomes it when the block ends well; None if it is there already. Another
    process that wants it too waits."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with (path.parent / f".{path.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if path.exists():
            yield None
            return
        part = path.with_name(f"{path.name}.part")
        shutil.rmtree(part, ignore_errors=True)  # what a sudden end has left
        part.unlink(missing_ok=True)
        yield part
        part.rename(path)


def virtual_environment() -> Path:
    """OpenStack's services, installed as pinned: some 180 packages, made the first time in half a minute or so."""
    ready = cache() / f"openstack-{fingerprint(REQUIREMENTS)}"
    with made_once(ready / "installed") as mark:
        if mark:
            shutil.rmtree(ready / "venv", ignore_errors=True)
            _install(ready / "venv")
            mark.touch()
    return ready / "venv"


def _install(venv: Path) -> None:
    """Compiled is only what services import, when they first do: most of OpenStack's code is never used here."""
    pip = [venv / "bin/pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps", "--no-compile"]
    for command in ([PYTHON, "-m", "venv", venv], [*pip, "--requirement", REQUIREMENTS]):
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise RuntimeError(f"{command}: {done.stderr[-2000:]}")
    (site,) = (venv / "lib").glob("python3*/site-packages")
    for module in Path("/usr/lib/python3/dist-packages").glob("libvirt*"):
        if module.suffix in {".py", ".so"}:
            (site / module.name).symlink_to(module)
