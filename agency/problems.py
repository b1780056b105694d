"""What went wrong, in words for people: every error that can reach a user becomes one ``problem`` document.

Every command and every module that refuses anything imports this; documents, which take long, only what goes wrong.
"""

from __future__ import annotations

import errno
import os
import re
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from pydantic import ValidationError

    from descriptors.messages import Problem

log = structlog.get_logger("agency")


class AgencyError(Exception):
    """The agency cannot do what was asked. Carries the :class:`~descriptors.messages.Problem` to show."""

    def __init__(self, problem: Problem) -> None:
        super().__init__(problem.message)
        self.problem = problem


def refuse(code: str, message: str, remedy: str, *, retryable: bool = False) -> AgencyError:
    """An error to raise, from its parts."""
    return AgencyError(_problem(code, message, remedy, retryable=retryable))


def refused(said: object) -> AgencyError:
    """The error to raise for a problem that another process has told, as JSON has it; ``ValueError`` if it is none."""
    from descriptors.messages import Problem

    return AgencyError(Problem.model_validate(said))


def _problem(code: str, message: str, remedy: str, *, retryable: bool = False) -> Problem:
    from descriptors.messages import Problem

    return Problem(code=code, message=message, remedy=remedy, retryable=retryable)


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
    return _problem(
        "internal-error",
        _clean(f"an unforeseen {type(error).__name__}"),
        "see agency.log in the state directory, and report it",
    )


def _foreseen(error: BaseException) -> Problem | None:
    if isinstance(error, AgencyError):
        return error.problem
    import sqlite3

    from pydantic import ValidationError

    from vendor_modules.errors import VendorError

    if isinstance(error, VendorError):
        code, remedy = _code(type(error).__name__), _clean(error.remedy)
        return _problem(code, _clean(str(error)), remedy, retryable=error.retryable)
    kinds = [f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__]
    if known := next((_FORESEEN[kind] for kind in kinds if kind in _FORESEEN), None):
        return _problem(known[0], _clean(str(error)), known[1])
    if isinstance(error, ValidationError):
        return _problem("bad-value", _clean(_wrong_values(error)), "correct the value and try again")
    if isinstance(error, TimeoutError):
        return _problem("timed-out", "no answer in time", "try again", retryable=True)
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
    return _problem("store-failed", _clean(f"the database says: {words}"), remedy, retryable=True)


def _system_problem(error: OSError) -> Problem:
    where = os.fsdecode(error.filename) if isinstance(error.filename, str | bytes) else ""
    message = f"{where}: {error.strerror or error}".removeprefix(": ")
    if error.errno in _DISK_FULL:
        return _disk_full(message)
    remedy = "see that it is there, and that the agency's user may use it; then try again"
    return _problem("system-refused", _clean(message), remedy)


def _disk_full(message: str) -> Problem:
    return _problem(
        "disk-full",
        _clean(f"the disk is full: {message}"),
        "make room on the disk that the state directory is on, then try again",
        retryable=True,
    )


def _clean(text: str) -> str:
    """Fit the words into a document: no control characters, no more than 4096 characters, never empty."""
    return "".join(c if c.isprintable() or c == "\n" else " " for c in text).strip()[:4096] or "no details"
