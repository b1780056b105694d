"""The agents' addresses (JIDs)."""

from __future__ import annotations

DOMAIN = "agency.local"
MEDIATOR = f"mediator@{DOMAIN}"
BROKER = f"broker@{DOMAIN}"
PROVISIONER = f"provisioner@{DOMAIN}"
RELOCATOR = f"relocator@{DOMAIN}"
DEPLOYER = f"deployer@{DOMAIN}"


def vendor(name: str) -> str:
    """The address of a vendor's agent."""
    return f"vendor-{name}@{DOMAIN}"
