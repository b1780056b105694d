"""The errors of pylxd, of ``requests`` below it, and of LXD's operations, in the words of the error tree."""

from __future__ import annotations

import re
import sys
from typing import Any

from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    ResourceFailed,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    VendorError,
)

BY_STATUS: dict[int, type[VendorError]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Unauthorized,  # LXD's answer to a certificate that it does not trust
    404: NotFound,
    405: ProtocolError,
    409: Conflict,
    412: Conflict,  # changed by another meanwhile
    413: QuotaExceeded,
    429: Throttled,
    500: ResourceFailed,
    502: Unavailable,
    503: Unavailable,
    504: TimedOut,
}
"""HTTP statuses; the same numbers are the ``status_code`` of an operation that failed."""

BY_WORDS: tuple[tuple[re.Pattern[str], type[VendorError]], ...] = tuple(
    (re.compile(pattern, re.IGNORECASE), kind)
    for pattern, kind in (
        (r"no space left|disk quota exceeded|(reached|exceed\w*) .*(maximum|limit)|limits\.", QuotaExceeded),
        (r"address already in use", Unavailable),  # of a proxy device: the next attempt takes another port
        (r"not authorized|permission denied|is restricted", Forbidden),
        (r"already exists|already in use|in use|currently used|is (already )?running|not running|busy", Conflict),
        (r"not found|doesn't exist|no such|does not exist", NotFound),
        (r"invalid|unknown configuration|failed to parse|must be|required|unsupported|metadata", InvalidRequest),
    )
)
"""What LXD says with the statuses 400 and 500, which tell little; the first that fits."""


def by_words(words: str, otherwise: type[VendorError]) -> VendorError:
    """An error by what LXD says about it."""
    kind = next((kind for pattern, kind in BY_WORDS if pattern.search(words)), otherwise)
    return kind(words)


def of_status(status: int, words: str) -> VendorError:
    """An error by its HTTP status, and where that tells little, by its words."""
    kind = BY_STATUS.get(status, Unavailable if status >= 500 else ProtocolError)
    return by_words(words, kind) if status in (400, 500) else kind(words)


def translate(error: Exception) -> VendorError | None:
    """An error of the libraries as one of ours; None for one of somebody else's."""
    if pylxd := sys.modules.get("pylxd"):
        if isinstance(error, pylxd.exceptions.LXDAPIException):
            return of_status(error.response.status_code, str(error))
        if isinstance(error, pylxd.exceptions.ClientConnectionFailed):
            return _connection_failed(str(error))
    if requests := sys.modules.get("requests"):
        return _of_requests(requests.exceptions, error)
    return None


def _of_requests(kinds: Any, error: Exception) -> VendorError | None:
    if isinstance(error, kinds.Timeout):
        return TimedOut("no answer in time")
    if isinstance(error, kinds.InvalidURL | kinds.MissingSchema | kinds.InvalidSchema):
        return InvalidRequest(f"the server's URL cannot be used: {error}")
    if isinstance(error, kinds.JSONDecodeError | kinds.ContentDecodingError | kinds.TooManyRedirects):
        return ProtocolError(f"the answer makes no sense: {error}")
    if isinstance(error, kinds.RequestException):
        return _connection_failed(str(error))
    return None


def _connection_failed(words: str) -> VendorError:
    if re.search(r"fingerprint|CERTIFICATE_VERIFY_FAILED", words, re.IGNORECASE):
        return Forbidden(f"the server is not the one that the settings name: {words}")
    if re.search(r"\[SSL\]|PEM lib|KEY_VALUES_MISMATCH|TLSV1", words):
        return Unauthorized("the certificate and private key cannot be used")
    return Unavailable(words)
