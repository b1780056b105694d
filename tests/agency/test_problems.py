"""Every error becomes a problem to show: with a code, in words, and without secrets."""

from __future__ import annotations

import errno
import importlib
import sqlite3

import pytest
from pydantic import BaseModel, ValidationError
from sqlalchemy.exc import OperationalError

from agency.blobs import DamagedBlob, NoSuchBlob
from agency.problems import _DATABASE, _FORESEEN, problem_of
from agency.store.credentials import CredentialsUnreadable
from agency.store.keyring import KeyringError
from agency.store.store import AlreadyExists, CannotOpen, Conflicted
from vendor_modules.errors import NotFound, VendorError
from vendor_modules.registry import UnknownModule

pytestmark = pytest.mark.usefixtures("quiet")


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (KeyringError("AGENCY_MASTER_KEY must be 32 bytes"), "bad-master-key"),
        (CannotOpen("the store cannot be opened"), "store-unusable"),
        (Conflicted("at revision 2"), "changed-meanwhile"),
        (CredentialsUnreadable("cannot be decrypted"), "credentials-unreadable"),
        (AlreadyExists("there is one"), "already-exists"),
        (NoSuchBlob("no content"), "file-missing"),
        (DamagedBlob("something else"), "file-damaged"),
        (UnknownModule("no vendor module 'x'"), "bad-value"),
        (NotFound("gone"), "vendor-not-found"),
        (PermissionError(errno.EACCES, "Permission denied", "/state/agency.db"), "system-refused"),
        (OSError(errno.ENOSPC, "No space left on device", "/state/blobs/x"), "disk-full"),
        (OperationalError("INSERT", {}, sqlite3.OperationalError("database or disk is full")), "disk-full"),
        (OperationalError("INSERT", {}, sqlite3.OperationalError("database is locked")), "store-failed"),
        (sqlite3.DatabaseError("file is not a database"), "store-failed"),
        (ZeroDivisionError(), "internal-error"),
    ],
    ids=lambda value: value if isinstance(value, str) else type(value).__name__,
)
def test_every_error_has_its_problem(error: Exception, code: str) -> None:
    """Each kind of error has a code of its own, its words, and a remedy."""
    problem = problem_of(error)
    assert problem.code == code
    assert problem.remedy
    words = getattr(error, "strerror", None) or str(getattr(error, "orig", error))
    assert words in problem.message or code in ("internal-error", "disk-full")


def test_a_third_party_names_its_errors_as_it_likes() -> None:
    """Whatever a vendor error's class is called, and however it fails to print itself, there is a problem to show."""
    names = ("My_Error", "Überlast", "_", "X" * 80, "HTTPError", "E__2")
    codes = [problem_of(type(name, (VendorError,), {})("it said no")).code for name in names]
    assert codes[0] == "vendor-my-error"
    assert all(code.startswith("vendor") for code in codes)

    class Mute(VendorError):
        def __str__(self) -> str:
            raise RuntimeError("no words")

    class Odd(VendorError):
        remedy = None  # type: ignore[assignment]

    assert {problem_of(error("x")).code for error in (Mute, Odd)} == {"internal-error"}


def test_a_wrong_value_is_not_shown() -> None:
    """What is wrong with a value is told by its place: the value, or one beside it, may be a secret."""

    class Login(BaseModel, extra="forbid"):
        user: str

    with pytest.raises(ValidationError) as caught:
        Login.model_validate({"passwrd": "hush-hush"})
    message = problem_of(caught.value).message
    assert "passwrd" in message
    assert "hush-hush" not in message


def test_errors_that_are_foreseen_by_name_are_there() -> None:
    """Every error that the table names can be imported under that name: none was renamed behind its back."""
    for name in (*_FORESEEN, _DATABASE):
        module, _, kind = name.rpartition(".")
        assert issubclass(getattr(importlib.import_module(module), kind), Exception)
        assert getattr(importlib.import_module(module), kind).__module__ == module
