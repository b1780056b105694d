"""libvirt's errors in the words of the error tree.

The numbers are those of ``virErrorNumber`` and ``virErrorDomain`` (libvirt/virterror.h): they are part of libvirt's
stable interface, and written out here so that the module can be described where libvirt-python is not installed.
"""

from __future__ import annotations

import re
from typing import Any, Final

from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    ResourceFailed,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)

NO_DOMAIN: Final = 42
NO_STORAGE_VOLUME: Final = 50
INTERNAL_ERROR: Final = 1
SYSTEM_ERROR: Final = 38

BY_CODE: dict[int, type[VendorError]] = {
    2: QuotaExceeded,  # NO_MEMORY
    3: Unsupported,  # NO_SUPPORT
    4: Unavailable,  # UNKNOWN_HOST
    5: Unavailable,  # NO_CONNECT
    8: InvalidRequest,  # INVALID_ARG
    9: ResourceFailed,  # OPERATION_FAILED
    27: InvalidRequest,  # XML_ERROR
    28: Conflict,  # DOM_EXIST
    29: Forbidden,  # OPERATION_DENIED
    35: InvalidRequest,  # XML_DETAIL
    38: Unavailable,  # SYSTEM_ERROR
    39: Unavailable,  # RPC
    40: Unavailable,  # GNUTLS_ERROR
    42: NotFound,  # NO_DOMAIN
    45: Unauthorized,  # AUTH_FAILED
    49: InvalidRequest,  # NO_STORAGE_POOL: the settings name the pool, it is no resource of ours
    50: NotFound,  # NO_STORAGE_VOL
    55: Conflict,  # OPERATION_INVALID
    67: InvalidRequest,  # CONFIG_UNSUPPORTED
    68: TimedOut,  # OPERATION_TIMEOUT
    74: Unsupported,  # ARGUMENT_UNSUPPORTED
    78: ResourceFailed,  # OPERATION_ABORTED
    79: Unauthorized,  # AUTH_CANCELLED
    84: Unsupported,  # OPERATION_UNSUPPORTED
    85: Unavailable,  # SSH
    86: TimedOut,  # AGENT_UNRESPONSIVE
    87: Conflict,  # RESOURCE_BUSY
    88: Forbidden,  # ACCESS_DENIED
    90: Conflict,  # STORAGE_VOL_EXIST
    92: InvalidRequest,  # XML_INVALID_SCHEMA
    94: Unauthorized,  # AUTH_UNAVAILABLE
    98: Unavailable,  # LIBSSH
    99: NotFound,  # DEVICE_MISSING
    110: Conflict,  # MULTIPLE_DOMAINS
}
"""What libvirt's error numbers mean; a number that is not here is no error a provider should give."""

_RPC, _REMOTE, _QEMU = 7, 13, 10
_FULL = re.compile(r"No space left on device|Disk quota exceeded|Cannot allocate memory")
_ALLOCATED = re.compile(r"still being allocated")
_IN_USE = re.compile(r"is still in use")
_BUSY = re.compile(r"asynchronous jobs running|still in use|in use by another|Failed to get .*lock")
_PORT_TAKEN = re.compile(r"Could not set up host forwarding rule")
_DENIED = re.compile(r"Permission denied")


def is_being_made(error: Any) -> bool:
    """Whether libvirt says that a file of a pool is there in a moment."""
    return bool(_ALLOCATED.search(str(error)))


def is_in_use(error: Any) -> bool:
    """Whether libvirt says that a file of a pool is read or written at this moment."""
    return bool(_IN_USE.search(str(error)))


def translate(error: Any) -> VendorError:
    """A ``libvirt.libvirtError`` as one of ours."""
    code, domain, words = error.get_error_code(), error.get_error_domain(), str(error)
    if _FULL.search(words):
        return QuotaExceeded(words)
    if _BUSY.search(words):
        return Conflict(words)
    if is_being_made(words):
        return Unavailable(words)
    if _PORT_TAKEN.search(words):  # by another process, a moment ago: the next attempt takes another port
        return Unavailable(words)
    if code == INTERNAL_ERROR:
        if domain in (_RPC, _REMOTE):  # the connection has ended
            return Unavailable(words)
        return ResourceFailed(words) if domain == _QEMU else ProtocolError(words)
    if code == SYSTEM_ERROR and domain not in (_RPC, _REMOTE):  # an errno, at the provider rather than on the way to it
        return Forbidden(words) if _DENIED.search(words) else ResourceFailed(words)
    return BY_CODE.get(code, ProtocolError)(words)
