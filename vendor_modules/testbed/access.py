"""Who may use the API: one account, its password kept as a scrypt hash, and tokens that last as long as the process."""

from __future__ import annotations

import asyncio
import hashlib
import json
from datetime import timedelta
from hmac import compare_digest
from secrets import token_bytes, token_urlsafe
from time import monotonic

from descriptors.base import utc_now
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.errors import ApiError
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.wire import Login, Token

WRONG_LOGIN_SECONDS = 0.5


class NoPassword(Exception):
    """The cloud has no password and was given none."""


class Access:
    """See the module."""

    def __init__(self, config: CloudConfig, store: Store) -> None:
        """Keep the configured password's hash, or use the one kept before; :class:`NoPassword` if there is neither."""
        self._config = config
        if config.password:
            salt = token_bytes(16)
            kept = {"salt": salt.hex(), "hash": _hash(config.password.get_secret_value(), salt).hex()}
            store.set_setting("password", json.dumps(kept))
        stored = store.setting("password")
        if stored is None:
            raise NoPassword("the first start of a cloud needs a password in its configuration")
        self._kept: dict[str, str] = json.loads(stored)
        self._tokens: dict[bytes, float] = {}
        self._wrong = asyncio.Lock()

    async def login(self, login: Login) -> Token:
        """A new token; wrong logins are answered one after the other, each after a while."""
        salt = bytes.fromhex(self._kept["salt"])
        hashed = await asyncio.to_thread(_hash, login.password.get_secret_value(), salt)
        good = compare_digest(hashed.hex(), self._kept["hash"])
        if not compare_digest(login.username.encode(), self._config.username.encode()) or not good:
            async with self._wrong:
                await asyncio.sleep(WRONG_LOGIN_SECONDS)
            raise ApiError(401, "unauthorized", "wrong user name or password")
        now, token = monotonic(), token_urlsafe(32)
        self._tokens = {known: end for known, end in self._tokens.items() if end > now}
        self._tokens[_digest(token)] = now + self._config.token_seconds
        return Token(token=token, expires_at=utc_now() + timedelta(seconds=self._config.token_seconds))

    def check(self, header: str | None) -> None:
        """The API's error unless the header is ``Bearer`` and a token that is still good."""
        scheme, _, token = (header or "").partition(" ")
        if scheme.lower() != "bearer" or self._tokens.get(_digest(token), 0.0) <= monotonic():
            raise ApiError(401, "unauthorized", "a valid token is needed: POST /v1/tokens")


def _hash(password: str, salt: bytes) -> bytes:
    return hashlib.scrypt(password.encode(), salt=salt, n=2**14, r=8, p=1, maxmem=64 * 1024 * 1024)


def _digest(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
