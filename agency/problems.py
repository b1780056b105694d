"""What went wrong, in words for people: every error that can reach a user becomes one :class:`Problem`."""

from __future__ import annotations

import structlog
from pydantic import ValidationError

from agency.messaging.acl import NotUnderstood
from agency.store.store import NotStored
from descriptors.documents import DocumentError
from descriptors.messages import Problem
from vendor_modules import registry
from vendor_modules.errors import VendorError

log = structlog.get_logger("agency")


class AgencyError(Exception):
    """The agency cannot do what was asked. Carries the :class:`~descriptors.messages.Problem` to show."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def refuse(code: str, message: str, remedy: str) -> AgencyError:
    """An error to raise, from its parts."""
    return AgencyError(Problem(code=code, message=message, remedy=remedy))


def problem_of(error: BaseException) -> Problem:
    """The problem to show for any error; one that nobody foresaw is logged in full and shown by its type."""
    if isinstance(error, AgencyError):
        return error.problem
    if isinstance(error, VendorError):
        code = "vendor-" + "".join("-" + c.lower() if c.isupper() else c for c in type(error).__name__).lstrip("-")
        return Problem(code=code, message=_clean(str(error)), remedy=_clean(error.remedy), retryable=error.retryable)
    if isinstance(error, NotUnderstood):
        return Problem(
            code="not-understood", message=_clean(str(error)), remedy="speak the protocol with its documents"
        )
    if isinstance(error, DocumentError):
        return Problem(
            code="bad-document", message=_clean(str(error)), remedy="correct the document and submit it again"
        )
    if isinstance(error, NotStored):
        return Problem(code="not-found", message=_clean(str(error)), remedy="see `agency status` for what there is")
    if isinstance(error, ValidationError | registry.UnknownModule | registry.BrokenModule):
        return Problem(code="bad-value", message=_clean(str(error)), remedy="correct the value and try again")
    if isinstance(error, TimeoutError):
        return Problem(code="timed-out", message="no answer in time", remedy="try again", retryable=True)
    log.error("unforeseen error", exc_info=error)
    return Problem(
        code="internal-error",
        message=f"an unforeseen {type(error).__name__}",
        remedy="see agency.log in the state directory, and report it",
    )


def _clean(text: str) -> str:
    """Fit the words into a document: no control characters, no more than 4096 characters, never empty."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()[:4096] or "no details"
