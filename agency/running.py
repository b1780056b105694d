"""A running agency: everything opened and started in the order it depends on, and closed the other way round."""

from __future__ import annotations

import asyncio
import gc
import sqlite3
from collections.abc import AsyncIterator, Collection, Iterable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial

import structlog
from dbos import DBOS
from pydantic import SecretStr

from agency import logs
from agency.agents import addresses
from agency.agents.broker import BrokerAgent
from agency.agents.deployer import DeployerAgent
from agency.agents.mediator import MediatorAgent
from agency.agents.provisioner import ProvisionerAgent
from agency.agents.relocator import RelocatorAgent
from agency.agents.vendor import NOTHING, VendorAgent
from agency.blobs import Blobs
from agency.clouds import Cloud, running_clouds
from agency.events import Events
from agency.federation.directory import DirectoryAgent
from agency.janitor import keep_tidy
from agency.messaging.agent import RoleAgent
from agency.messaging.conversations import Conversations
from agency.messaging.event_nodes import EventNodes, event_nodes
from agency.messaging.links import Link
from agency.messaging.links.client import ClientLink, client_link
from agency.messaging.links.component import ComponentLink, component_link
from agency.messaging.links.in_process import InProcessLink
from agency.messaging.names import pubsub_of
from agency.problems import problem_of, refuse
from agency.relocation.viaduct import VIADUCTS
from agency.relocation.workshop import Order, Workshop
from agency.servers import secrets
from agency.settings import Settings
from agency.state import alone, opened, services
from agency.store.credentials import EncryptedCredentials
from agency.store.store import VendorConfig
from agency.strategies import policy
from agency.trust.site import Site
from vendor_modules import registry
from vendor_modules.module import VendorModule
from vendor_modules.services import Services

WORKFLOW_VERSION = "2"
"""Operations begun by one version are finished by the same: raised when the steps of an operation change."""
ENDED_POLLING = 0.2
"""Seconds between two looks at whether an operation that was taken up has ended."""
REGISTERED_WITHIN = 20.0
"""Seconds that the agency waits at its start for its vendors' agents to be in the directory."""
_GOING_ON = ("PENDING", "ENQUEUED")


log = structlog.get_logger("agency")


@dataclass(frozen=True)
class Unusable:
    """A vendor whose module cannot be used: it is not installed, or does not take the settings that were kept."""

    name: str
    module: str
    problem: str


@dataclass(frozen=True)
class Agency:
    """What runs: the settings, the workshop, the agent that speaks for the deployer, the testbed's clouds; and the
    vendors that are left out."""

    settings: Settings
    workshop: Workshop
    deployer: DeployerAgent
    clouds: dict[str, Cloud]
    unusable: tuple[Unusable, ...] = ()


@asynccontextmanager
async def running_agency(settings: Settings) -> AsyncIterator[Agency]:
    """Open the agency in its state directory; what an earlier process left undone is taken up again."""
    async with AsyncExitStack() as stack:
        stack.enter_context(alone(settings.state))
        logs.configure(settings.state)
        store, credentials = await stack.enter_async_context(opened(settings))
        clouds: dict[str, Cloud] = {}
        if settings.testbed:
            clouds = await stack.enter_async_context(
                running_clouds(settings.state / "clouds", store, credentials, settings.cloud_restart_seconds)
            )
        vendors = await store.vendors()
        modules, unusable = await _modules(stack, vendors, services(store, credentials, settings.state))
        link = await stack.enter_async_context(_link(settings, credentials))
        site = await Site.open(store, credentials, settings.domain)
        policies = {vendor.name: policy(vendor.negotiation) for vendor in vendors if vendor.name in modules}
        blobs, spool = Blobs(settings.state / "blobs"), settings.state / "spool"
        elsewhere = {vendor.name: vendor.agent for vendor in vendors if vendor.agent}
        workshop = Workshop(modules, store, blobs, spool, Events(store), site, policies, elsewhere)
        deployer = await stack.enter_async_context(_society(workshop, link, settings.call_seconds, settings.deployers))
        await stack.enter_async_context(_published(workshop.events, link, settings.domain, settings.deployers))
        await stack.enter_async_context(_workflows(settings, workshop))
        await stack.enter_async_context(_taken_up(workshop))
        for task in (keep_tidy(workshop), site.keep_current()):
            stack.callback(asyncio.create_task(task).cancel)
        yield Agency(settings, workshop, deployer, clouds, unusable)


def settle() -> None:
    """Say that everything has started: from now on, what is there now is no longer looked through for garbage.

    It stays as long as the process, and to look through it all would hold up the event loop for 0.1 s now and then.
    What a round of a thousand offers makes is looked through a few times, and not a hundred times.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


async def _modules(
    stack: AsyncExitStack, vendors: list[VendorConfig], given: Services
) -> tuple[dict[str, VendorModule], tuple[Unusable, ...]]:
    """The vendors' modules, open until the stack is; one that cannot be used does not keep the agency from the rest."""
    modules, unusable = {}, []
    for config in vendors:
        try:
            policy(config.negotiation)
            module = make_module(config.name, config.module, config.settings, given)
            modules[config.name] = await stack.enter_async_context(module)
        except Exception as error:  # noqa: BLE001 - modules are anybody's
            problem = problem_of(error)
            log.warning("vendor left out", vendor=config.name, module=config.module, problem=problem.message)
            unusable.append(Unusable(config.name, config.module, problem.message))
    return modules, tuple(unusable)


def make_module(vendor: str, name: str, settings: dict[str, object], given: Services) -> VendorModule:
    """The module of that name, as the vendor; refuses settings that it does not take."""
    kind = registry.load(name)
    return kind(vendor, kind.Settings.model_validate(settings), given)


@asynccontextmanager
async def _link(settings: Settings, credentials: EncryptedCredentials) -> AsyncIterator[Link]:
    """The link that the settings choose."""

    async def secret(jid: str) -> SecretStr | None:
        return settings.link_secret or await secrets.find(credentials, jid)

    if settings.link == "in-process":
        yield InProcessLink(settings.domain)
    elif settings.link == "client":
        async with client_link(settings.domain, settings.server_address(), settings.ca, secret) as clients:
            yield clients
    else:
        found = await secret(settings.domain)
        if found is None:
            remedy = f"`agency server init`, or keep it with `agency server secret {settings.domain}`"
            raise refuse("no-secret", f"there is no secret for the component {settings.domain}", remedy)
        async with component_link(settings.domain, *settings.server_address(), found) as component:
            yield component


def _published(
    events: Events, link: Link, domain: str, readers: Collection[str]
) -> AbstractAsyncContextManager[EventNodes | None]:
    """Publish events where the agents have a server: in the component's name, or in the Mediator's."""
    if isinstance(link, ComponentLink):
        return event_nodes(events, link.query, domain, pubsub_of(domain.partition(".")[2]), readers)
    if isinstance(link, ClientLink):
        mediator = link.address(addresses.MEDIATOR)
        return event_nodes(events, partial(link.query, mediator), mediator, pubsub_of(domain), readers)
    return nullcontext()


@asynccontextmanager
async def _society(
    workshop: Workshop, link: Link, call_seconds: float, deployers: Collection[str] = ()
) -> AsyncIterator[DeployerAgent]:
    """Start the agents on the link; gives the one that speaks for the deployer."""
    conversations = Conversations(workshop.store)
    await conversations.load()
    deployer = DeployerAgent(link.address(addresses.DEPLOYER), link, workshop)
    speakers = {name: workshop.speaker(name) for name in workshop.modules}
    directory = DirectoryAgent(link.address(addresses.DIRECTORY), link, workshop.site, speakers)
    ours = {name: module for name, module in workshop.modules.items() if name not in workshop.agents}
    agents: list[RoleAgent] = [directory]
    agents += [
        VendorAgent(
            link.address(addresses.vendor(name)),
            link,
            module,
            workshop.site,
            conversations,
            workshop.store,
            workshop.policies.get(name, NOTHING),
        )
        for name, module in ours.items()
    ]
    agents += [
        BrokerAgent(link.address(addresses.BROKER), link, workshop, conversations, directory),
        ProvisionerAgent(link.address(addresses.PROVISIONER), link, workshop),
        RelocatorAgent(link.address(addresses.RELOCATOR), link, workshop, call_seconds),
        MediatorAgent(link.address(addresses.MEDIATOR), link, workshop, call_seconds, deployers),
        deployer,
    ]
    try:
        for agent in agents:
            await agent.start()
        await _all_registered(directory, ours)
        yield deployer
    finally:
        for agent in reversed(agents):
            await agent.stop()


async def _all_registered(directory: DirectoryAgent, vendors: Iterable[str]) -> None:
    """Wait until the site's own vendors can be found; not for ever: who is late is found later."""
    with suppress(TimeoutError):
        async with asyncio.timeout(REGISTERED_WITHIN):
            await directory.known.has_all(vendors)


@asynccontextmanager
async def _workflows(settings: Settings, workshop: Workshop) -> AsyncIterator[None]:
    """Run DBOS on its own database. What an earlier process left undone goes on as soon as this begins."""
    if settings.workflow_database is None:
        with sqlite3.connect(settings.state / "workflows.db") as database:
            database.execute("PRAGMA journal_mode=WAL")
        (settings.state / "workflows.db").chmod(0o600)
        database.close()
    VIADUCTS.workshop = workshop
    DBOS(
        config={
            "name": "cloud-agency",
            "system_database_url": settings.workflow_url(),
            "application_version": WORKFLOW_VERSION,
            "executor_id": "agency",
            "log_level": "WARNING",
        }
    )
    DBOS.launch()
    try:
        yield
    finally:
        await VIADUCTS.suspend()
        DBOS.destroy()


@asynccontextmanager
async def _taken_up(workshop: Workshop) -> AsyncIterator[None]:
    """Mark what an earlier process left undone as under way, each until it has ended."""
    watches = []
    for left in await DBOS.list_workflows_async(status=list(_GOING_ON), name="operation", load_input=True):
        if left.app_version != WORKFLOW_VERSION or not left.input:
            log.warning(
                "operation of another version is not taken up: end it with the version that began it",
                operation=left.workflow_id, version=left.app_version, ours=WORKFLOW_VERSION,
            )  # fmt: skip
            continue
        order = Order.model_validate_json(left.input["args"][0])
        workshop.busy[order.application.name] = order.id
        watches.append(asyncio.create_task(_release(workshop, order)))
    try:
        yield
    finally:
        for watch in watches:
            watch.cancel()
        await asyncio.gather(*watches, return_exceptions=True)


async def _release(workshop: Workshop, order: Order) -> None:
    """See that the application is not busy once the operation has ended: it may have done so, and said so, before it
    was marked here. One that broke keeps its application, as the Viaduct would have it, until the next start."""
    while True:
        now = await DBOS.get_workflow_status_async(order.id)
        if now is None or now.status not in (*_GOING_ON, "ERROR"):
            break
        await asyncio.sleep(ENDED_POLLING)
    if workshop.busy.get(order.application.name) == order.id:
        del workshop.busy[order.application.name]
