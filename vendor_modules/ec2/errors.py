"""What AWS's query interfaces answer when they refuse, in our words: a code, a message and an HTTP status."""

from __future__ import annotations

import re

from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
    by_status,
)

_KINDS: tuple[tuple[str, type[VendorError]], ...] = (
    # the first that fits counts; https://docs.aws.amazon.com/AWSEC2/latest/APIReference/errors-overview.html
    (r"RequestLimitExceeded|Throttl|SlowDown|TooManyRequests|BandwidthLimit", Throttled),
    (
        r"AuthFailure|InvalidClientTokenId|SignatureDoesNotMatch|ExpiredToken|InvalidAccessKeyId|InvalidToken",
        Unauthorized,
    ),
    (r"RequestExpired|MissingAuthenticationToken|OptInRequired|NotSignedUp|RequestTimeTooSkewed", Unauthorized),
    (r"UnauthorizedOperation|AccessDenied|PendingVerification|Blocked|AllAccessDisabled", Forbidden),
    (r"InsufficientInstanceCapacity|InsufficientAddressCapacity|InternalError|InternalFailure", Unavailable),
    (r"ServiceUnavailable|Unavailable$|RequestTimeout", Unavailable),
    (r"LimitExceeded|TooMany|MaxIOPSLimit|InsufficientFreeAddresses|QuotaExceeded", QuotaExceeded),
    (r"IdempotentParameterMismatch|IdempotentInstanceTerminated", Conflict),
    (r"NotFound|Malformed|NoSuch|Unknown(Snapshot|Volume)|InvalidInstanceID|InvalidID$|InvalidAssociationID", NotFound),
    (r"IncorrectState|IncorrectInstanceState|IncorrectModificationState|InUse|DependencyViolation", Conflict),
    (
        r"Duplicate|AlreadyExists|AlreadyAssociated|AlreadyOwned|NotEmpty|Conflict|InvalidState|OperationAborted",
        Conflict,
    ),
    (r"UnsupportedOperation|NotImplemented|UnsupportedHibernation|InvalidAction", Unsupported),
)
_IN_REQUEST = re.compile(
    r"MalformedQueryString|MalformedXML|InvalidKey(Pair)?\.Format|InvalidParameter|InvalidCIDR|InvalidInstanceType"
)


def refusal(code: str, message: str, status: int, retry_after: str = "") -> VendorError:
    """The error that the provider means; by its HTTP status where the code is not known."""
    told = f"{code}: {message}" if code else message
    if _IN_REQUEST.match(code):
        return InvalidRequest(told)
    kind = next((kind for pattern, kind in _KINDS if re.search(pattern, code)), None)
    return by_status(status, told, {"retry-after": retry_after}, meant=kind)
