"""Machines as confined processes of this computer: a machine's disk is a directory, its image a *bundle*.

A guest's directory holds ``root`` (all that the machine itself can write), its manifest and its console output.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import shutil
import sys
from asyncio.subprocess import DEVNULL, PIPE, STDOUT, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from descriptors.base import MIB
from descriptors.machine import MachineManifest
from vendor_modules.resources import DiskFormat, UserData
from vendor_modules.testbed.files import in_thread
from vendor_modules.testbed.ports import accepts
from vendor_modules.testbed.runtimes import archive, confine
from vendor_modules.testbed.runtimes.base import Ended, Guest, GuestFailed

CONSOLE_KEPT = 64 * 1024
CONSOLE_LIMIT = 1024 * 1024
LEAST_MEMORY_MIB = 256
"""An interpreter and its threads' stacks need so much address space, however small the machine is sold."""
MAX_DISK = 256 * 1024 * MIB
INSTALL_SECONDS = 900.0
START_MOMENT = 1.0
"""Seconds that a service may take to open its port; one that is still alive then is taken to be up without it."""
PORT_PATIENCE = 5.0

SYSTEM = [
    *("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/sys/devices/system/cpu"),
    *("/proc/cpuinfo", "/proc/meminfo", "/proc/stat", "/proc/loadavg", "/proc/uptime", "/dev/random", "/dev/zero"),
    *("/etc/ld.so.cache", "/etc/ld.so.conf", "/etc/ld.so.conf.d", "/etc/alternatives", "/etc/ssl", "/etc/pki"),
    *("/etc/ca-certificates", "/etc/hosts", "/etc/host.conf", "/etc/resolv.conf", "/etc/nsswitch.conf"),
    *("/etc/services", "/etc/protocols", "/etc/gai.conf", "/etc/localtime", "/etc/timezone", "/etc/mime.types"),
    *("/etc/passwd", "/etc/group"),
]
"""What machines may read and execute of this computer, besides the Python they share with the cloud."""


@dataclass
class _Running:
    process: Process
    up: bool = False
    watch: asyncio.Task[None] | None = None


class Embedded:
    """The runtime that needs nothing but this computer's kernel; create it with :meth:`probe`."""

    name: ClassVar[str] = "embedded"
    formats: ClassVar[frozenset[DiskFormat]] = frozenset({DiskFormat.BUNDLE})

    def __init__(self, landlock_abi: int, pid_namespace: bool) -> None:
        self._landlock_abi = landlock_abi
        self._pid_namespace = pid_namespace
        self._running: dict[str, _Running] = {}

    @classmethod
    async def probe(cls) -> Embedded:
        """The runtime, knowing what this kernel can do."""
        process = await asyncio.create_subprocess_exec(*launcher("probe"), stdout=PIPE)
        answer = json.loads((await process.communicate())[0])
        return cls(answer["landlock"], answer["pid_namespace"])

    @property
    def confinement(self) -> str:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        namespace = "a PID namespace" if self._pid_namespace else "no PID namespace"
        if not self._landlock_abi:
            return f"not confined: this kernel has no Landlock; {namespace}"
        ports = "" if self._landlock_abi >= 4 else "; its ports are not confined"
        return f"confined by Landlock (ABI {self._landlock_abi}) and {namespace}{ports}"

    async def create(self, guest: Guest, image: Path, format: DiskFormat, user_data: UserData | None) -> None:  # noqa: A002
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        if format not in self.formats:
            raise GuestFailed(f"the {self.name} runtime starts machines from bundles, not from {format} images")
        try:
            await in_thread(unpack, guest, image, user_data)
        except (OSError, ValueError) as error:
            raise GuestFailed(str(error)) from error

    async def start(self, guest: Guest, ended: Ended) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        console = Console(guest.directory / "console.log")
        console.write(f"[testbed] starting, {self.confinement}\n".encode())
        await wait_for_free_port(guest.port)
        try:
            _link_devices(guest)
            orders = manifest(guest)
            if not orders.installed:
                for command in orders.install:
                    await self._install(guest, command, console)
                save_manifest(guest, orders.model_copy(update={"installed": True}))
            await self._serve(guest, orders.start, console, ended)
        except OSError as error:
            raise GuestFailed(f"the machine's directory cannot be readied: {error}") from error

    async def stop(self, guest: Guest, grace: float) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        if running := self._running.pop(guest.id, None):
            await end(running.process, grace)
            if running.watch:
                await running.watch
        _unlink_devices(guest)

    def running(self, guest: Guest) -> bool:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return guest.id in self._running

    async def bundle(self, guest: Guest, into: Path) -> DiskFormat:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        leave_out = frozenset({"tmp", *guest.devices})
        await in_thread(archive.pack, guest.directory / "root", into, manifest(guest), leave_out)
        return DiskFormat.BUNDLE

    async def console(self, guest: Guest) -> str:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return Console(guest.directory / "console.log").tail(CONSOLE_KEPT)

    async def remove(self, guest: Guest) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`; all is in the directory."""

    # --- processes ---

    async def _install(self, guest: Guest, command: str, console: Console) -> None:
        process = await self._spawn(guest, command)
        try:
            async with asyncio.timeout(INSTALL_SECONDS):
                await drain(process, console)
                status = await process.wait()
        except TimeoutError:
            raise GuestFailed(f"install command {command!r} did not end within {INSTALL_SECONDS:g} s") from None
        finally:
            await end(process, 0)
        if status:
            raise GuestFailed(f"install command {command!r} ended with exit status {status}: {console.last_lines()}")

    async def _serve(self, guest: Guest, command: str | None, console: Console, ended: Ended) -> None:
        process = await self._spawn(guest, command)
        running = self._running[guest.id] = _Running(process)
        running.watch = asyncio.create_task(self._watch(guest, running, console, ended))
        loop = asyncio.get_running_loop()
        deadline = loop.time() + START_MOMENT
        while command and not running.watch.done() and loop.time() < deadline:
            if await accepts(guest.port):
                break
            await asyncio.sleep(0.02)
        if process.returncode is not None:
            del self._running[guest.id]
            await running.watch
            raise GuestFailed(_how_it_ended(process.returncode, console))
        running.up = True

    async def _watch(self, guest: Guest, running: _Running, console: Console, ended: Ended) -> None:
        """Keep the console and, when a service that was up has ended by itself, say so."""
        await drain(running.process, console)
        status = await running.process.wait()
        console.write(f"[testbed] ended with exit status {status}\n".encode())
        if running.up and self._running.get(guest.id) is running:
            del self._running[guest.id]
            ended(None if status == 0 else _how_it_ended(status, console))

    async def _spawn(self, guest: Guest, command: str | None) -> Process:
        root = guest.directory / "root"
        (root / "tmp").mkdir(exist_ok=True)
        words = None if command is None else shlex.split(command)
        spec = {
            "parent": os.getpid(),
            "command": words,
            "directory": str(root),
            "read": [*SYSTEM, sys.prefix, sys.base_prefix],
            "write": [str(root), *map(str, guest.devices.values()), "/dev/null", "/dev/urandom"],
            "port": guest.port,
            "cores": guest.cores,
            "memory_bytes": max(guest.memory_mib, LEAST_MEMORY_MIB) * MIB,
        }
        return await asyncio.create_subprocess_exec(
            *launcher(json.dumps(spec)), cwd=root, env=_environment(guest), stdin=DEVNULL, stdout=PIPE, stderr=STDOUT
        )


def launcher(argument: str) -> list[str]:
    """The command that starts a confined process: :mod:`~vendor_modules.testbed.runtimes.confine`."""
    return [sys.executable, "-I", "-S", confine.__file__, argument]


def _environment(guest: Guest) -> dict[str, str]:
    root = guest.directory / "root"
    return {
        "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
        "HOME": str(root),
        "TMPDIR": str(root / "tmp"),
        "HOST": "127.0.0.1",
        "PORT": str(guest.port),
        "LANG": "C.UTF-8",
    }


def _how_it_ended(status: int, console: Console) -> str:
    return f"the service ended with exit status {status}: {console.last_lines()}"


async def drain(process: Process, console: Console) -> None:
    """Write to the console what the process prints, until it closes its output."""
    assert process.stdout  # noqa: S101 - it is started with a pipe
    while chunk := await process.stdout.read(CONSOLE_KEPT):
        console.write(chunk)


async def end(process: Process, grace: float) -> None:
    """End a process: SIGTERM, then SIGKILL; with no grace at once SIGKILL. Ended already is fine."""
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
    while await accepts(port):
        if asyncio.get_running_loop().time() > deadline:
            raise GuestFailed(f"another process of this computer listens on the machine's port {port}")
        await asyncio.sleep(0.05)


# --- the guest's directory ---


def unpack(guest: Guest, image: Path, user_data: UserData | None) -> None:
    """Make ``root`` from a bundle and the user data, and keep the manifest. Raises ``OSError`` and ``ValueError``."""
    root = guest.directory / "root"
    shutil.rmtree(root, ignore_errors=True)
    root.mkdir()
    orders = archive.unpack(image, root, MAX_DISK)
    if user_data:
        for path, content in user_data.files.items():
            with archive.parent_of(root, path) as (directory, name), archive.open_new(directory, name, 0o644) as file:
                file.write(content)
        orders = _merged(orders, user_data.manifest)
    for command in (*orders.install, orders.start or "true"):
        if not shlex.split(command):
            raise ValueError("the manifest holds an empty command")
    save_manifest(guest, orders)


def _merged(image: MachineManifest, wanted: MachineManifest) -> MachineManifest:
    """The user's manifest in place of the image's, if it says anything; what the image has installed stays so."""
    if wanted == MachineManifest():
        return image
    installed = wanted.installed or (image.installed and image.install == wanted.install)
    return wanted.model_copy(update={"start": wanted.start or image.start, "installed": installed})


def manifest(guest: Guest) -> MachineManifest:
    """What the guest's machine runs."""
    return MachineManifest.model_validate_json((guest.directory / "manifest.json").read_bytes())


def save_manifest(guest: Guest, orders: MachineManifest) -> None:
    """Keep what the guest's machine runs."""
    fresh = guest.directory / "manifest.json.new"
    fresh.write_text(orders.model_dump_json())
    fresh.replace(guest.directory / "manifest.json")


def _link_devices(guest: Guest) -> None:
    for device, file in guest.devices.items():
        with archive.parent_of(guest.directory / "root", device) as (directory, name):
            archive.remove_entry(directory, name)
            os.symlink(file, name, dir_fd=directory)


def _unlink_devices(guest: Guest) -> None:
    for device in guest.devices:
        with suppress(OSError), archive.parent_of(guest.directory / "root", device) as (directory, name):
            archive.remove_entry(directory, name)


class Console:
    """What a guest prints, kept within bounds."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def write(self, chunk: bytes) -> None:
        """Add what was printed."""
        with self._path.open("ab") as file:
            file.write(chunk)
            full = file.tell() > CONSOLE_LIMIT
        if full:
            self._path.write_text(self.tail(CONSOLE_KEPT))

    def tail(self, size: int) -> str:
        """The last ``size`` bytes, readable."""
        if not self._path.exists():
            return ""
        with self._path.open("rb") as file:
            file.seek(max(0, self._path.stat().st_size - size))
            return file.read().decode(errors="replace")

    def last_lines(self) -> str:
        """What the guest said before it ended, for the words of a problem."""
        lines = [line for line in self.tail(2000).splitlines() if not line.startswith("[testbed]")]
        return "\n".join(lines[-8:]) or "it printed nothing"
