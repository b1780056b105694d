"""The one error tree of Vendor Modules. Whatever a provider's library or the network raises is mapped to it.

::

    VendorError                  retryable?
    ├── Unavailable              yes   the provider cannot be reached, or says that it is out of order
    │   ├── TimedOut             yes   no answer in time: the call may or may not have happened
    │   └── Throttled            yes   too many calls; .retry_after says when to come back, in seconds
    ├── Unauthorized             no    the credentials are missing, wrong or expired
    ├── Forbidden                no    the credentials are good, but not for this
    ├── NotFound                 no    there is no such resource
    ├── Conflict                 no    the resource's state does not allow it (attached, running, name taken)
    ├── QuotaExceeded            no    the provider's limit for this account is reached
    ├── InvalidRequest           no    the provider does not accept these values
    ├── Unsupported              no    the module or the provider has no such ability
    ├── ResourceFailed           no    the provider took the call and the resource ended in an error state
    └── ProtocolError            no    the provider answered something that makes no sense
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime


class VendorError(Exception):
    """A provider did not do what was asked.

    Attributes: ``vendor`` (which one), ``operation`` (such as ``create volume``), ``detail`` (the provider's words,
    with secrets removed), ``retryable`` (whether calling again with the same arguments can help), ``remedy`` (what to
    do).
    """

    retryable = False
    remedy = "look at the provider's own log or console"

    def __init__(self, detail: str, *, vendor: str = "", operation: str = "") -> None:
        super().__init__(detail)
        self.detail = detail
        self.vendor = vendor
        self.operation = operation

    def __str__(self) -> str:
        where = ": ".join(part for part in (self.vendor, self.operation) if part)
        return f"{where}: {self.detail}" if where else self.detail


class Unavailable(VendorError):
    """The provider cannot be reached, or says that it is out of order."""

    retryable = True
    remedy = "check that the provider is up and reachable, then try again"


class TimedOut(Unavailable):
    """No answer in time. The call may have happened: repeat it with the same idempotency key."""


class Throttled(Unavailable):
    """The provider refuses more calls for now; ``retry_after`` is in seconds."""

    remedy = "wait and try again"

    def __init__(self, detail: str, *, retry_after: float = 1.0, vendor: str = "", operation: str = "") -> None:
        super().__init__(detail, vendor=vendor, operation=operation)
        self.retry_after = retry_after


class Unauthorized(VendorError):
    """The credentials are missing, wrong or expired."""

    remedy = "give the vendor's credentials anew with `agency vendor add`"


class Forbidden(VendorError):
    """The credentials are good, but not for this."""

    remedy = "ask the provider for the right, or use other credentials"


class NotFound(VendorError):
    """There is no such resource."""

    remedy = "list the provider's resources: it may have been removed by somebody else"


class Conflict(VendorError):
    """The resource's state does not allow the call."""

    remedy = "bring the resource into the state that the message names"


class QuotaExceeded(VendorError):
    """The provider's limit for this account is reached."""

    remedy = "remove resources that are not needed, or ask the provider for a higher limit"


class InvalidRequest(VendorError):
    """The provider does not accept these values."""

    remedy = "correct the value that the message names"


class Unsupported(VendorError):
    """The module or the provider has no such ability."""

    remedy = "see `agency vendors` for what each vendor can do"


class ResourceFailed(VendorError):
    """The provider took the call, and the resource ended in an error state."""

    remedy = "read the detail; for a machine, its console output"


class ProtocolError(VendorError):
    """The provider answered something that makes no sense."""


_BY_STATUS: dict[int, type[VendorError]] = {
    401: Unauthorized,
    402: QuotaExceeded,
    403: Forbidden,
    404: NotFound,
    405: Unsupported,
    408: TimedOut,
    409: Conflict,
    410: NotFound,
    412: Conflict,
    413: QuotaExceeded,
    420: Throttled,
    429: Throttled,
    501: Unsupported,
    504: TimedOut,
    507: QuotaExceeded,
}


def by_status(
    status: int, words: str, headers: Mapping[str, str] | None = None, *, meant: type[VendorError] | None = None
) -> VendorError:
    """The error that an HTTP status stands for (RFC 9110), unless the provider's own code says what is ``meant``;
    ``headers``, in small letters, tell when to come back."""
    retry_after = (headers or {}).get("retry-after", "")
    kind = meant or _BY_STATUS.get(status)
    if kind is Throttled or status in (420, 429) or (retry_after and status in (413, 503)):
        return Throttled(words, retry_after=seconds(retry_after))
    if kind is None and status >= 500:
        kind = Unavailable
    if kind is None:
        kind = InvalidRequest if status >= 400 else ProtocolError
    return kind(words)


def seconds(retry_after: str) -> float:
    """What a ``Retry-After`` header says, in seconds from now: a number or a date (RFC 9110); 1 if it says nothing."""
    if retry_after.isascii() and retry_after.isdigit():
        return float(retry_after[:9])
    try:
        return max(0.0, (parsedate_to_datetime(retry_after) - datetime.now(UTC)).total_seconds())
    except (ValueError, TypeError, OverflowError):
        return 1.0
