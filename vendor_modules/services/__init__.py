"""The services handed to every Vendor Module at creation: credentials, persistence, logging, serialization, and prices
for those whose provider does not tell its own.

A module never reaches for them globally, so that it runs the same in an agency, in a test and in the conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from vendor_modules.services.credentials import CredentialStore
from vendor_modules.services.logs import Log
from vendor_modules.services.persistence import Persistence
from vendor_modules.services.prices import NoPrices, Prices
from vendor_modules.services.serialization import Serialization

__all__ = ["CredentialStore", "Log", "Persistence", "Prices", "Serialization", "Services"]


@dataclass(frozen=True)
class Services:
    """The services of one module."""

    credentials: CredentialStore
    persistence: Persistence
    log: Log
    serialization: Serialization
    prices: Prices = field(default_factory=NoPrices)
