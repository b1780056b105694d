"""What the tests of the protocol modules share."""

from __future__ import annotations

from typing import Any, TypeVar

import structlog

from tests.labs.testbed import OneAccount
from vendor_modules.module import VendorModule
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials
from vendor_modules.services.persistence import MemoryPersistence
from vendor_modules.services.serialization import JsonSerialization

M = TypeVar("M", bound=VendorModule)


def made(module: type[M], credentials: Credentials | None, **settings: Any) -> M:
    """A module with services in memory; close it by ``async with``."""
    services = Services(OneAccount(credentials), MemoryPersistence(), structlog.get_logger(), JsonSerialization())
    return module("examined", module.Settings.model_validate(settings), services)
