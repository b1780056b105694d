"""Real SPADE agents on the in-process link, stopped at the end of each test; a site that they sign for, and a store."""

from __future__ import annotations

import asyncio
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from agency.messaging.agent import RoleAgent
from agency.messaging.links.in_process import InProcessLink
from agency.store.store import Store
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from tests.agency.conftest import in_memory

Hire = Callable[..., Awaitable[RoleAgent]]


@pytest.fixture
async def link() -> InProcessLink:
    """The link that the test's agents live on."""
    return InProcessLink()


@pytest.fixture
async def hire(link: InProcessLink) -> AsyncIterator[Hire]:
    """Starts an agent of that name: ``agent = await hire("anna")``."""
    hired: list[RoleAgent] = []

    async def start(name: str) -> RoleAgent:
        agent = RoleAgent(f"{name}@test", link)
        await agent.start()
        hired.append(agent)
        return agent

    yield start
    for agent in hired:
        await agent.stop()


@pytest.fixture(scope="session")
def blank() -> Iterator[Path]:
    """A store's file with nothing in it: to copy it is faster than to make it."""

    async def make(file: Path) -> None:
        await (await Store.open(f"sqlite:///{file}")).close()

    with in_memory() as folder:
        asyncio.run(make(folder / "blank.db"))
        yield folder / "blank.db"


@pytest.fixture
async def store(blank: Path) -> AsyncIterator[Store]:
    """An empty store."""
    with in_memory() as folder:
        shutil.copy(blank, folder / "agency.db")
        async with Store.open(f"sqlite:///{folder}/agency.db") as opened:
            yield opened


@pytest.fixture(scope="session")
def key() -> SiteKey:
    """The key of the site ``test``."""
    return SiteKey.generate("test")


@pytest.fixture
def site(store: Store, key: SiteKey) -> Site:
    """The site that all agents here are of."""
    return Site(key, TrustedKeys([("test", key.public)]), Replays(), store)
