"""A libvirt of our own for tests: a real libvirtd with real QEMU guests, all in one temporary folder.

The daemon is an ordinary user's (as root, ``nobody``'s), so that it has its own socket, state and configuration and
nothing of a system's libvirt is touched. Started by root it has process numbers of its own as well: when it ends, so do
its guests, however suddenly the tests were ended. It asks for a password over SASL, as a libvirtd that serves others
does. Its pool ``agency`` holds a disk made on the spot (:mod:`tests.labs.guest`) as the image ``base``.

with start_libvirt() as lab:
    module = LibvirtModule("libvirt", lab.settings, services(lab.credentials))
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path

import pytest

from tests.labs import guest
from vendor_modules.libvirt_qemu.module import LibvirtSettings
from vendor_modules.resources import Size
from vendor_modules.services.credentials import PasswordCredentials

USERNAME, PASSWORD = "owner", "correct horse battery staple"
PROGRAMS = {
    "libvirtd": "libvirt-daemon",
    "qemu-system-x86_64": "qemu-system-x86",
    "qemu-img": "qemu-utils",
    "saslpasswd2": "sasl2-bin",
}
SCRAM = "sasl2/libscram.so"
POOL = "agency"
READY_WITHIN = 60
"""Seconds; the machine that tests run on may be busy with other things."""
REAPER = ("sh", "-c", '"$@" & wait', "sh")
"""The first process of the namespace: QEMU's end is seen only when somebody buries it, which libvirtd does not."""


@dataclass(frozen=True)
class Libvirt:
    """A libvirtd that runs."""

    folder: Path
    uri: str
    settings: LibvirtSettings
    credentials: PasswordCredentials
    process: subprocess.Popen[bytes]

    def log(self) -> str:
        """The daemon's log."""
        return (self.folder / "libvirtd.log").read_text(errors="replace")


def missing() -> str:
    """What to install before the lab can run; empty when all is there."""
    packages = {package for name, package in PROGRAMS.items() if not shutil.which(name, path=guest.SEARCH)}
    if not any(Path(folder, SCRAM).exists() for folder in ("/usr/lib/x86_64-linux-gnu", "/usr/lib64", "/usr/lib")):
        packages.add("libsasl2-modules")
    words = [f"apt-get install {' '.join(sorted(packages))}"] if packages else []
    try:
        guest.check()
    except guest.MissingPackages as error:
        words.append(str(error))
    try:
        import libvirt  # noqa: F401
        import pycdlib  # noqa: F401
    except ImportError:
        words.append("pip install 'cloud-agency[libvirt]' (needs libvirt-dev, pkg-config, gcc)")
    return "; ".join(words)


@contextmanager
def start_libvirt() -> Iterator[Libvirt]:
    """Run a libvirtd until the block ends; its guests end with it. Skips the test where a part is missing."""
    if reason := missing():
        pytest.skip(reason)
    folder = Path(tempfile.mkdtemp(prefix="agency-lv-"))  # short: the paths of Unix sockets are limited
    try:
        _configure(folder)
        guest.make_disk(folder / "pool" / "base")
        owner = _owner()
        for path in (folder, *folder.rglob("*")):
            shutil.chown(path, *owner) if owner else None
        process = _launch(folder, owner)
        try:
            yield _ready(folder, process)
        finally:
            process.kill() if owner else process.terminate()
            process.wait(60)
            _end_guests(folder)
    finally:
        shutil.rmtree(folder)


def _owner() -> tuple[str, str] | None:
    """Whom the daemon runs as; None is ourselves. As root, it would be the system's."""
    return ("nobody", "nogroup") if os.geteuid() == 0 else None


def _configure(folder: Path) -> None:
    folder.chmod(0o755)
    for name in ("home", "run", "config/libvirt/storage/autostart", "cache", "data", "pool", "sasl"):
        (folder / name).mkdir(parents=True)
    (folder / "libvirtd.conf").write_text(
        f'auth_unix_rw = "sasl"\nlog_outputs = "3:file:{folder}/libvirtd.log"\nmax_anonymous_clients = 64\n'
    )
    (folder / "config/libvirt/qemu.conf").write_text('stdio_handler = "file"\nsecurity_driver = "none"\n')
    (folder / "sasl/libvirt.conf").write_text(f"mech_list: scram-sha-256\nsasldb_path: {folder}/sasl/passwords\n")
    command = [shutil.which("saslpasswd2", path=guest.SEARCH), "-p", "-c", "-a", "libvirt"]
    subprocess.run([*command, "-f", folder / "sasl/passwords", USERNAME], input=PASSWORD.encode(), check=True)
    pool = f"<pool type='dir'><name>{POOL}</name><target><path>{folder}/pool</path></target></pool>"
    definition = folder / f"config/libvirt/storage/{POOL}.xml"
    definition.write_text(pool)
    (folder / f"config/libvirt/storage/autostart/{POOL}.xml").symlink_to(definition)


def _launch(folder: Path, owner: tuple[str, str] | None) -> subprocess.Popen[bytes]:
    places = {"HOME": "home", "XDG_RUNTIME_DIR": "run", "XDG_CONFIG_HOME": "config", "XDG_CACHE_HOME": "cache"}
    environment = {name: str(folder / place) for name, place in (places | {"XDG_DATA_HOME": "data"}).items()}
    environment |= {"PATH": guest.SEARCH, "SASL_CONF_PATH": str(folder / "sasl"), "LANG": "C.UTF-8"}
    program = str(shutil.which("libvirtd", path=guest.SEARCH))
    command = [program, "-f", folder / "libvirtd.conf", "-p", folder / "libvirtd.pid"]
    if owner:
        as_user = ["setpriv", f"--reuid={owner[0]}", f"--regid={owner[1]}", "--clear-groups"]
        command = [*guest.APART, *REAPER, *as_user, *command]
    return subprocess.Popen(command, env=environment, cwd=folder, stderr=subprocess.DEVNULL)


def _ready(folder: Path, process: subprocess.Popen[bytes]) -> Libvirt:
    place = folder / "run" / "libvirt" / "libvirt-sock"
    for _ in range(10 * READY_WITHIN):
        if _answers(place):
            break
        assert process.poll() is None, "libvirtd ended at once"
        time.sleep(0.1)
    else:
        raise AssertionError(f"libvirtd does not answer after {READY_WITHIN} s")
    uri = f"qemu+unix:///session?socket={place}"
    sizes = (
        Size(name="small", cores=1, memory_mib=192, price_per_hour=Decimal("0.01")),
        Size(name="medium", cores=2, memory_mib=384, price_per_hour=Decimal("0.02")),
    )
    settings = LibvirtSettings(
        uri=uri, pool=POOL, accelerator="qemu", sizes=sizes, block_gib_month=Decimal("0.1"), stop_grace=15
    )
    return Libvirt(folder, uri, settings, PasswordCredentials(username=USERNAME, password=PASSWORD), process)


def _answers(place: Path) -> bool:
    with socket.socket(socket.AF_UNIX) as trial, suppress(OSError):
        trial.connect(str(place))
        return True
    return False


def _end_guests(folder: Path) -> None:
    """End the guests that tests have left: a session's libvirtd lets them run on."""
    for pid in (folder / "run" / "libvirt" / "qemu" / "run").glob("*.pid"):
        with suppress(OSError, ValueError):
            number = int(pid.read_text())
            if str(folder) in Path(f"/proc/{number}/cmdline").read_text():
                os.kill(number, signal.SIGKILL)
