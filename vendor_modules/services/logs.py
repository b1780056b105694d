"""The logging service: structured events with levels, from which secrets are removed before they are written."""

from __future__ import annotations

from typing import Any, Protocol


class Log(Protocol):
    """A logger: an event in words, and values beside it (structlog's bound loggers fit)."""

    def debug(self, event: str, **values: Any) -> Any:
        """Detail for whoever looks for a fault."""

    def info(self, event: str, **values: Any) -> Any:
        """Something happened as it should."""

    def warning(self, event: str, **values: Any) -> Any:
        """Something is odd, and the work goes on."""

    def error(self, event: str, **values: Any) -> Any:
        """Something failed."""
