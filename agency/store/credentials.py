"""Credentials in the store, encrypted (AES-256-GCM).

Each ciphertext is bound to its scope: who can write to the database still cannot make one vendor's secret pass for
another's.
"""

from __future__ import annotations

import json
import os
import secrets

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from pydantic import SecretStr, TypeAdapter
from sqlalchemy import delete, select
from sqlalchemy.exc import IntegrityError

from agency import logs
from agency.store.models import CredentialRow
from agency.store.store import Store, StoreError
from vendor_modules.services.credentials import Credentials, ExternalCredentials

_NONCE_BYTES = 12
_CREDENTIALS: TypeAdapter[Credentials] = TypeAdapter(Credentials)


class CredentialsUnreadable(StoreError):
    """Stored credentials cannot be decrypted: the master key is another one, or the row was tampered with."""


class Cipher:
    """Authenticated encryption under one key of 32 bytes: see :class:`~agency.store.keyring.Keyring`."""

    def __init__(self, key: bytes) -> None:
        self._aead = AESGCM(key)

    def encrypt(self, plain: bytes, scope: bytes) -> bytes:
        """The ciphertext, readable only with the same scope."""
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return nonce + self._aead.encrypt(nonce, plain, scope)

    def decrypt(self, ciphertext: bytes, scope: bytes) -> bytes:
        """What was encrypted; ``InvalidTag`` when key, scope or ciphertext is another."""
        return self._aead.decrypt(ciphertext[:_NONCE_BYTES], ciphertext[_NONCE_BYTES:], scope)


class EncryptedCredentials:
    """The credentials service: :class:`~vendor_modules.services.credentials.CredentialStore` on the store."""

    def __init__(self, store: Store, cipher: Cipher) -> None:
        self._store = store
        self._cipher = cipher

    async def get(
        self, vendor: str, *, resource: str | None = None, agreement: str | None = None
    ) -> Credentials | None:
        """The most specific credentials: those for the resource class and agreement, else for the agreement, else for
        the resource class, else for the vendor; None if there are none. :class:`CredentialsUnreadable`."""
        query = select(CredentialRow).where(
            CredentialRow.vendor == vendor,
            CredentialRow.resource.in_({resource or "", ""}),
            CredentialRow.agreement.in_({agreement or "", ""}),
        )
        async with self._store.transaction() as session:
            rows = (await session.scalars(query)).all()
        row = max(rows, key=lambda row: (row.agreement != "", row.resource != ""), default=None)
        return None if row is None else self._decrypted(row)

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """Keep credentials, encrypted, in place of any for the same scope."""
        hide(credentials)
        scope = _scope(vendor, resource or "", agreement or "")
        row = {"vendor": vendor, "resource": resource or "", "agreement": agreement or ""}
        await self._store.upsert(
            CredentialRow, row | {"ciphertext": self._cipher.encrypt(_revealed(credentials), scope)}
        )

    async def put_first(self, vendor: str, credentials: Credentials) -> Credentials:
        """Keep credentials unless there are some already, perhaps another process's; returns those that are kept."""
        hide(credentials)
        ciphertext = self._cipher.encrypt(_revealed(credentials), _scope(vendor, "", ""))
        row = CredentialRow(vendor=vendor, resource="", agreement="", ciphertext=ciphertext)
        try:
            async with self._store.transaction() as session:
                session.add(row)
        except IntegrityError:
            return await self.get(vendor) or credentials
        return credentials

    async def delete(self, vendor: str) -> None:
        """Forget all credentials of a vendor, of every scope; none is fine."""
        async with self._store.transaction() as session:
            await session.execute(delete(CredentialRow).where(CredentialRow.vendor == vendor))

    def _decrypted(self, row: CredentialRow) -> Credentials:
        try:
            plain = self._cipher.decrypt(row.ciphertext, _scope(row.vendor, row.resource, row.agreement))
        except (InvalidTag, ValueError):
            raise CredentialsUnreadable(
                f"the credentials of vendor {row.vendor!r} cannot be decrypted: use the master key that they were "
                f"kept with, or give them anew with `agency vendor add`"
            ) from None
        credentials = _CREDENTIALS.validate_json(plain)
        hide(credentials)
        return credentials


def hide(credentials: Credentials) -> None:
    """Whoever has asked for a secret may let it slip: from now on no log shows it."""
    for _, value in credentials:
        if isinstance(value, SecretStr):
            logs.hide(value)
    if isinstance(credentials, ExternalCredentials) and (known := os.environ.get(credentials.variable)):
        logs.hide(SecretStr(known))


def _scope(vendor: str, resource: str, agreement: str) -> bytes:
    return json.dumps([vendor, resource, agreement]).encode()


def _revealed(credentials: Credentials) -> bytes:
    """The credentials as JSON with their secrets, which pydantic would print as asterisks."""
    values = {name: value.get_secret_value() if isinstance(value, SecretStr) else value for name, value in credentials}
    return json.dumps(values).encode()
