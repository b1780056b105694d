"""The services that an examined module is given: they watch what it does with them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from vendor_modules.services.credentials import Credentials
from vendor_modules.services.persistence import MemoryPersistence, ResourceRecord


class RecordingLog:
    """A log that keeps what it is told."""

    def __init__(self) -> None:
        self.records: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("debug", event, values))

    def info(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("info", event, values))

    def warning(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("warning", event, values))

    def error(self, event: str, **values: Any) -> None:
        """See :class:`~vendor_modules.services.logs.Log`."""
        self.records.append(("error", event, values))


class FixedCredentials:
    """A credentials service with one answer."""

    def __init__(self, credentials: Credentials | None) -> None:
        self._credentials = credentials

    async def get(
        self, vendor: str, *, resource: str | None = None, agreement: str | None = None
    ) -> Credentials | None:
        """See :class:`~vendor_modules.services.credentials.CredentialStore`."""
        return self._credentials

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """See :class:`~vendor_modules.services.credentials.CredentialStore`."""
        self._credentials = credentials


class WatchingPersistence(MemoryPersistence):
    """Persistence that also keeps every record that it was ever given, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[ResourceRecord] = []
        self.on_save: Callable[[ResourceRecord], object] = lambda _: None
        """Is told of each record as it is saved."""

    async def save_resource(self, record: ResourceRecord) -> None:
        """See :class:`~vendor_modules.services.persistence.Persistence`."""
        self.history.append(record)
        self.on_save(record)
        await super().save_resource(record)
