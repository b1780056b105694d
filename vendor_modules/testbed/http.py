"""What the API and the object store's endpoints share of HTTP: errors as JSON, pages, ranges."""

from __future__ import annotations

import errno
import re
from collections.abc import Awaitable, Callable
from typing import Any

import structlog
from starlette.responses import JSONResponse

from vendor_modules.testbed.config import MAX_PAGE
from vendor_modules.testbed.errors import ApiError, invalid

Asgi = Callable[[Any, Any, Any], Awaitable[None]]

log = structlog.get_logger()


class JsonErrors:
    """Turn whatever an application raises into an answer. Faults of ours go to the log, never to the client."""

    def __init__(self, app: Asgi) -> None:
        self._app = app

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """ASGI."""
        begun = False

        async def watched(message: Any) -> None:
            nonlocal begun
            begun = True
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:
            if begun or scope["type"] != "http":
                raise  # the answer is on its way: all that is left is to break the connection
            await error_response(error)(scope, receive, send)


def error_response(error: Exception) -> JSONResponse:
    """The answer that an error becomes."""
    if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
        error = ApiError(507, "insufficient-storage", "the computer that the cloud runs on has no space left")
    if not isinstance(error, ApiError):
        log.error("a fault of the cloud", exc_info=error)
        error = ApiError(500, "internal", "a fault of the cloud; its log says more")
    headers = {"www-authenticate": 'Basic realm="objects"'} if error.status == 401 else {}
    return JSONResponse({"error": {"code": error.code, "message": error.message}}, error.status, headers)


def limit_of(text: str | None, page_size: int) -> int:
    """The ``limit`` of a page: ``page_size`` if none is given."""
    if text is None:
        return page_size
    if not text.isascii() or not text.isdigit() or not 1 <= int(text) <= MAX_PAGE:
        raise invalid(f"limit must be a number from 1 to {MAX_PAGE}")
    return int(text)


def range_start(header: str | None, size: int) -> int | None:
    """Where a ``Range: bytes=N-`` begins; None without the header. Other ranges are refused."""
    if header is None:
        return None
    match = re.fullmatch(r"bytes=(\d{1,18})-", header.strip())
    if not match or (start := int(match[1])) >= size:
        raise ApiError(416, "range-not-satisfiable", f"only 'bytes=N-' with N below {size} can be answered")
    return start
