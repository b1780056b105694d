"""From whatever a cloud, its libraries or the network answer to the error tree."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any

import requests
import urllib3
from keystoneauth1 import exceptions as identity

from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)

_BY_STATUS: dict[int, type[VendorError]] = {
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    408: TimedOut,
    409: Conflict,
    410: NotFound,
    413: QuotaExceeded,
    422: InvalidRequest,
    423: Conflict,
    501: Unsupported,
    504: TimedOut,
    507: QuotaExceeded,
}
_THROTTLED = {413, 429, 498, 503}
"""Status codes that, with a Retry-After, ask to come again later; 429 and swift's 498 do so without one, too."""
_QUOTA = re.compile(r"quota|limit exceeded|maximum number of|over limit", re.IGNORECASE)
_WRONG_STATE = re.compile(
    r"status must be|must be (available|detached)|invalid (volume|snapshot|attachment)( |:)|is (in use|attached)"
    r"|dependent snapshot|already attached|still in use|in-use",
    re.IGNORECASE,
)
"""Cinder's words (with status 400) for a resource that is in another state than it should be."""
_LONGEST = 500
"""Characters of a cloud's own words that are kept."""


class Refused(Exception):
    """A cloud's answer with a status that is an error."""

    def __init__(self, status: int, text: str, retry_after: float | None = None) -> None:
        super().__init__(f"{status}: {text}")
        self.status, self.text, self.retry_after = status, text, retry_after


def refusal(response: requests.Response) -> Refused:
    """The error of a response."""
    return Refused(response.status_code, _words(response), _seconds(response.headers.get("retry-after")))


def translate(error: Exception) -> VendorError | None:
    """The error in our tree; None for one that comes from neither the cloud, nor its libraries, nor the network."""
    if isinstance(error, Refused):
        return _of_status(error.status, error.text, error.retry_after)
    if isinstance(error, identity.HttpError):
        return _of_identity(error)
    for kinds, mapped in _BY_KIND:
        if isinstance(error, kinds):
            return mapped(_plain(error))
    return None


_BY_KIND: tuple[tuple[tuple[type[Exception], ...], type[VendorError]], ...] = (
    ((identity.ConnectTimeout, requests.Timeout, urllib3.exceptions.TimeoutError), TimedOut),
    ((identity.ConnectionError, identity.RetriableConnectionFailure), Unavailable),
    # the catalogue has no such service, or not at this interface in this region
    ((identity.EndpointNotFound, identity.EmptyCatalog), Unsupported),
    ((identity.VersionNotAvailable,), Unsupported),
    ((identity.AuthorizationFailure, identity.MissingAuthPlugin, identity.NoMatchingPlugin), Unauthorized),
    ((identity.DiscoveryFailure, identity.InvalidResponse), ProtocolError),
    ((identity.ClientException,), ProtocolError),
    ((requests.exceptions.JSONDecodeError, requests.exceptions.ContentDecodingError), ProtocolError),
    ((requests.exceptions.InvalidURL, requests.exceptions.MissingSchema), InvalidRequest),
    ((requests.exceptions.InvalidSchema, requests.exceptions.InvalidProxyURL), InvalidRequest),
    ((requests.exceptions.TooManyRedirects,), ProtocolError),
    ((requests.RequestException, urllib3.exceptions.HTTPError), Unavailable),
)
"""The libraries' errors that carry no status, in the order in which they are tried."""


def _of_identity(error: identity.HttpError) -> VendorError:
    """An answer to a login: all others are :class:`Refused`."""
    response = error.response
    if error.http_status == 404:  # no such application credential
        return Unauthorized(_plain(error))
    if response is not None:
        return _of_status(error.http_status, _words(response), _seconds(response.headers.get("retry-after")))
    return _of_status(error.http_status, _plain(error), None)


def _of_status(status: int, text: str, retry_after: float | None) -> VendorError:
    if status in (429, 498) or (status in _THROTTLED and retry_after is not None and not _QUOTA.search(text)):
        return Throttled(text, retry_after=1.0 if retry_after is None else retry_after)
    if status in (403, 409) and _QUOTA.search(text):
        return QuotaExceeded(text)
    if status == 400 and _WRONG_STATE.search(text):
        return Conflict(text)
    if kind := _BY_STATUS.get(status):
        return kind(text)
    if status >= 500:
        return Unavailable(text)
    return InvalidRequest(text) if status >= 400 else ProtocolError(f"unexpected HTTP status {status}")


def _words(response: requests.Response) -> str:
    """The message of an answer: each service wraps it in another way."""
    if "json" in response.headers.get("content-type", ""):
        try:
            found = _message(json.loads(response.text))
        except ValueError:
            found = None
        if found:
            return found[:_LONGEST]
    if "text/plain" in response.headers.get("content-type", "") and response.text:
        return response.text[:_LONGEST]
    return f"HTTP status {response.status_code} {response.reason or ''}".rstrip()


def _message(answer: Any) -> str | None:
    """The first message in ``{"badRequest": {"message": …}}``, ``{"NeutronError": {…}}``, ``{"error": …}``."""
    if isinstance(answer, dict):
        if isinstance(answer.get("message"), str):
            return str(answer["message"])
        return next((found for value in answer.values() if (found := _message(value))), None)
    if isinstance(answer, list):
        return next((found for value in answer if (found := _message(value))), None)
    return None


def _seconds(text: str | None) -> float | None:
    """Seconds from now, of either form of Retry-After; None when there is none."""
    if text is None:
        return None
    if re.fullmatch(r"[0-9]+(\.[0-9]+)?", text.strip()):
        return float(text)
    try:
        return max((parsedate_to_datetime(text) - datetime.now(UTC)).total_seconds(), 0.0)
    except (TypeError, ValueError):
        return 1.0


def _plain(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:_LONGEST]
