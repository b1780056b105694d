"""The master key that credentials are encrypted with: in the environment, or in a file that only its owner can read."""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
import tempfile
from collections.abc import Mapping
from pathlib import Path

KEY_VARIABLE = "AGENCY_MASTER_KEY"
"""Environment variable with the key in base64; when it is set, no file is used."""
KEY_BYTES = 32


class KeyringError(Exception):
    """The master key cannot be used; the message says what to do."""


class Keyring:
    """Where the master key is kept."""

    def __init__(self, file: Path, environment: Mapping[str, str] = os.environ) -> None:
        """``file`` is made, with a new key, when the key is first asked for and is nowhere else."""
        self._file = file
        self._environment = environment

    def key(self) -> bytes:
        """The 32 bytes of the key; :class:`KeyringError` when what there is cannot be used."""
        if encoded := self._environment.get(KEY_VARIABLE):
            return _decoded(encoded)
        try:
            if not self._file.exists():
                self._make()
            return self._read()
        except OSError as error:
            raise KeyringError(f"the key file {self._file} cannot be used: {error.strerror}") from error

    def _make(self) -> None:
        """Write a new key where there is none: whole, or not at all, and never over another process's."""
        self._file.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        handle, name = tempfile.mkstemp(dir=self._file.parent, prefix=".key-")  # created with O_EXCL, mode 0600
        try:
            with os.fdopen(handle, "wb") as draft:
                draft.write(secrets.token_bytes(KEY_BYTES))
                draft.flush()
                os.fsync(draft.fileno())
            os.link(name, self._file)
        except FileExistsError:
            pass  # another process was faster: its key is the key
        finally:
            Path(name).unlink()

    def _read(self) -> bytes:
        with self._file.open("rb") as file:
            mode = stat.S_IMODE(os.fstat(file.fileno()).st_mode)
            if mode & 0o077:
                raise KeyringError(
                    f"the key file {self._file} can be read by others (mode {mode:04o}): chmod 600 it, "
                    "and give the credentials anew if somebody may have seen it"
                )
            key = file.read(KEY_BYTES + 1)
        if len(key) != KEY_BYTES:
            raise KeyringError(f"the key file {self._file} does not hold {KEY_BYTES} bytes: restore it from a backup")
        return key


def _decoded(encoded: str) -> bytes:
    try:
        key = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        key = b""
    if len(key) != KEY_BYTES:
        raise KeyringError(
            f"{KEY_VARIABLE} must be {KEY_BYTES} bytes in base64; "
            f"make one with: head -c {KEY_BYTES} /dev/urandom | base64"
        )
    return key
