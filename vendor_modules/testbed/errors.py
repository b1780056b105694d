"""What the cloud's API answers when it does not do what was asked."""

from __future__ import annotations


class ApiError(Exception):
    """An answer other than success: ``status`` is HTTP's, ``code`` a word for programs, the message for people."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code
        self.message = message


def not_found(kind: str, resource_id: str) -> ApiError:
    """There is no such resource."""
    return ApiError(404, "not-found", f"there is no {kind} {resource_id!r}")


def conflict(message: str) -> ApiError:
    """The resource's state does not allow it."""
    return ApiError(409, "conflict", message)


def invalid(message: str) -> ApiError:
    """The values make no sense here."""
    return ApiError(422, "invalid", message)


def quota_exceeded(what: str, limit: int) -> ApiError:
    """The account's limit is reached."""
    return ApiError(403, "quota-exceeded", f"the account's quota of {limit} {what} is reached")


def absent(service: str) -> ApiError:
    """This cloud does not have the service."""
    return ApiError(501, "no-such-service", f"this cloud has no {service}")
