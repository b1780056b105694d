"""A workshop over toy clouds, and DBOS to run its operations.

DBOS is one for a process, and its threads draw random numbers, which Hypothesis takes for a fault of the strategies
that are drawn meanwhile: so it runs only for the modules that carry out operations.
"""

from __future__ import annotations

import logging
import os
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from decimal import Decimal
from pathlib import Path
from types import MappingProxyType

import pytest
import structlog
from dbos import DBOS

from agency.blobs import Blobs
from agency.events import Events
from agency.relocation import probing, viaduct
from agency.relocation.workshop import Workshop
from agency.running import WORKFLOW_VERSION
from agency.settings import DOMAIN, Settings
from agency.state import services
from agency.store.credentials import Cipher, EncryptedCredentials
from agency.store.store import Store
from agency.transfer.formats import streams
from agency.trust.site import Site
from tests.agency.toys import CONFIG, Cloud, toy_module


@contextmanager
def in_memory() -> Iterator[Path]:
    """A directory in memory where there is one: every step is written to disk durably, and disks are slow."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if os.access(memory, os.W_OK) else None) as directory:
        yield Path(directory)


@asynccontextmanager
async def workshop_at(
    state: Path, *clouds: Cloud, domain: str = DOMAIN, agents: Mapping[str, str] = MappingProxyType({})
) -> AsyncIterator[Workshop]:
    """A workshop in that directory over these clouds, on a real store; the workflows work with it. ``agents`` at other
    sites speak for some."""
    async with Store.open(f"sqlite+aiosqlite:///{state}/agency.db") as store:
        credentials = EncryptedCredentials(store, Cipher(bytes(32)))
        given = services(store, credentials, state)
        modules = {cloud.name: toy_module(cloud, given) for cloud in clouds}
        site = await Site.open(store, credentials, domain)
        events, blobs = Events(store), Blobs(state / "blobs")
        workshop = Workshop(modules, store, blobs, state / "spool", events, site, agents=dict(agents))
        workshop.blobs.put(CONFIG)
        viaduct.VIADUCTS.workshop = workshop
        try:
            yield workshop
        finally:
            for cloud in clouds:
                await cloud.close()


@pytest.fixture(scope="module")
def dbos() -> Iterator[None]:
    """Durable workflows, as the agency launches them."""
    with in_memory() as state:
        with sqlite3.connect(state / "workflows.db") as database:
            database.execute("PRAGMA journal_mode=WAL")
        database.close()
        DBOS(
            config={
                "name": "cloud-agency",
                "system_database_url": Settings(state=state).workflow_url(),
                "application_version": WORKFLOW_VERSION,
                "executor_id": "agency",
                "log_level": "ERROR",
            }
        )
        DBOS.launch()
        yield
        DBOS.destroy()


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log on the console: to print it takes longer than what it tells of."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    structlog.reset_defaults()


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch, quiet: None) -> None:
    """Little patience: what does not come at once does not come in a test."""
    monkeypatch.setattr(probing, "HEALTHY_WITHIN", 0.3)
    monkeypatch.setattr(viaduct, "RESTORE_PATIENCE", 0.1)
    monkeypatch.setattr(viaduct, "RESULT_POLLING", 0.01)
    monkeypatch.setattr(streams, "_ATTEMPTS", 1)


@pytest.fixture
def clouds() -> dict[str, Cloud]:
    """Three clouds: alpha and beta have block storage, cirrus has none."""
    return {
        "alpha": Cloud(name="alpha"),
        "beta": Cloud(name="beta", per_hour=Decimal("0.02")),
        "cirrus": Cloud(name="cirrus", per_hour=Decimal("0.015"), block=False),
    }


@pytest.fixture
async def workshop(clouds: dict[str, Cloud], hurried: None) -> AsyncIterator[Workshop]:
    """A workshop over the three clouds."""
    with in_memory() as state:
        async with workshop_at(state, *clouds.values()) as opened:
            yield opened
