"""The agents' names; a link makes addresses (JIDs) of them: ``link.address(MEDIATOR)``."""

from __future__ import annotations

MEDIATOR = "mediator"
BROKER = "broker"
PROVISIONER = "provisioner"
RELOCATOR = "relocator"
DEPLOYER = "deployer"
DIRECTORY = "directory"


def vendor(name: str) -> str:
    """The name of a vendor's agent."""
    return f"vendor-{name}"


def vendor_at(jid: str) -> str:
    """The name of the vendor whose agent has that address."""
    return jid.partition("@")[0].removeprefix("vendor-")
