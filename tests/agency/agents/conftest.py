"""All roles at work over the in-process link, as a running agency has them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TypeVar

import pytest

from agency.agents import addresses
from agency.agents.deployer import DeployerAgent
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.request import ask
from agency.relocation.workshop import Workshop
from agency.running import _society
from descriptors.application import Application
from descriptors.base import Document
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.messages import Action, Request
from descriptors.sla import Agreement
from tests.agency.toys import Cloud

D = TypeVar("D", bound=Document)


@dataclass
class Society:
    """The agents, and what a deployer says to them."""

    deployer: DeployerAgent
    workshop: Workshop
    clouds: dict[str, Cloud]

    async def submit(self, application: Application) -> Comparison:
        """Submit a descriptor."""
        return await ask(self.deployer, self.deployer.link.address(addresses.MEDIATOR), application, Comparison)

    async def request(self, action: Action, subject: str, expect: type[D] = Deployment, **choice: str) -> D:
        """Ask the mediator for an action."""
        request = Request(action=action, subject=subject, **choice)
        return await self.deployer.request(request, expect)

    async def deployed(self, application: Application) -> Deployment:
        """Submit, accept what is recommended, deploy."""
        chosen = (await self.submit(application)).chosen
        assert chosen is not None
        await self.request("accept", chosen.id, Agreement)
        return await self.request("deploy", application.name)


@pytest.fixture
async def society(workshop: Workshop, clouds: dict[str, Cloud], dbos: None) -> AsyncIterator[Society]:
    """The agents at work."""
    async with _society(workshop, InProcessLink(), call_seconds=5) as deployer:
        yield Society(deployer, workshop, clouds)
