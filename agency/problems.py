"""What went wrong, in words for people: every error that can reach a user becomes one :class:`Problem`."""

from __future__ import annotations

import errno
import os
import re
import sqlite3

import structlog
from pydantic import ValidationError

from descriptors.messages import Problem
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


_FORESEEN = {
    "agency.messaging.acl.NotUnderstood": ("not-understood", "speak the protocol with its documents"),
    "descriptors.problems.DocumentError": ("bad-document", "correct the document and submit it again"),
    "agency.store.store.NotStored": ("not-found", "see `agency status` for what there is"),
    "agency.store.store.AlreadyExists": ("already-exists", "see `agency status` for what there is"),
    "agency.store.store.Conflicted": ("changed-meanwhile", "look at it as it is now, and try again"),
    "agency.store.store.CannotOpen": (
        "store-unusable",
        "see that the database is up, and is the agency's; or restore it from a backup",
    ),
    "agency.store.credentials.CredentialsUnreadable": ("credentials-unreadable", "do as it says"),
    "agency.store.keyring.KeyringError": (
        "bad-master-key",
        "do as it says; without its key, an agency cannot read its credentials",
    ),
    "agency.blobs.NoSuchBlob": ("file-missing", "`agency submit` the descriptor again: it uploads its files"),
    "agency.blobs.DamagedBlob": ("file-damaged", "`agency submit` the descriptor again: it uploads its files"),
    "vendor_modules.registry.UnknownModule": ("bad-value", "correct the value and try again"),
    "vendor_modules.registry.BrokenModule": ("bad-value", "correct the value and try again"),
    "vendor_modules.vendor_file.BadVendorFile": ("bad-vendor-file", "write it as YAML or JSON"),
}
"""Errors whose own words are for people: their code, and what to do. By name: to import them all takes 80 MB, which a
transfer proxy has not."""
_DATABASE = "sqlalchemy.exc.DBAPIError"
_DISK_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
_CODE_LENGTH = 40


def problem_of(error: BaseException) -> Problem:
    """The problem to show for any error; one that nobody foresaw is logged in full and shown by its type. Never
    raises, whatever a third party's error is like."""
    try:
        problem = _foreseen(error)
    except Exception as worse:
        log.error("an error that cannot be put into words", exc_info=worse)
        problem = None
    if problem is not None:
        return problem
    log.error("unforeseen error", exc_info=error)
    return Problem(
        code="internal-error",
        message=_clean(f"an unforeseen {type(error).__name__}"),
        remedy="see agency.log in the state directory, and report it",
    )


def _foreseen(error: BaseException) -> Problem | None:
    if isinstance(error, AgencyError):
        return error.problem
    if isinstance(error, VendorError):
        code, remedy = _code(type(error).__name__), _clean(error.remedy)
        return Problem(code=code, message=_clean(str(error)), remedy=remedy, retryable=error.retryable)
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    if known := next((_FORESEEN[kind] for kind in kinds if kind in _FORESEEN), None):
        return Problem(code=known[0], message=_clean(str(error)), remedy=known[1])
    if isinstance(error, ValidationError):
        return Problem(code="bad-value", message=_clean(_wrong_values(error)), remedy="correct the value and try again")
    if isinstance(error, TimeoutError):
        return Problem(code="timed-out", message="no answer in time", remedy="try again", retryable=True)
    if isinstance(error, sqlite3.Error) or _DATABASE in kinds:
        log.warning("the database refused", exc_info=error)
        return _database_problem(error)
    if isinstance(error, OSError):
        log.warning("the system refused", exc_info=error)
        return _system_problem(error)
    return None


def _code(name: str) -> str:
    """A vendor error's code from the name of its class, which a third party may have given it: ``vendor-not-found``."""
    words = re.sub(r"(?<!^)(?=[A-Z])", "-", name).lower()
    return re.sub(r"[^a-z0-9]+", "-", f"vendor-{words}")[:_CODE_LENGTH].strip("-")


def _wrong_values(error: ValidationError) -> str:
    """What is wrong, place by place. Not pydantic's own words: they show the values, and one may be a secret."""
    found = error.errors(include_url=False, include_context=False, include_input=False)
    places = (f"{'.'.join(map(str, each['loc'])) or 'the value'}: {each['msg']}" for each in found)
    return f"{error.title}: {'; '.join(places)}"


def _database_problem(error: BaseException) -> Problem:
    """Only the driver's words: SQLAlchemy's have the statement with its values."""
    words = str(getattr(error, "orig", error))
    if "disk is full" in words:
        return _disk_full("the database cannot be written")
    remedy = "see that the database is up and can be written, then try again"
    return Problem(code="store-failed", message=_clean(f"the database says: {words}"), remedy=remedy, retryable=True)


def _system_problem(error: OSError) -> Problem:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    message = f"{where}: {error.strerror or error}".removeprefix(": ")
    if error.errno in _DISK_FULL:
        return _disk_full(message)
    remedy = "see that it is there, and that the agency's user may use it; then try again"
    return Problem(code="system-refused", message=_clean(message), remedy=remedy)


def _disk_full(message: str) -> Problem:
    return Problem(
        code="disk-full",
        message=_clean(f"the disk is full: {message}"),
        remedy="make room on the disk that the state directory is on, then try again",
        retryable=True,
    )


def _clean(text: str) -> str:
    """Fit the words into a document: no control characters, no more than 4096 characters, never empty."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()[:4096] or "no details"
