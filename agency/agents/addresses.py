"""The agents' names; a link makes addresses (JIDs) of them: ``link.address(MEDIATOR)``."""

from __future__ import annotations

from collections.abc import Iterable

MEDIATOR = "mediator"
BROKER = "broker"
PROVISIONER = "provisioner"
RELOCATOR = "relocator"
DEPLOYER = "deployer"
DIRECTORY = "directory"


def everybody(vendors: Iterable[str]) -> list[str]:
    """The names of all agents of a site with these vendors."""
    return [DIRECTORY, *map(vendor, vendors), BROKER, PROVISIONER, RELOCATOR, MEDIATOR, DEPLOYER]


def vendor(name: str) -> str:
    """The name of a vendor's agent."""
    return f"vendor-{name}"


def vendor_at(jid: str) -> str:
    """The name of the vendor whose agent has that address."""
    return jid.partition("@")[0].removeprefix("vendor-")
