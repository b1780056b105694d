"""Private networks as LXD's managed bridges. Every function here blocks."""

from __future__ import annotations

import ipaddress
from typing import Any

from vendor_modules.errors import InvalidRequest, NotFound
from vendor_modules.lxd.connection import Server
from vendor_modules.lxd.volumes import digest_of
from vendor_modules.resources import Network, Status

KEY, NAME = "user.cloud-agency-key", "user.cloud-agency-name"


def id_for(key: str) -> str:
    """The bridge's name: an interface of the server, so of 15 characters at most."""
    return f"ag{digest_of(key)[:13]}"


def create(server: Server, name: str, cidr: str, key: str) -> None:
    """Make a network whose first address is the server's; it hands out the others, and leads nowhere else."""
    try:
        range_ = ipaddress.IPv4Network(cidr)
    except ValueError as error:
        raise InvalidRequest(f"{cidr!r} is no range of IPv4 addresses: {error}") from error
    if range_.prefixlen > 29:
        raise InvalidRequest(f"{cidr} has no room for machines")
    config = {
        "ipv4.address": f"{range_[1]}/{range_.prefixlen}",
        "ipv4.nat": "false",
        "ipv4.routing": "false",
        "ipv6.address": "none",
        KEY: key,
        NAME: name,
    }
    server.done(server.api.networks.post(json={"name": id_for(key), "type": "bridge", "config": config}))


def look(server: Server, network_id: str) -> Network:
    """The network of that id; :class:`~vendor_modules.errors.NotFound` if there is no managed one."""
    if not network_id.isascii() or not network_id.replace("-", "").replace("_", "").isalnum():
        raise NotFound(f"there is no network {network_id}")
    told = server.get(server.api.networks[network_id])
    if not told["managed"]:
        raise NotFound(f"{network_id} is an interface of the server, no network")
    return _read(told)


def all_of(server: Server) -> list[Network]:
    """All managed networks that have addresses."""
    found = server.get(server.api.networks, params={"recursion": 1})
    return [_read(told) for told in found if told["managed"]]


def _read(told: dict[str, Any]) -> Network:
    config = told["config"]
    address = config.get("ipv4.address", "none")
    cidr = str(ipaddress.IPv4Interface(address).network) if "/" in address else ""
    statuses = {"Created": Status.ACTIVE, "Pending": Status.PENDING}
    return Network(
        id=told["name"],
        name=config.get(NAME, told["name"]),
        key=config.get(KEY, ""),
        status=statuses.get(told["status"], Status.ERROR),
        cidr=cidr,
    )
