"""Real SPADE agents on the in-process link, stopped at the end of each test."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from agency.messaging.agent import RoleAgent
from agency.messaging.links.in_process import InProcessLink

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
