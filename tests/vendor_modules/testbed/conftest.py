"""One cloud process for all tests that leave it as they found it; every test gets a module of its own to talk to it."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from tests.labs.testbed import RunningCloud, module_for, start_cloud
from vendor_modules.capabilities import destroy, inventory
from vendor_modules.testbed.module import TestbedModule


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def desk(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCloud]:
    """The cloud that tests share."""
    async with start_cloud(tmp_path_factory.mktemp("desk") / "state", name="desk") as cloud:
        yield cloud


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def outpost(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCloud]:
    """A poor cloud, far away on a narrow line, without block and object storage."""
    poor = {
        "block_gib_month": None,
        "object_gib_month": None,
        "latency_ms": 80,
        "bandwidth_bytes_per_second": 1_000_000,
    }
    async with start_cloud(tmp_path_factory.mktemp("outpost") / "state", name="outpost", **poor) as cloud:
        yield cloud


@pytest_asyncio.fixture
async def far(outpost: RunningCloud) -> AsyncIterator[TestbedModule]:
    """A module that talks to the poor cloud; images that a test leaves there are removed."""
    async with module_for(outpost.url, vendor="outpost") as module:
        yield module
        for kind, resource in await inventory(module):
            await destroy(module, kind, resource.id)


@pytest_asyncio.fixture
async def cloud(desk: RunningCloud) -> AsyncIterator[TestbedModule]:
    """A module that talks to the shared cloud; whatever a test leaves there is removed."""
    async with module_for(desk.url, vendor="desk") as module:
        yield module
        for kind, resource in await inventory(module):
            await destroy(module, kind, resource.id)
