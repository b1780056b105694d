"""Machines as virtual machines of QEMU, in software unless acceleration is asked for.

The same *bundles* that run as confined processes (:mod:`vendor_modules.testbed.runtimes.embedded`) boot here: a
machine's own disk is an ext4 image of the bundle's content, and :mod:`vendor_modules.testbed.runtimes.qemu_system`
lends it a kernel, an init and Python. RAW and QCOW2 images bring their own system and boot loader; their service is
expected at TCP port 8080 of the address that DHCP gives them.

*Network.* QEMU's user-mode network: no root and no bridge. The host's port leads to the guest's 8080. Programs are
configured with URLs on 127.0.0.1, where this desktop's clouds answer, so in a guest the route of 127.0.0.0/8 leads out
of its network card, and QEMU connects to that address and port of the host: no URL is rewritten and no list of ports is
kept. A guest reaches what any process of the user reaches, as the embedded runtime's machines do (QEMU's ``restrict``
would cut it off from the object store); nobody reaches it but through its one port.

*Confinement.* QEMU itself runs under the embedded runtime's launcher: it sees its own files only, listens at its own
port only, and ends with the cloud. Nothing that a guest has written is parsed outside of that confinement.

A guest's directory holds its disk (``bundle.ext4``, ``disk.raw`` or ``disk.qcow2``), for a bundle its manifest and
what it boots with, and its console output.
"""

from __future__ import annotations

import asyncio
import json
import re
import shlex
import shutil
import socket
import struct
import tempfile
from asyncio.subprocess import Process
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import ClassVar, Literal

from descriptors.base import MIB
from vendor_modules.resources import DiskFormat, UserData
from vendor_modules.testbed.files import copy_sparsely, in_thread
from vendor_modules.testbed.runtimes import archive, shared
from vendor_modules.testbed.runtimes.base import Ended, Guest, GuestFailed
from vendor_modules.testbed.runtimes.embedded import INSTALL_SECONDS, START_MOMENT, Embedded
from vendor_modules.testbed.runtimes.qemu_system import System, cpio, make_ext4, prepare, tool

Acceleration = Literal["tcg", "kvm"]

LEAST_MEMORY_MIB = 192
SPARE = 512 * MIB
"""Free space on a bundle's disk, besides its content."""
OWN_MEMORY_MIB = 1024
"""What QEMU may use besides the guest's memory."""
BOOT_SECONDS = 120.0
UP_SECONDS = 120.0
FORCED_SECONDS = 2.0
"""That QEMU may take to write out its caches when it is made to end."""
KERNEL_LINE = "console=ttyS0 quiet panic=-1 mitigations=off no_timer_check tsc=reliable random.trust_cpu=on"
HARMLESS = re.compile(r"^debugfs \d|while changing ownership of")
"""What debugfs says when all is well: its version, and that files of the guest's users become the cloud's."""
DISKS = {DiskFormat.BUNDLE: "bundle.ext4", DiskFormat.RAW: "disk.raw", DiskFormat.QCOW2: "disk.qcow2"}


@dataclass
class _Running:
    process: Process
    control: socket.socket
    """QEMU's monitor (QMP): a socket pair, so that there is no path to choose and nobody else can connect."""
    events: asyncio.StreamReader
    """What the guest's init says."""
    events_writer: asyncio.StreamWriter
    output: asyncio.Task[None]
    watch: asyncio.Task[None] | None = None

    async def over(self) -> int:
        """Wait for the end of QEMU and let go of what leads to it; returns its exit status."""
        status = await self.process.wait()
        await self.output
        self.control.close()
        self.events_writer.close()
        return status


class Qemu:
    """The runtime whose machines are virtual; create it with :meth:`probe`."""

    name: ClassVar[str] = "qemu"
    formats: ClassVar[frozenset[DiskFormat]] = frozenset(DISKS)

    def __init__(self, system: System, acceleration: Acceleration, confinement: str) -> None:
        self._system = system
        self._acceleration = acceleration
        self._confinement = confinement
        self._running: dict[str, _Running] = {}

    @classmethod
    async def probe(cls, folder: Path, acceleration: Acceleration = "tcg") -> Qemu:
        """The runtime; what all of its machines boot with is kept in ``folder``.

        Raises :class:`~vendor_modules.testbed.runtimes.qemu_system.MissingPackages`, with their names.
        """
        system = await in_thread(prepare, folder)
        return cls(system, acceleration, (await Embedded.probe()).confinement)

    @property
    def confinement(self) -> str:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return f"{self._confinement}, in a virtual machine ({self._acceleration})"

    async def create(self, guest: Guest, image: Path, format: DiskFormat, user_data: UserData | None) -> None:  # noqa: A002
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        make = _create_from_bundle if format is DiskFormat.BUNDLE else _create_from_disk
        try:
            await in_thread(make, guest, image, format, user_data)
        except (OSError, ValueError) as error:
            raise GuestFailed(str(error)) from error

    async def start(self, guest: Guest, ended: Ended) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        console = shared.Console(guest)
        console.write(f"[testbed] starting, {self.confinement}\n".encode())
        await shared.wait_for_free_port(guest.port)
        try:
            running = self._running[guest.id] = await self._spawn(guest, console)
            try:
                await self._boot(guest, running, console)
            except BaseException:
                await self.stop(guest, 0)
                raise
        except OSError as error:
            raise GuestFailed(f"the virtual machine cannot be started: {error}") from error
        running.watch = asyncio.create_task(self._watch(guest, running, console, ended))

    async def stop(self, guest: Guest, grace: float) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        if not (running := self._running.pop(guest.id, None)):
            return
        with suppress(OSError, TimeoutError):
            running.control.send(b'{"execute": "qmp_capabilities"} {"execute": "system_powerdown"}')
            await asyncio.wait_for(running.process.wait(), grace)
        await shared.end(running.process, FORCED_SECONDS if grace else 0)
        if running.watch:
            await running.watch
        else:
            await running.over()

    def running(self, guest: Guest) -> bool:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return guest.id in self._running

    async def bundle(self, guest: Guest, into: Path) -> DiskFormat:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        format_, disk = _disk(guest)
        if format_ is not DiskFormat.BUNDLE:
            await in_thread(copy_sparsely, disk, into, disk.stat().st_size)
            return format_
        with tempfile.TemporaryDirectory(dir=guest.directory) as name:
            content = Path(name)
            await _content(guest, disk, content)
            leave_out = frozenset({"tmp", "lost+found", *guest.devices})
            await in_thread(archive.pack, content, into, shared.manifest_of(guest), leave_out)
        return format_

    async def console(self, guest: Guest) -> str:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`."""
        return shared.Console(guest).tail()

    async def remove(self, guest: Guest) -> None:
        """See :class:`~vendor_modules.testbed.runtimes.base.Runtime`; all is in the directory."""

    # --- the virtual machine ---

    async def _spawn(self, guest: Guest, console: shared.Console) -> _Running:
        boot = await in_thread(_boot_archive, guest, self._system) if _is_bundle(guest) else None
        control, control_theirs = socket.socketpair()
        events, events_theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=events)
        with control_theirs, events_theirs:
            ends = (control_theirs.fileno(), events_theirs.fileno())
            command = [tool("qemu-system-x86_64"), *self._arguments(guest, boot, *ends)]
            kvm = [Path("/dev/kvm")] if self._acceleration == "kvm" else []
            process = await shared.spawn(
                guest,
                command,
                directory=guest.directory,
                read=[self._system.kernel, self._system.disk],
                write=[guest.directory, *guest.devices.values(), *kvm],
                memory_mib=_memory(guest) + OWN_MEMORY_MIB,
                pass_fds=ends,
            )
        return _Running(process, control, reader, writer, asyncio.create_task(shared.drain(process, console)))

    def _arguments(self, guest: Guest, boot: Path | None, control: int, events: int) -> list[str]:
        accelerated = self._acceleration == "kvm"
        arguments = [
            *("-nodefaults", "-no-user-config", "-display", "none", "-machine", "q35"),
            *("-accel", "kvm" if accelerated else "tcg,tb-size=128", "-cpu", "host" if accelerated else "max"),
            *("-m", str(_memory(guest)), "-smp", str(guest.cores), "-sandbox", "on,spawn=deny,elevateprivileges=deny"),
            *("-chardev", "stdio,id=console,signal=off", "-serial", "chardev:console"),
            *("-chardev", f"socket,id=events,fd={events}", "-serial", "chardev:events"),
            *("-chardev", f"socket,id=control,fd={control}", "-mon", "chardev=control,mode=control"),
            *("-netdev", f"user,id=net,hostfwd=tcp:127.0.0.1:{guest.port}-:8080"),
            *("-device", "virtio-net-pci,netdev=net,romfile="),
        ]
        format_, disk = _disk(guest)
        arguments += _drive("app", disk, "qcow2" if format_ is DiskFormat.QCOW2 else "raw")
        for serial, device in _volumes(guest):
            arguments += _drive(serial, guest.devices[device], "raw")
        if boot:
            arguments += _drive("system", self._system.disk, "raw", read_only=True)
            arguments += ["-kernel", str(self._system.kernel), "-initrd", str(boot), "-append", KERNEL_LINE]
            arguments += ["-no-reboot"]  # a kernel that panics ends
        return arguments

    async def _boot(self, guest: Guest, running: _Running, console: shared.Console) -> None:
        """Wait until the machine is up; raises :class:`GuestFailed`."""
        if not _is_bundle(guest):  # it has a system of its own, which says nothing
            await asyncio.sleep(START_MOMENT)
            if running.process.returncode is not None:
                raise GuestFailed(f"the virtual machine ended at once: {console.last_lines()}")
            return
        seconds, state = BOOT_SECONDS, "started"
        while True:
            try:
                async with asyncio.timeout(seconds):
                    event, text = await _event(running)
            except TimeoutError:
                raise GuestFailed(f"the machine is still no more than {state} after {seconds:g} s") from None
            if event == "up":
                return
            if event == "booted":
                seconds = INSTALL_SECONDS
            elif event == "installed":
                seconds = UP_SECONDS
                shared.save_manifest(guest, shared.manifest_of(guest).model_copy(update={"installed": True}))
            else:
                await running.output
                raise GuestFailed(f"{_problem(event, text)}: {console.last_lines()}")
            state = event

    async def _watch(self, guest: Guest, running: _Running, console: shared.Console, ended: Ended) -> None:
        """When a machine that was up has ended by itself, say so."""
        event, text = await _event(running)
        status = await running.over()
        console.write(f"[testbed] ended {text or status}\n".encode())
        if self._running.get(guest.id) is not running:
            return
        del self._running[guest.id]
        fine = (event, text) == ("ended", "0") if _is_bundle(guest) else status == 0
        ended(None if fine else f"{_problem(event, text)}: {console.last_lines()}")


async def _content(guest: Guest, disk: Path, into: Path) -> None:
    """Read the content of a bundle's disk, on which the guest may have written anything."""
    # Recovers what a guest that was cut off has left, and mends names that would lead astray.
    status, output = await _read_disk(guest, into, "e2fsck", "-f", "-y", str(disk))
    if status not in (0, 1):
        raise OSError(f"the machine's disk is broken: {output[-500:]}")
    status, output = await _read_disk(guest, into, "debugfs", "-R", "rdump / .", str(disk))
    problems = [line for line in output.splitlines() if not HARMLESS.search(line)]
    if status or problems:
        raise OSError(f"the machine's disk cannot be read: {problems[:3]}")


async def _read_disk(guest: Guest, folder: Path, program: str, *arguments: str) -> tuple[int | None, str]:
    """Run one of e2fsprogs on a guest's disk; gives its exit status and output."""
    process = await shared.spawn(
        guest, [tool(program), *arguments], directory=folder, write=[guest.directory], memory_mib=OWN_MEMORY_MIB
    )
    output, _ = await process.communicate()
    return process.returncode, output.decode(errors="replace")


async def _event(running: _Running) -> tuple[str, str]:
    """The next thing that the guest's init says; ("", "") when nothing more comes."""
    try:
        event, _, text = (await running.events.readline()).decode(errors="replace").strip().partition(" ")
    except (ValueError, OSError):  # a line longer than any of init's
        return "", ""
    return event, text


def _problem(event: str, text: str) -> str:
    if event == "ended":
        return f"the service ended with exit status {text}"
    return text if event == "failed" else "the virtual machine ended"


def _memory(guest: Guest) -> int:
    return max(guest.memory_mib, LEAST_MEMORY_MIB)


def _drive(serial: str, file: Path, driver: str, *, read_only: bool = False) -> list[str]:
    block = {
        "driver": driver,
        "node-name": serial,
        "read-only": read_only,
        "file": {"driver": "file", "filename": str(file)},
    }
    return ["-blockdev", json.dumps(block), "-device", f"virtio-blk-pci,drive={serial},serial={serial}"]


def _volumes(guest: Guest) -> list[tuple[str, str]]:
    """The serial numbers of the volumes' drives, and the devices that they are."""
    return [(f"volume{number}", device) for number, device in enumerate(sorted(guest.devices))]


# --- the guest's directory ---


def _disk(guest: Guest) -> tuple[DiskFormat, Path]:
    for format_, name in DISKS.items():
        if (guest.directory / name).exists():
            return format_, guest.directory / name
    raise FileNotFoundError(f"machine {guest.id} has no disk")


def _is_bundle(guest: Guest) -> bool:
    """Whether our init runs in the guest, or a system of its own."""
    return _disk(guest)[0] is DiskFormat.BUNDLE


def _create_from_bundle(guest: Guest, image: Path, format_: DiskFormat, user_data: UserData | None) -> None:
    root = shared.unpack(guest, image, user_data)
    make_ext4(root, guest.directory / DISKS[format_], spare=SPARE)
    shutil.rmtree(root)


def _create_from_disk(guest: Guest, image: Path, format_: DiskFormat, user_data: UserData | None) -> None:
    if user_data and user_data != UserData():
        raise ValueError("a RAW or QCOW2 image brings its own system: files and commands can be put into bundles only")
    if format_ is DiskFormat.QCOW2:
        _check_qcow2(image)
    copy_sparsely(image, guest.directory / DISKS[format_], image.stat().st_size)


def _check_qcow2(image: Path) -> None:
    """Refuse an image that would have QEMU open another of this computer's files."""
    with image.open("rb") as file:
        head = file.read(80).ljust(80, b"\0")
    magic, version, backing = struct.unpack_from(">4sIQ", head)
    external_data = version >= 3 and struct.unpack_from(">Q", head, 72)[0] & 4
    if magic != b"QFI\xfb" or backing or external_data:
        raise ValueError("the image is no QCOW2 that stands alone, without a backing or data file")


def _boot_archive(guest: Guest, system: System) -> Path:
    """The initramfs with what this guest's init is told."""
    manifest = shared.manifest_of(guest)
    volumes = "".join(f"{serial} {device}\n" for serial, device in _volumes(guest))
    files = {"boot/volumes": volumes}
    if not manifest.installed:
        files |= {f"boot/install-{number:04}": _line(line) for number, line in enumerate(manifest.install)}
    if manifest.start is not None:
        files["boot/start"] = _line(manifest.start)
    told = cpio({path: (text.encode(), 0o644) for path, text in files.items()})
    boot = guest.directory / "boot.cpio"
    boot.write_bytes(system.initramfs.read_bytes() + told)
    return boot


def _line(command: str) -> str:
    """The command line for a shell that must change nothing in it."""
    return shlex.join(shlex.split(command))
