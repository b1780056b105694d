"""What the runtimes share: a machine's content and manifest, confined processes, and the console."""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from descriptors.base import MIB
from descriptors.machine import MachineManifest
from vendor_modules.resources import UserData
from vendor_modules.testbed.ports import is_free
from vendor_modules.testbed.runtimes import archive, confine
from vendor_modules.testbed.runtimes.base import Guest, GuestFailed

CONSOLE_KEPT = 64 * 1024
CONSOLE_LIMIT = 1024 * 1024
MAX_DISK = 256 * 1024 * MIB
PORT_PATIENCE = 2.0

SYSTEM = (
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys/devices/system/cpu"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/dev/random", "/dev/zero"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/ssl", "/etc/pki"),
    *("/etc/ca-certificates", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf"),
    *("/etc/services", "/etc/protocols", "/etc/gai.conf", "/etc/localtime", "/etc/timezone", "/etc/mime.types"),
    *("/etc/passwd", "/etc/group"),
)
"""What machines may read and execute of this computer, besides the Python they share with the cloud."""


# --- processes ---


async def spawn(
    guest: Guest,
    command: Sequence[str] | None,
    *,
    directory: Path,
    write: Sequence[Path],
    memory_mib: int,
    read: Sequence[Path] = (),
    environment: Mapping[str, str] | None = None,
    pass_fds: Collection[int] = (),
) -> Process:
    """Start a confined process that ends with the cloud, its output on a pipe; without a command, one that waits to be
    ended. It may listen at the guest's port and use its cores."""
    spec = {
        "parent": os.getpid(),
        "command": command,
        "directory": str(directory),
        "read": [*SYSTEM, sys.prefix, sys.base_prefix, *map(str, read)],
        "write": [*map(str, write), "/dev/null", "/dev/urandom"],
        "port": guest.port,
        "cores": guest.cores,
        "memory_bytes": memory_mib * MIB,
    }
    return await asyncio.create_subprocess_exec(
        *launcher(json.dumps(spec)),
        cwd=directory,
        env=environment,
        stdin=DEVNULL,
        stdout=PIPE,
        stderr=STDOUT,
        pass_fds=pass_fds,
    )


def launcher(argument: str) -> list[str]:
    """The command line of :mod:`vendor_modules.testbed.runtimes.confine`."""
    return [sys.executable, "-I", "-S", confine.__file__, argument]


async def drain(process: Process, console: Console) -> None:
    """Keep what the process prints, until nobody is left who could."""
    assert process.stdout  # noqa: S101 - it is started with a pipe
    while chunk := await process.stdout.read(CONSOLE_KEPT):
        console.write(chunk)


async def end(process: Process, grace: float) -> None:
    """SIGTERM, then SIGKILL; with no grace at once SIGKILL. Ended already is fine."""
    with suppress(ProcessLookupError):
        if grace and process.returncode is None:
            process.terminate()
            with suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace)
        if process.returncode is None:
            process.kill()
    await process.wait()


async def wait_for_free_port(port: int) -> None:
    """A service that was killed a moment ago may still hold its port; somebody else's holds it for longer."""
    deadline = asyncio.get_running_loop().time() + PORT_PATIENCE
    while not is_free(port):
        if asyncio.get_running_loop().time() > deadline:
            raise GuestFailed(f"another process of this computer listens on the machine's port {port}")
        await asyncio.sleep(0.05)


# --- a guest's directory ---


def unpack(guest: Guest, image: Path, user_data: UserData | None) -> Path:
    """Unpack the bundle and the user's files below the guest's ``root`` folder, which is returned, and keep the
    manifest that results. Raises ``ValueError`` or ``OSError``."""
    root = guest.directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    manifest = archive.unpack(image, root, MAX_DISK)
    if user_data:
        for path, content in user_data.files.items():
            with archive.parent_of(root, path) as (directory, name), archive.open_new(directory, name, 0o644) as file:
                file.write(content)
        manifest = _merged(manifest, user_data.manifest)
    for command in (*manifest.install, manifest.start or "true"):
        if not shlex.split(command):
            raise ValueError("the manifest holds an empty command")
    save_manifest(guest, manifest)
    return root


def _merged(image: MachineManifest, wanted: MachineManifest) -> MachineManifest:
    """The user's manifest in place of the image's, if it says anything; what the image has installed stays so."""
    if wanted == MachineManifest():
        return image
    installed = wanted.installed or (image.installed and image.install == wanted.install)
    return wanted.model_copy(update={"start": wanted.start or image.start, "installed": installed})


def manifest_of(guest: Guest) -> MachineManifest:
    """The guest's manifest."""
    return MachineManifest.model_validate_json((guest.directory / "manifest.json").read_bytes())


def save_manifest(guest: Guest, manifest: MachineManifest) -> None:
    """Keep the guest's manifest."""
    fresh = guest.directory / "manifest.json.new"
    fresh.write_text(manifest.model_dump_json())
    fresh.replace(guest.directory / "manifest.json")


class Console:
    """What a guest prints, kept within bounds."""

    def __init__(self, guest: Guest) -> None:
        self._path = guest.directory / "console.log"

    def write(self, chunk: bytes) -> None:
        """Add to it."""
        with self._path.open("ab") as file:
            file.write(chunk)
            full = file.tell() > CONSOLE_LIMIT
        if full:
            self._path.write_text(self.tail())

    def tail(self, size: int = CONSOLE_KEPT) -> str:
        """The last ``size`` bytes, readable."""
        if not self._path.exists():
            return ""
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - size))
            return file.read().decode(errors="replace")

    def last_lines(self) -> str:
        """What it said last, for a message about its end."""
        lines = [line for line in self.tail(2000).splitlines() if not line.startswith("[testbed]")]
        return "\n".join(lines[-8:]) or "it printed nothing"
