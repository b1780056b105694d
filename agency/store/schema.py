"""Brings a database to the tables that this version of the agency needs."""

from __future__ import annotations

from pathlib import Path

from alembic import command
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import URL, Connection, create_engine, event, text

_MIGRATIONS = Path(__file__).with_name("migrations")
_LOCK = 0x41_67_65_6E_63_79
"""The number of PostgreSQL's advisory lock that migrations are made under."""


class NewerStore(Exception):
    """The database was written by a newer version of the agency."""


def upgrade(url: URL) -> None:
    """Apply the migrations that are missing, in one transaction; blocks, so call it in a thread.

    Several processes may do so at once: the first applies them, the others wait. :class:`NewerStore` if the database
    has a migration that this version does not know.
    """
    engine = create_engine(url)
    if engine.dialect.name == "sqlite":
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
