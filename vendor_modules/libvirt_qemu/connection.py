"""Connections to libvirt, and the library itself, which is loaded when it is first needed."""

from __future__ import annotations

import importlib
from typing import Any

from vendor_modules.errors import Unsupported
from vendor_modules.libvirt_qemu.errors import translate
from vendor_modules.services.credentials import PasswordCredentials


def sdk() -> Any:
    """The ``libvirt`` package; :class:`~vendor_modules.errors.Unsupported` where it is not installed."""
    try:
        library = importlib.import_module("libvirt")
    except ImportError as error:
        words = (
            "libvirt-python is not installed here: pip install 'cloud-agency[libvirt]' (it needs libvirt-dev and gcc)"
        )
        raise Unsupported(words) from error
    library.registerErrorHandler(_silent, None)  # or else each error is also printed
    return library


def _silent(*_: object) -> None:
    """Errors are raised; nobody reads the standard error."""


class Connection:
    """One thread's way to libvirt: opened when it is first used, and again when it has ended."""

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._open: Any = None

    def to(self, account: PasswordCredentials | None) -> Any:
        """The ``virConnect``, logged in with the account if the daemon asks who it is."""
        if self._open is None or not self._alive():
            self.close()
            self._open = _opened(self._uri, account)
        return self._open

    def _alive(self) -> bool:
        try:
            return bool(self._open.isAlive())
        except sdk().libvirtError:
            return False

    def close(self) -> None:
        """End the connection."""
        if self._open is not None:
            try:
                self._open.close()
            except sdk().libvirtError:
                pass  # it has ended already
            self._open = None


def _opened(uri: str, account: PasswordCredentials | None) -> Any:
    library = sdk()
    answers = {}
    if account:
        secret = account.password.get_secret_value()
        answers = {library.VIR_CRED_AUTHNAME: account.username, library.VIR_CRED_USERNAME: account.username}
        answers |= {library.VIR_CRED_PASSPHRASE: secret, library.VIR_CRED_NOECHOPROMPT: secret}

    def answer(questions: list[list[Any]], _: object) -> int:
        for question in questions:
            question[4] = answers.get(question[0])
        return 0 if answers else -1

    kinds = [library.VIR_CRED_AUTHNAME, library.VIR_CRED_USERNAME, library.VIR_CRED_PASSPHRASE]
    try:
        return library.openAuth(uri, [[*kinds, library.VIR_CRED_NOECHOPROMPT], answer, None], 0)
    except library.libvirtError as error:
        raise translate(error) from error
