"""What the cloud asks of whatever runs its machines: small enough that processes, QEMU and others fit.

The cloud keeps the records, the ports, the volumes and the images; a runtime keeps what is in a guest's directory and
the process that runs from it. All calls for one guest are made one after the other, from the cloud's event loop; a
runtime does long file work in threads.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import ClassVar, Protocol

from vendor_modules.resources import DiskFormat, UserData

Ended = Callable[[str | None], None]
"""Called once, on the event loop, when a started guest ends without having been stopped: with None if it ended well,
with the problem otherwise."""


@dataclass(frozen=True)
class Guest:
    """One machine as its runtime sees it. It survives restarts of the cloud with the same id, directory and port."""

    id: str
    directory: Path
    """The machine's own folder: exists, empty before :meth:`Runtime.create`; nobody else writes there."""
    port: int
    """The TCP port on 127.0.0.1 at which the machine's service must be reachable."""
    cores: int
    memory_mib: int
    devices: Mapping[str, Path] = field(default_factory=dict)
    """The attached volumes: device path (as the machine names it, relative, such as ``dev/vdb``) to the raw file."""
    public_key: str | None = None
    """The OpenSSH public key of the machine's key pair, for runtimes whose machines can be logged in to."""


class GuestFailed(Exception):
    """The guest could not be made or started; the message says why, in words for the machine's ``problem``."""


class Runtime(Protocol):
    """How machines are made, started and stopped."""

    name: ClassVar[str]
    formats: ClassVar[frozenset[DiskFormat]]
    """The image formats that it can make machines from."""

    @property
    def confinement(self) -> str:
        """What keeps a guest inside its machine, in words; begins with ``not confined`` where nothing does."""

    async def create(self, guest: Guest, image: Path, format: DiskFormat, user_data: UserData | None) -> None:  # noqa: A002
        """Make the machine's own disk from the image, and note what its first boot needs from the user data.

        A create that a crash interrupted is called again on an empty directory. Raises :class:`GuestFailed`.
        """

    async def start(self, guest: Guest, ended: Ended) -> None:
        """Boot; at the first boot, run the manifest's install commands before. Returns when the machine is up: its
        process runs, and its port accepts or a short moment has passed. Raises :class:`GuestFailed`."""

    async def stop(self, guest: Guest, grace: float) -> None:
        """Ask the guest to end, and after ``grace`` seconds make it. Not running is fine; ``ended`` is not called."""

    def running(self, guest: Guest) -> bool:
        """Whether the guest's process is alive."""

    async def bundle(self, guest: Guest, into: Path) -> DiskFormat:
        """Write an image of the stopped guest's own disk, without its volumes, to the file; returns its format."""

    async def console(self, guest: Guest) -> str:
        """The last 64 KiB or so that the guest printed, of all its boots."""

    async def remove(self, guest: Guest) -> None:
        """Remove what the stopped guest has outside its directory; the cloud removes the directory itself."""
