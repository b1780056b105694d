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


@pytest_asyncio.fixture
async def cloud(desk: RunningCloud) -> AsyncIterator[TestbedModule]:
    """A module that talks to the shared cloud; whatever a test leaves there is removed."""
    async with module_for(desk.url, vendor="desk") as module:
        yield module
        for kind, resource in await inventory(module):
            await destroy(module, kind, resource.id)
