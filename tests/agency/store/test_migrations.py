"""The migrations make exactly the tables of the models, and can be taken back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Connection, create_engine, inspect, make_url

from agency.store import schema
from agency.store.models import Row
from agency.store.store import CannotOpen, Store


def _with(url: str, work: Callable[[Connection], Any]) -> Any:
    engine = create_engine(make_url(url.replace("sqlite+aiosqlite", "sqlite")))
    try:
        with engine.begin() as connection:
            return work(connection)
    finally:
        engine.dispose()


def _differences(connection: Connection) -> list[Any]:
    context = MigrationContext.configure(connection, opts={"compare_type": True, "compare_server_default": True})
    return list(compare_metadata(context, Row.metadata))


async def test_models_equal_migrations(url: str) -> None:
    """After all migrations, alembic finds no difference between the database and the models."""
    await (await Store.open(url)).close()
    assert await asyncio.to_thread(_with, url, _differences) == []


async def test_up_down_up(url: str) -> None:
    """All migrations can be taken back, which leaves nothing, and be applied again."""
    await (await Store.open(url)).close()
    await asyncio.to_thread(_with, url, lambda c: command.downgrade(schema.config(c), "base"))
    assert await asyncio.to_thread(_with, url, lambda c: inspect(c).get_table_names()) == ["alembic_version"]
    async with Store.open(url) as store:
        assert await store.vendors() == []
    assert await asyncio.to_thread(_with, url, _differences) == []


async def test_failed_migration_leaves_the_database_as_it_was(tmp_path: Path, monkeypatch: Any) -> None:
    """A migration that fails halfway is undone as a whole, on SQLite too."""

    def broken(settings: Any, revision: str) -> None:
        settings.attributes["connection"].exec_driver_sql("CREATE TABLE half (id INTEGER)")
        raise RuntimeError("power cut")

    monkeypatch.setattr(command, "upgrade", broken)
    url = f"sqlite:///{tmp_path}/agency.db"
    with pytest.raises(CannotOpen, match="power cut"):
        await Store.open(url)
    assert await asyncio.to_thread(_with, url, lambda c: inspect(c).get_table_names()) == []
