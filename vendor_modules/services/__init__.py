"""The four services handed to every Vendor Module at creation: credentials, persistence, logging and serialization.

A module never reaches for them globally, so that it runs the same in an agency, in a test and in the conformance suite.
"""

from __future__ import annotations

from dataclasses import dataclass

from vendor_modules.services.credentials import CredentialStore
from vendor_modules.services.logs import Log
from vendor_modules.services.persistence import Persistence
from vendor_modules.services.serialization import Serialization

__all__ = ["CredentialStore", "Log", "Persistence", "Serialization", "Services"]


@dataclass(frozen=True)
class Services:
    """The services of one module."""

    credentials: CredentialStore
    persistence: Persistence
    log: Log
    serialization: Serialization
