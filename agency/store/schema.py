"""Brings a database to the tables that this version of the agency needs."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing
from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, text

_MIGRATIONS = Path(__file__).with_name("migrations")
_PATIENCE = 30.0
"""Seconds to wait for other processes."""
_LOCK = 0x41_67_65_6E_63_79
"""The number of PostgreSQL's advisory lock that migrations are made under."""


class NewerStore(Exception):
    """The database was written by a newer version of the agency."""


def upgrade(url: URL) -> None:
    """Apply the migrations that are missing, in one transaction; blocks, so call it in a thread.

    Several processes may do so at once: the first applies them, the others wait. :class:`NewerStore` if the database
    has a migration that this version does not know.
    """
    sqlite = url.get_backend_name() == "sqlite"
    engine = create_engine(url, connect_args={"timeout": _PATIENCE} if sqlite else {})
    if sqlite:
        _use_write_ahead_log(str(url.database))
        # SQLite's driver ends transactions at every CREATE TABLE unless we begin them ourselves.
        event.listen(engine, "connect", lambda connection, _: setattr(connection, "isolation_level", None))
        event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
    try:
        with engine.begin() as connection:
            if connection.dialect.name == "postgresql":
                connection.execute(text("SELECT pg_advisory_xact_lock(:lock)"), {"lock": _LOCK})
            _upgrade(connection)
    finally:
        engine.dispose()


def _use_write_ahead_log(file: str) -> None:
    """Once is enough: the file keeps the mode. The switch is the one statement for which SQLite does not wait until
    others are done, so it is made here, with our own patience, and not in every connection."""
    deadline = time.monotonic() + _PATIENCE
    with closing(sqlite3.connect(file)) as connection:
        while True:
            try:
                connection.execute("PRAGMA journal_mode = WAL")
                return
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode & 0xFF != sqlite3.SQLITE_BUSY or time.monotonic() > deadline:
                    raise
            time.sleep(0.02)


def _upgrade(connection: Connection) -> None:
    settings = config(connection)
    known = ScriptDirectory.from_config(settings)
    present = MigrationContext.configure(connection).get_current_revision()
    if present == known.get_current_head():
        return
    if present is not None and present not in {script.revision for script in known.walk_revisions()}:
        raise NewerStore(
            f"the store is at revision {present}, which this version of Cloud Agency does not know: "
            "use the version that wrote it, or a newer one"
        )
    command.upgrade(settings, "head")


def config(connection: Connection) -> Config:
    """Alembic's configuration for work on that connection, which must be in a transaction."""
    settings = Config()
    settings.set_main_option("script_location", str(_MIGRATIONS).replace("%", "%%"))
    settings.attributes["connection"] = connection
    return settings
