"""What a proxy has issued tokens for, and what came of each: its transfers. A token's meaning is here and nowhere else.

Of the token itself only a hash is kept. A token is good for one transfer, with one peer, until it expires: what broke
off, the same peer can go on with; when the transfer is complete, or cancelled, the token is worth nothing. All this
outlasts the process.
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
import sqlite3
import threading
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import StrEnum
from pathlib import Path
from typing import Any, Literal

from agency.problems import refuse
from agency.transfer.wire import TOKEN
from descriptors.base import new_id, utc_now

REMEMBERED = timedelta(days=30)
"""How long what came of a transfer can be seen after its token has expired."""
MOST = 10_000
"""Transfers that are remembered."""
FILE = "transfers.db"


class State(StrEnum):
    """Where a transfer stands."""

    WAITING = "waiting"
    RUNNING = "running"
    BROKEN = "broken"
    """It ended early: the same peer can go on with it, by the same token."""
    COMPLETE = "complete"
    CANCELLED = "cancelled"


@dataclass(frozen=True)
class Transfer:
    """What a token means, and what came of it."""

    id: str
    direction: Literal["read", "write"]
    """What the peer may do with the file."""
    file: str
    """Below the proxy's root."""
    format: str
    """What the file is in, such as raw or qcow2."""
    peer: str
    """The name, or the fingerprint, of the proxy that it is bound to."""
    most: int | None
    """Most bytes that the content may have."""
    expires: datetime
    """Until when it can be begun, or gone on with."""
    state: State = State.WAITING
    started: datetime | None = None
    finished: datetime | None = None
    size: int | None = None
    wire: int = 0
    """Bytes that went over the streams, of the last attempt."""
    root: str | None = None
    problem: str | None = None
    """Why it broke off, in words."""
    statement: str | None = None
    """The manifest that the destination has signed."""
    base: str | None = None
    """Below the proxy's root: what a file that is written begins from."""


_COLUMNS = tuple(field.name for field in fields(Transfer))
_MOMENTS = ("expires", "started", "finished")


class Ledger:
    """The transfers of a proxy, in a file. For threads."""

    def __init__(self, folder: Path, *, mine: bool = True) -> None:
        """Open it, or begin one. If it is ``mine``, and no other process's, the transfers that ran are broken off."""
        file = folder / FILE
        file.touch(mode=0o600)
        self._lock = threading.Lock()
        self._database = sqlite3.connect(file, check_same_thread=False, isolation_level=None)
        self._database.execute("PRAGMA synchronous = EXTRA")
        self._database.execute(f"CREATE TABLE IF NOT EXISTS transfers (token PRIMARY KEY, {', '.join(_COLUMNS)})")
        there = {name for _, name, *_ in self._database.execute("PRAGMA table_info(transfers)")}
        for name in (name for name in _COLUMNS if name not in there):  # of an earlier version's file
            self._database.execute(f"ALTER TABLE transfers ADD COLUMN {name}")
        if mine:
            self._database.execute(
                "UPDATE transfers SET state = ?, problem = ? WHERE state = ?",
                (State.BROKEN, "the proxy was stopped meanwhile", State.RUNNING),
            )

    def issue(
        self,
        direction: Literal["read", "write"],
        file: str,
        format: str,  # noqa: A002
        peer: str,
        most: int | None,
        lifetime: timedelta,
        base: str | None = None,
    ) -> tuple[Transfer, bytes]:
        """A token for that, which cannot be had again."""
        token = secrets.token_bytes(TOKEN)
        now = utc_now()
        transfer = Transfer(new_id("transfer"), direction, file, format, peer, most, now + lifetime, base=base)
        with self._lock:
            self._database.execute("DELETE FROM transfers WHERE expires < ?", ((now - REMEMBERED).isoformat(),))
            if self._database.execute("SELECT count(*) FROM transfers").fetchone()[0] >= MOST:
                raise refuse("too-many-transfers", f"{MOST} transfers are remembered", "wait until some are forgotten")
            marks = ", ".join("?" * (len(_COLUMNS) + 1))
            self._database.execute(f"INSERT INTO transfers VALUES ({marks})", (_hash(token), *_values(transfer)))  # noqa: S608
        return transfer, token

    def find(self, token: bytes) -> Transfer:
        """What the token means; refused (``unknown-token``) where it means nothing."""
        hashed = _hash(token)
        with self._lock:
            row = self._database.execute(
                f"SELECT token, {', '.join(_COLUMNS)} FROM transfers WHERE token = ?",  # noqa: S608
                (hashed,),
            ).fetchone()
        if row is None or not hmac.compare_digest(row[0], hashed):
            raise refuse("unknown-token", "this proxy has not issued that token", "ask its site for another")
        return _transfer(row[1:])

    def get(self, id_: str) -> Transfer:
        """The transfer with that id."""
        found = self._select("WHERE id = ?", id_)
        if not found:
            raise refuse("not-found", f"there is no transfer {id_[:80]!r}", "see `agency transfer list`")
        return found[0]

    def all(self) -> list[Transfer]:
        """All of them, the newest last."""
        return self._select("ORDER BY rowid")

    def begin(self, token: bytes) -> Transfer:
        """The transfer begins, or goes on: from now on nobody else can do so. Refused when it cannot."""
        transfer = self.find(token)
        if transfer.state in (State.COMPLETE, State.CANCELLED):
            raise refuse("token-used", f"that token's transfer is {transfer.state}", "ask for another token")
        if transfer.expires <= utc_now():
            raise refuse("token-expired", "that token has expired", "ask for another one")
        with self._lock:
            done = self._database.execute(
                "UPDATE transfers SET state = ?, started = ?, problem = NULL WHERE id = ? AND state IN (?, ?)",
                (State.RUNNING, utc_now().isoformat(), transfer.id, State.WAITING, State.BROKEN),
            )
        if done.rowcount != 1:
            raise refuse("transfer-running", "that token's transfer is under way", "wait for it, or cancel it")
        return self.get(transfer.id)

    def change(self, id_: str, **values: Any) -> Transfer:
        """Note what came of it."""
        with self._lock:
            settings = ", ".join(f"{name} = ?" for name in values)
            self._database.execute(
                f"UPDATE transfers SET {settings} WHERE id = ?",  # noqa: S608
                (*map(_plain, values.values()), id_),
            )
        return self.get(id_)

    def _select(self, which: str, *values: str) -> list[Transfer]:
        with self._lock:
            rows = self._database.execute(f"SELECT {', '.join(_COLUMNS)} FROM transfers {which}", values)  # noqa: S608
            return [_transfer(row) for row in rows.fetchall()]

    def close(self) -> None:
        """Let go of the file."""
        with self._lock:  # SQLite may crash where a thread, as of a stream that is just being heard, is still asking
            self._database.close()


def _hash(token: bytes) -> bytes:
    return hashlib.sha256(token).digest()


def _values(transfer: Transfer) -> list[Any]:
    return [_plain(getattr(transfer, name)) for name in _COLUMNS]


def _plain(value: Any) -> Any:
    return value.isoformat() if isinstance(value, datetime) else value


def _transfer(row: tuple[Any, ...]) -> Transfer:
    values = dict(zip(_COLUMNS, row, strict=True))
    values |= {name: datetime.fromisoformat(values[name]) for name in _MOMENTS if values[name]}
    return Transfer(**values | {"state": State(values["state"])})
