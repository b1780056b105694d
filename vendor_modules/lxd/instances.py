"""Machines as LXD containers: their configuration, and what is done with them. Every function here blocks."""

from __future__ import annotations

import random
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from vendor_modules.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, VendorError
from vendor_modules.lxd.connection import Server
from vendor_modules.lxd.errors import translate
from vendor_modules.lxd.volumes import FILE, NOTES, digest_of
from vendor_modules.resources import Status
from vendor_modules.userdata import HOME, PORT

SERVICE = "cloud-agency"
"""The proxy device that leads from the server's port to the machine's service."""
MOUNTS = "/var/lib/cloud-agency"
DEVICE = "user.cloud-agency-device."
"""Before a volume's id: the configuration key that holds the device that it is."""
STATUSES = {
    "Running": Status.ACTIVE,
    "Ready": Status.ACTIVE,
    "Stopped": Status.STOPPED,
    "Error": Status.ERROR,
}
"""Other states are on the way to one of these, or *frozen*: neither of use nor at rest."""


class Notes(BaseModel):
    """What the configuration of a machine of ours says. ``made`` is set when it first started."""

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    size: str
    image: str
    port: int
    made: bool = False


@dataclass(frozen=True)
class Instance:
    """A container as LXD tells it."""

    name: str
    status: str
    config: dict[str, str]
    devices: dict[str, dict[str, str]]
    """Its own and those of its profiles."""

    @property
    def notes(self) -> Notes | None:
        """Our notes; None for one that was not made by the agency."""
        try:
            return Notes.model_validate_json(self.config.get(NOTES, ""))
        except ValidationError:
            return None

    def volumes(self) -> dict[str, str]:
        """The volumes attached, each with the device that it is."""
        return {name: self.config.get(DEVICE + name, "") for name in self.devices if name.startswith("volume-")}


@contextmanager
def translated() -> Iterator[None]:
    """The libraries' errors as ours."""
    try:
        yield
    except Exception as error:
        if isinstance(error, VendorError) or (ours := translate(error)) is None:
            raise
        raise ours from error


def name_for(key: str) -> str:
    """The container's name, and the machine's id."""
    return f"agency-{digest_of(key)}"


def node(server: Server, machine_id: str) -> Any:
    """The instance's place in LXD's interface; :class:`~vendor_modules.errors.NotFound` for what cannot be a name."""
    if not machine_id.replace("-", "").isalnum() or not machine_id.isascii() or len(machine_id) > 63:
        raise NotFound(f"there is no machine {machine_id}")
    return server.api.instances[machine_id]


def look(server: Server, machine_id: str) -> Instance:
    """The container of that name."""
    return _read(server.get(node(server, machine_id)))


def all_of(server: Server) -> list[Instance]:
    """All containers of the project, also those of others."""
    return [_read(told) for told in server.get(server.api.instances, params={"recursion": 1})]


def _read(told: dict[str, Any]) -> Instance:
    # of one that cannot be loaded, as when it is removed at this moment, a list has name and status only
    return Instance(told["name"], told["status"], told["config"] or {}, told["expanded_devices"] or {})


def attached(server: Server) -> dict[str, tuple[str, str]]:
    """Where each volume that is attached is: the machine's id, and the device."""
    return {
        volume: (instance.name, device) for instance in all_of(server) for volume, device in instance.volumes().items()
    }


def change(
    server: Server, machine_id: str, config: dict[str, str | None], devices: dict[str, dict[str, str] | None]
) -> None:
    """Set, or with None take away, keys of the configuration and devices;
    :class:`~vendor_modules.errors.Conflict` when another changed it at the same moment."""
    place = node(server, machine_id)
    answer = place.get()
    told = answer.json()["metadata"]
    fields = ("architecture", "description", "ephemeral", "profiles", "stateful")
    order = {name: told[name] for name in fields if name in told}
    order["config"] = _merged(told["config"], config)
    order["devices"] = _merged(told["devices"], devices)
    server.done(place.put(json=order, headers={"If-Match": answer.headers["ETag"]}))


def _merged(present: dict[str, Any], changed: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in (present | changed).items() if value is not None}


# --- devices ---


def target_of(device: str) -> PurePosixPath:
    """Where a volume is found in the machine, below its working directory."""
    path = PurePosixPath(device)
    if path.is_absolute() or ".." in path.parts or not path.name:
        raise InvalidRequest(f"{device!r} is no path below the machine's working directory")
    return PurePosixPath(HOME) / path


def disk(pool: str, volume_id: str) -> dict[str, str]:
    """The device that mounts a volume."""
    return {"type": "disk", "pool": pool, "source": volume_id, "path": f"{MOUNTS}/{volume_id}"}


def link(server: Server, machine_id: str, volume_id: str, device: str) -> None:
    """Have the machine find a volume at the device, in place of what is there."""
    target = target_of(device)
    files = node(server, machine_id).files
    owner = {"X-LXD-uid": "0", "X-LXD-gid": "0"}
    for folder in reversed(target.parents):
        if len(folder.parts) > 1:
            kind = {"X-LXD-type": "directory", "X-LXD-mode": "0755"}
            files.post(params={"path": str(folder)}, headers=owner | kind)
    unlink(server, machine_id, device)
    kind = {"X-LXD-type": "symlink"}
    files.post(params={"path": str(target)}, data=f"{MOUNTS}/{volume_id}/{FILE}", headers=owner | kind)


def unlink(server: Server, machine_id: str, device: str) -> None:
    """Take away what :func:`link` made; gone already is fine."""
    files = node(server, machine_id).files
    answer = files.session.delete(
        files._api_endpoint, params={"path": str(target_of(device)), "project": server.project}, timeout=30
    )
    if not answer.ok and "no such file" not in answer.text.lower() and answer.status_code != 404:
        raise Conflict(f"{device} cannot be removed: {answer.text}")


def proxy(host: str, port: int) -> dict[str, str]:
    """The device that leads from the server's port to the machine's service."""
    return {"type": "proxy", "listen": f"tcp:{host}:{port}", "connect": f"tcp:127.0.0.1:{PORT}"}


def free_port(held: list[Instance], host: str, first: int, last: int) -> int:
    """A port that no machine has, and nobody else as far as this computer can tell."""
    taken = {notes.port for instance in held if (notes := instance.notes)}
    ports = [port for port in range(first, last + 1) if port not in taken]
    random.shuffle(ports)
    for port in ports:
        if _is_free(host, port):
            return port
    raise QuotaExceeded(f"no port from {first} to {last} is free")


def _is_free(host: str, port: int) -> bool:
    try:
        with socket.create_server((host, port)):
            return True
    except PermissionError:
        return False
    except OSError as error:
        return error.errno != 98  # EADDRINUSE; the address may be another computer's


# --- power ---


def power(server: Server, machine_id: str, action: str, *, timeout: int = -1, force: bool = False) -> None:
    """Start, stop or unfreeze; ``timeout`` in seconds."""
    order = {"action": action, "timeout": timeout, "force": force}
    server.done(node(server, machine_id).state.put(json=order))


def erase(server: Server, machine_id: str) -> None:
    """End a container and remove it with its own disk."""
    if look(server, machine_id).status != "Stopped":
        with suppress(Conflict):  # it has just ended
            power(server, machine_id, "stop", timeout=30, force=True)
    server.done(node(server, machine_id).delete())


def console(server: Server, machine_id: str, kept: int) -> str:
    """What the container printed, its last ``kept`` bytes."""
    look(server, machine_id)
    place = node(server, machine_id).console
    answer = place.session.get(place._api_endpoint, params={"project": server.project}, timeout=30)
    return answer.content[-kept:].decode(errors="replace") if answer.ok else ""  # not ok: it has printed nothing
