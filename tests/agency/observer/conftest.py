"""A small agency on the component link of a real server, and an observer with an account there."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest
from pydantic import SecretStr

from agency.agents.deployer import DeployerAgent
from agency.messaging.event_nodes import EventNodes
from agency.messaging.links import Link
from agency.messaging.links.component import component_link
from agency.relocation.workshop import Workshop
from agency.running import _published, _society
from descriptors import documents
from descriptors.base import Document
from descriptors.deployment import Deployment
from descriptors.documents import Form
from descriptors.messages import Action, Request
from tests.agency.conftest import in_memory, workshop_at
from tests.agency.toys import CONFIG, Cloud, notebook
from tests.integration.test_links import clients
from tests.labs.observer import Observer, installed
from tests.labs.xmpp import XmppServer, running_server

D = TypeVar("D", bound=Document)


@dataclass
class SmallAgency:
    """All roles at work over three toy clouds, on an XMPP server."""

    server: XmppServer
    link: Link
    workshop: Workshop
    deployer: DeployerAgent
    nodes: EventNodes

    async def request(self, action: Action, subject: str, expect: type[D] = Deployment) -> D:
        """Ask the Mediator for an action, as the agency's own command line does."""
        return await self.deployer.request(Request(action=action, subject=subject), expect)


@pytest.fixture(scope="session")
def command() -> Path:
    """``agency-observer``, installed."""
    return installed()


@pytest.fixture
async def ann(command: Path, xmpp_server: XmppServer) -> Observer:
    """Ann, whom the deployer's settings name."""
    return await asyncio.to_thread(Observer, command, xmpp_server, "ann")


@pytest.fixture
async def agency(
    ann: Observer, xmpp_server: XmppServer, clouds: dict[str, Cloud], hurried: None, dbos: None
) -> AsyncIterator[SmallAgency]:
    """An agency of which Ann is a deployer, on a component."""
    secret = SecretStr(xmpp_server.secret)
    async with (
        component_link(xmpp_server.agents, *xmpp_server.component, secret) as link,
        small_agency(xmpp_server, link, xmpp_server.agents, clouds, ann) as agency,
    ):
        yield agency


@pytest.fixture(params=["ejabberd", "prosody"])
async def agency_of_clients(
    request: pytest.FixtureRequest, command: Path, clouds: dict[str, Cloud], hurried: None, dbos: None
) -> AsyncIterator[tuple[SmallAgency, Observer]]:
    """An agency whose agents have an account each, and Ann, a deployer of it; on a server of their own, as the nodes on
    the others are a component's."""
    with running_server(request.param) as server:
        ann = await asyncio.to_thread(Observer, command, server, "ann")
        async with clients(server) as link, small_agency(server, link, server.domain, clouds, ann) as agency:
            yield agency, ann


@asynccontextmanager
async def small_agency(
    server: XmppServer, link: Link, domain: str, clouds: dict[str, Cloud], ann: Observer
) -> AsyncIterator[SmallAgency]:
    """An agency on that link."""
    with in_memory() as state:
        async with (
            workshop_at(state, *clouds.values(), domain=domain) as workshop,
            _society(workshop, link, 5, {ann.jid}) as deployer,
            _published(workshop.events, link, domain, {ann.jid}) as nodes,
        ):
            assert nodes is not None
            yield SmallAgency(server, link, workshop, deployer, nodes)


@pytest.fixture
def descriptor(tmp_path: Path) -> Path:
    """The notebook's descriptor as a file, with the file that it names."""
    (tmp_path / "notes.conf").write_bytes(CONFIG)
    file = tmp_path / "notes.yaml"
    file.write_text(documents.dump(notebook(), Form.YAML))
    return file
