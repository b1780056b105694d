"""The checks, by what they examine; importing one of these files registers its checks."""

from vendor_modules.conformance.checks import (  # noqa: F401, I001 - in the order in which they run
    declared,
    offers,
    kinds,
    machines,
    volumes,
    snapshots,
    images,
    network,
    networks,
    objects,
    stored,
    usage,
    quotas,
    pages,
    care,
    wire,
)
from vendor_modules.conformance.registry import CHECKS

__all__ = ["CHECKS"]
