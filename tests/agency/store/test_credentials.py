"""Credentials and the master key: encrypted, bound to their scope, found by the most specific one."""

from __future__ import annotations

import asyncio
import base64
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from sqlalchemy import update

from agency import logs
from agency.store.credentials import Cipher, CredentialsUnreadable, EncryptedCredentials
from agency.store.keyring import KEY_VARIABLE, Keyring, KeyringError
from agency.store.models import CredentialRow
from agency.store.store import Store
from vendor_modules.services.credentials import (
    AccessKeyCredentials,
    Credentials,
    CredentialStore,
    ExternalCredentials,
    KeyPairCredentials,
    PasswordCredentials,
)

KEY = bytes(range(32))


@pytest.fixture(autouse=True)
def _forgotten() -> Iterator[None]:
    """What is hidden here are words that other tests' messages have in them."""
    yield
    logs.forget_hidden()


@pytest.fixture
def credentials(store: Store) -> EncryptedCredentials:
    """The credentials service on an empty store."""
    return EncryptedCredentials(store, Cipher(KEY))


def _password(word: str) -> PasswordCredentials:
    return PasswordCredentials(username="ada", password=SecretStr(word))


@pytest.mark.parametrize(
    "kept",
    [
        _password("pass wörd 值"),
        KeyPairCredentials(public_key="ssh-ed25519 AAAA", private_key=SecretStr("-----BEGIN\nKEY-----")),
        AccessKeyCredentials(access_key="AKIA", secret_key=SecretStr("s3cret")),
        ExternalCredentials(username="ada", variable="ADAS_PASSWORD"),
    ],
    ids=lambda c: c.kind,
)
async def test_every_kind_comes_out_as_it_went_in(credentials: CredentialStore, kept: Credentials) -> None:
    """Credentials of each kind are read back equal, their secrets included."""
    await credentials.put("alpha", kept)
    assert await credentials.get("alpha") == kept


async def test_most_specific_credentials_are_found(credentials: EncryptedCredentials) -> None:
    """Resource class and agreement come first, then the agreement, then the resource class, then the vendor."""
    await credentials.put("alpha", _password("vendor"))
    await credentials.put("alpha", _password("resource"), resource="machine")
    await credentials.put("alpha", _password("agreement"), agreement="a1")
    await credentials.put("alpha", _password("both"), resource="machine", agreement="a1")

    async def found(**scope: str) -> str:
        answer = await credentials.get("alpha", **scope)
        assert isinstance(answer, PasswordCredentials)
        return answer.password.get_secret_value()

    assert await found(resource="machine", agreement="a1") == "both"
    assert await found(resource="other", agreement="a1") == "agreement"
    assert await found(resource="machine", agreement="other") == "resource"
    assert await found(resource="other", agreement="other") == await found() == "vendor"
    assert await credentials.get("beta") is None


async def test_put_replaces_and_delete_forgets(credentials: EncryptedCredentials) -> None:
    """The latest credentials of a scope count; deleting a vendor's removes those of every scope."""
    await credentials.put("alpha", _password("old"))
    await credentials.put("alpha", _password("new"))
    await credentials.put("alpha", _password("narrow"), resource="machine")
    await credentials.put("beta", _password("other"))
    assert await credentials.get("alpha") == _password("new")
    await credentials.delete("alpha")
    assert await credentials.get("alpha", resource="machine") is None
    assert await credentials.get("beta") == _password("other")


async def test_nothing_readable_is_on_disk(tmp_path: Path) -> None:
    """Neither secret nor user name can be found in the database's files."""
    async with Store.open(f"sqlite:///{tmp_path}/agency.db") as store:
        await EncryptedCredentials(store, Cipher(KEY)).put("alpha", _password("correct-horse"))
        content = b"".join(file.read_bytes() for file in tmp_path.iterdir())
    assert b"alpha" in content
    assert b"correct-horse" not in content
    assert b"ada" not in content


async def test_secrets_that_were_handled_are_not_logged(store: Store, credentials: EncryptedCredentials) -> None:
    """A secret that was kept, or read by another process, is masked in whatever is logged from then on."""
    await credentials.put("alpha", _password("battery-staple"))
    assert logs.masked("wrong: battery-staple") == f"wrong: {logs.MASK}"
    logs.forget_hidden()
    await credentials.get("alpha")
    assert logs.masked("wrong: battery-staple") == f"wrong: {logs.MASK}"
    logs.forget_hidden()


def test_same_secret_never_encrypts_alike() -> None:
    """Two encryptions of the same bytes differ: a nonce is never used twice."""
    cipher = Cipher(KEY)
    assert cipher.encrypt(b"x", b"scope") != cipher.encrypt(b"x", b"scope")


async def test_wrong_key_is_explained(store: Store, credentials: EncryptedCredentials) -> None:
    """Under another master key, reading raises CredentialsUnreadable, which says what to do and tells no secret."""
    await credentials.put("alpha", _password("correct-horse"))
    with pytest.raises(CredentialsUnreadable, match=r"vendor 'alpha'.*master key") as caught:
        await EncryptedCredentials(store, Cipher(bytes(32))).get("alpha")
    assert "correct-horse" not in str(caught.value)


@pytest.mark.parametrize("change", ["swap", "flip", "cut", "empty"])
async def test_tampered_rows_are_refused(store: Store, credentials: EncryptedCredentials, change: str) -> None:
    """A ciphertext moved to another vendor, changed, shortened or emptied is not accepted."""
    await credentials.put("alpha", _password("one"))
    async with store.transaction() as session:
        row = await session.get(CredentialRow, ("alpha", "", ""))
        assert row is not None
        blob = row.ciphertext
        if change == "swap":
            session.add(CredentialRow(vendor="beta", resource="", agreement="", ciphertext=blob))
        else:
            bad = {"flip": blob[:-1] + bytes([blob[-1] ^ 1]), "cut": blob[:20], "empty": b""}[change]
            await session.execute(update(CredentialRow).values(ciphertext=bad))
    with pytest.raises(CredentialsUnreadable):
        await credentials.get("beta" if change == "swap" else "alpha")


def test_key_is_made_once_and_private(tmp_path: Path) -> None:
    """The first use makes a random key in a file of mode 0600; later uses read it."""
    file = tmp_path / "state" / "master.key"
    key = Keyring(file, {}).key()
    assert len(key) == 32
    assert Keyring(file, {}).key() == key
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [p.name for p in file.parent.iterdir()] == ["master.key"]
    assert Keyring(tmp_path / "other", {}).key() != key


async def test_many_processes_agree_on_the_first_key(tmp_path: Path) -> None:
    """However many make the key at once, all get the same one."""
    keys = await asyncio.gather(*(asyncio.to_thread(Keyring(tmp_path / "k", {}).key) for _ in range(16)))
    assert len(set(keys)) == 1


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o660, 0o666])
def test_key_that_others_can_read_is_refused(tmp_path: Path, mode: int) -> None:
    """A key file open to group or others is refused, with the command that helps."""
    file = tmp_path / "master.key"
    Keyring(file, {}).key()
    file.chmod(mode)
    with pytest.raises(KeyringError, match="chmod 600"):
        Keyring(file, {}).key()


def test_damaged_key_file_is_refused(tmp_path: Path) -> None:
    """A key file of the wrong length is refused, not padded, cut or replaced."""
    file = tmp_path / "master.key"
    file.touch(mode=0o600)
    for content in (b"", b"short", bytes(33)):
        file.write_bytes(content)
        with pytest.raises(KeyringError, match="32 bytes"):
            Keyring(file, {}).key()
        assert file.read_bytes() == content


def test_key_from_the_environment_comes_first(tmp_path: Path) -> None:
    """A key in the environment is used, and no file is made."""
    environment = {KEY_VARIABLE: base64.b64encode(KEY).decode()}
    assert Keyring(tmp_path / "master.key", environment).key() == KEY
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("value", ["x", "!!!!", base64.b64encode(bytes(16)).decode()])
def test_bad_key_in_the_environment_is_explained(tmp_path: Path, value: str) -> None:
    """A key in the environment that is not 32 bytes in base64 is refused, without repeating it."""
    with pytest.raises(KeyringError, match=KEY_VARIABLE) as caught:
        Keyring(tmp_path / "k", {KEY_VARIABLE: value}).key()
    assert value == "x" or value not in str(caught.value)


def test_impossible_place_is_explained(tmp_path: Path, monkeypatch: Any) -> None:
    """A place where no file can be made raises KeyringError, not OSError."""
    (tmp_path / "file").touch()
    with pytest.raises(KeyringError, match="cannot be used"):
        Keyring(tmp_path / "file" / "k", {}).key()
