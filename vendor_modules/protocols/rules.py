"""Ingress rules, before they are sent."""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network, ip_network

from vendor_modules.errors import InvalidRequest
from vendor_modules.resources import Rule


def source_of(rule: Rule) -> IPv4Network | IPv6Network:
    """Whom the rule is for; :class:`~vendor_modules.errors.InvalidRequest` if that is no range of addresses."""
    try:
        return ip_network(rule.cidr, strict=False)
    except ValueError:
        raise InvalidRequest(f"{rule.cidr!r} is no range of addresses") from None
