"""What libcloud, and the libraries below it, raise, in the words of :mod:`vendor_modules.errors`.

libcloud has two trees of errors (``libcloud.common.types`` and ``libcloud.common.exceptions``), drivers have their own,
or raise a bare ``Exception``; ``requests``, ``urllib3`` and XML parsers shine through.
"""

from __future__ import annotations

import http.client
import re
import ssl
from json import JSONDecodeError
from pathlib import Path
from traceback import walk_tb
from xml.etree.ElementTree import ParseError
from xml.parsers.expat import ExpatError

import libcloud
import libcloud.common.types as common
import libcloud.storage.types as storage
import requests.exceptions as web
import urllib3.exceptions as wire
from libcloud.common.base import BaseDriver, Response
from libcloud.common.exceptions import BaseHTTPError
from libcloud.compute.types import KeyPairDoesNotExistError
from libcloud.loadbalancer.types import LibcloudLBImmutableError
from lxml.etree import LxmlError

from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ProtocolError,
    TimedOut,
    Unavailable,
    Unsupported,
    VendorError,
    by_status,
)

_LIBCLOUD = str(Path(libcloud.__file__).parent)
_LONGEST = 500
"""Characters of a provider's words that are told: some answer with a whole page of HTML."""

_BY_CLASS: tuple[tuple[tuple[type[BaseException], ...], type[VendorError]], ...] = (
    # the first that fits counts
    ((KeyPairDoesNotExistError, storage.ContainerDoesNotExistError, storage.ObjectDoesNotExistError), NotFound),
    ((storage.ContainerAlreadyExistsError, storage.ContainerIsNotEmptyError, LibcloudLBImmutableError), Conflict),
    ((storage.InvalidContainerNameError,), InvalidRequest),
    ((storage.ObjectHashMismatchError, common.MalformedResponseError), ProtocolError),
    ((web.Timeout, wire.TimeoutError, TimeoutError), TimedOut),
    ((web.TooManyRedirects, web.ContentDecodingError, web.InvalidJSONError, wire.DecodeError), ProtocolError),
    ((web.InvalidURL, web.MissingSchema, web.InvalidSchema, web.InvalidHeader, web.URLRequired), InvalidRequest),
    ((wire.LocationValueError,), InvalidRequest),
    ((web.RequestException, wire.HTTPError, ssl.SSLError), Unavailable),
    ((http.client.BadStatusLine, http.client.LineTooLong, http.client.UnknownProtocol), ProtocolError),
    ((http.client.HTTPException,), Unavailable),
    ((ParseError, ExpatError, LxmlError, JSONDecodeError), ProtocolError),
    ((NotImplementedError,), Unsupported),
)


def translate(error: BaseException) -> VendorError | None:
    """The error in our words; None for one that comes from nowhere near libcloud, which is a fault of ours."""
    told = words(error)
    if isinstance(error, BaseHTTPError):
        return by_status(_number(error.code), told, error.headers)
    if refused := _refused(error, told):
        return refused
    for kinds, ours in _BY_CLASS:
        if isinstance(error, kinds):
            return _slow(error) or ours(told)
    if isinstance(error, common.ProviderError):
        return by_status(_number(error.http_code), told)
    if type(error).__module__.startswith(("libcloud.", "requests.", "urllib3.")) or type(error) is Exception:
        return InvalidRequest(told)
    if isinstance(error, OSError):
        return Unavailable(told)
    if isinstance(error, Exception) and not isinstance(error, VendorError) and _in_libcloud(error):
        return ProtocolError(f"the answer cannot be read: {type(error).__name__}: {told}")
    return None


def _refused(error: BaseException, told: str) -> VendorError | None:
    """What a refusal stands for whose words the driver failed to read, such as a proxy's page: its status says it."""
    if not isinstance(error, common.MalformedResponseError | LookupError | TypeError | AttributeError | ValueError):
        return None
    for frame, _ in walk_tb(error.__traceback__):
        response = frame.f_locals.get("self")
        if isinstance(response, Response) and _number(response.status) >= 400:
            return by_status(_number(response.status), told, {k.lower(): v for k, v in response.headers.items()})
    return None


def words(error: BaseException) -> str:
    """What the error says: on one line, of a sensible length, without the URL that was asked (it may hold a key)."""
    told = getattr(error, "value", None) or getattr(error, "message", None) or error
    try:
        said = str(told)
    except Exception:  # noqa: BLE001 - some of libcloud's cannot say what they are
        said = ""
    if isinstance(error, web.RequestException | wire.HTTPError):
        said = re.sub(r"(with url: |url=)\S+", r"\1…", said)
    line = " ".join(re.sub(r"<[^>]{0,200}>", " ", said).split()) or type(error).__name__
    return line if len(line) <= _LONGEST else line[:_LONGEST] + " …"


def _slow(error: BaseException) -> VendorError | None:
    """A time-out in the disguise of a broken connection: so does requests raise one that comes amid an answer."""
    inner = error.args[0] if isinstance(error, web.ConnectionError) and error.args else None
    reason = getattr(inner, "reason", inner)
    if isinstance(reason, wire.TimeoutError) or isinstance(inner, wire.TimeoutError):
        return TimedOut("no answer in time")
    return None


def _in_libcloud(error: Exception) -> bool:
    """Whether the error comes from libcloud's code, or from a driver of ours that is made from it."""
    return any(
        frame.f_code.co_filename.startswith(_LIBCLOUD) or isinstance(frame.f_locals.get("self"), BaseDriver)
        for frame, _ in walk_tb(error.__traceback__)
    )


def _number(status: object) -> int:
    """An HTTP status as drivers have it: a number, its text, or an enumeration's member."""
    try:
        return int(str(getattr(status, "value", status)))
    except ValueError:
        return 400
