"""Machines as confined processes of this computer: a machine's disk is a directory, its image a *bundle*.

A guest's directory holds ``root`` (all that the machine itself can write), its manifest and its console output.
"""

from __future__ import annotations

import asyncio
import json
import os
import shlex
import sys
from asyncio.subprocess import PIPE, Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar

from vendor_modules.resources import DiskFormat, UserData
from vendor_modules.testbed.files import in_thread
from vendor_modules.testbed.ports import accepts
from vendor_modules.testbed.runtimes import archive, shared
from vendor_modules.testbed.runtimes.base import Ended, Guest, GuestFailed

LEAST_MEMORY_MIB = 256
"""An interpreter and its threads' stacks need so much address space, however small the machine is sold."""
INSTALL_SECONDS = 900.0
START_MOMENT = 1.5
"""Seconds that a service may take to open its port; one that is still alive then is taken to be up without it."""


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
        process = await asyncio.create_subprocess_exec(*shared.launcher("probe"), stdout=PIPE)
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
            await in_thread(shared.unpack, guest, image, user_data)
        except (OSError, ValueError) as error:
            raise GuestFailed(str(error)) from error

    async def start(self, guest: Guest, ended: Ended) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        console = shared.Console(guest)
        console.write(f"[testbed] starting, {self.confinement}\n".encode())
        await shared.wait_for_free_port(guest.port)
        try:
            _link_devices(guest)
            manifest = shared.manifest_of(guest)
            if not manifest.installed:
                for command in manifest.install:
                    await self._install(guest, command, console)
                shared.save_manifest(guest, manifest.model_copy(update={"installed": True}))
            await self._serve(guest, manifest.start, console, ended)
        except OSError as error:
            raise GuestFailed(f"the machine's directory cannot be readied: {error}") from error

    async def stop(self, guest: Guest, grace: float) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        if running := self._running.pop(guest.id, None):
            await shared.end(running.process, grace)
            if running.watch:
                await running.watch
        _unlink_devices(guest)

    def running(self, guest: Guest) -> bool:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return guest.id in self._running

    async def bundle(self, guest: Guest, into: Path) -> DiskFormat:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        leave_out = frozenset({"tmp", *guest.devices})
        await in_thread(archive.pack, guest.directory / "root", into, shared.manifest_of(guest), leave_out)
        return DiskFormat.BUNDLE

    async def console(self, guest: Guest) -> str:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return shared.Console(guest).tail()

    async def remove(self, guest: Guest) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`; all is in the directory."""

    # --- processes ---

    async def _install(self, guest: Guest, command: str, console: shared.Console) -> None:
        process = await self._spawn(guest, command)
        try:
            async with asyncio.timeout(INSTALL_SECONDS):
                await shared.drain(process, console)
                status = await process.wait()
        except TimeoutError:
            raise GuestFailed(f"install command {command!r} did not end within {INSTALL_SECONDS:g} s") from None
        finally:
            await shared.end(process, 0)
        if status:
            raise GuestFailed(f"install command {command!r} ended with exit status {status}: {console.last_lines()}")

    async def _serve(self, guest: Guest, command: str | None, console: shared.Console, ended: Ended) -> None:
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

    async def _watch(self, guest: Guest, running: _Running, console: shared.Console, ended: Ended) -> None:
        """Keep the console and, when a service that was up has ended by itself, say so."""
        await shared.drain(running.process, console)
        status = await running.process.wait()
        console.write(f"[testbed] ended with exit status {status}\n".encode())
        if running.up and self._running.get(guest.id) is running:
            del self._running[guest.id]
            ended(None if status == 0 else _how_it_ended(status, console))

    async def _spawn(self, guest: Guest, command: str | None) -> Process:
        root = guest.directory / "root"
        (root / "tmp").mkdir(exist_ok=True)
        return await shared.spawn(
            guest,
            None if command is None else shlex.split(command),
            directory=root,
            write=[root, *guest.devices.values()],
            memory_mib=max(guest.memory_mib, LEAST_MEMORY_MIB),
            environment={
                "PATH": f"{Path(sys.executable).parent}:/usr/local/bin:/usr/bin:/bin",
                "HOME": str(root),
                "TMPDIR": str(root / "tmp"),
                "HOST": "127.0.0.1",
                "PORT": str(guest.port),
                "LANG": "C.UTF-8",
            },
        )


def _how_it_ended(status: int, console: shared.Console) -> str:
    return f"the service ended with exit status {status}: {console.last_lines()}"


def _link_devices(guest: Guest) -> None:
    for device, file in guest.devices.items():
        with archive.parent_of(guest.directory / "root", device) as (directory, name):
            archive.remove_entry(directory, name)
            os.symlink(file, name, dir_fd=directory)


def _unlink_devices(guest: Guest) -> None:
    for device in guest.devices:
        with suppress(OSError), archive.parent_of(guest.directory / "root", device) as (directory, name):
            archive.remove_entry(directory, name)
