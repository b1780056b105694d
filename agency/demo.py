"""The main job as a story that checks itself: an application is brokered, deployed, used, relocated and proven.

Nothing is taken on trust: what the agency reports is checked against the application's own answers over HTTP and
against what the clouds really hold.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import sys
import tempfile
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from blake3 import blake3
from rich.console import Console
from rich.markup import escape

from agency import show
from agency.agents import addresses
from agency.api import views
from agency.api.server import serving
from agency.clouds import CLOUDS
from agency.messaging.request import ask
from agency.places import default_state
from agency.problems import problem_of
from agency.relocation.probing import client
from agency.running import Agency, running_agency
from agency.servers import accounts
from agency.servers.running import check_installed, temporary_server
from agency.servers.setting_up import Kind
from agency.settings import DOMAIN, LinkKind, Settings
from agency.signals import stopped
from agency.state import opened
from agency.submission import gather
from descriptors.application import Application
from descriptors.base import Document
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.documents import load
from descriptors.messages import Request
from descriptors.relocation import RelocationPlan, RelocationReceipt
from descriptors.sla import Agreement
from vendor_modules.capabilities import inventory

Json = dict[str, Any]
D = TypeVar("D", bound=Document)

TARGET = "cirrus"
"""The testbed cloud without block storage."""
SERVER_DOMAIN = "demo.test"
"""The site's, where the agents speak over an XMPP server."""
ENTRIES = (
    ("Ada", "The engine might act upon other things besides number."),
    ("Grace", "A ship in port is safe, but that is not what ships are built for."),
    ("Žofie", "Ahoj z Prahy — and I came back after the move. 👋"),
)


def example() -> Path:
    """The guestbook's folder: in the source tree, or as it was installed."""
    installed = Path(__file__).parent / "examples" / "guestbook"
    return installed if installed.exists() else Path(__file__).parent.parent / "examples" / "guestbook"


async def play(
    state: Path | None, *, keep: bool, as_json: bool, link: LinkKind = "in-process", server: Kind | None = None
) -> int:
    """Play the story; returns the exit status: 0 only if every check was true. The agents speak over that link, on a
    ``server`` of their own where it needs one."""
    temporary = state is None
    console = Console(stderr=as_json, highlight=False, quiet=as_json)
    story = Story(console, server)
    status = 1
    try:
        if server is not None:
            check_installed(server)
        state = state or _place()
        async with _linked(state, link, server) as settings, running_agency(settings) as agency, serving(agency):
            status = await _tell(story, agency, keep=keep, as_json=as_json)
            if keep and status == 0:
                console.print(f"\nStill running. Try `agency status --state {escape(str(state))}`; Ctrl-C ends it.")
                await stopped()
    except Exception as error:  # noqa: BLE001 - whatever it is, a user is shown words
        status = 1
        story.failed(error)
    if as_json:
        story.print_report()
    if temporary and state and status == 0:
        shutil.rmtree(state)
    elif state:
        console.print(f"State and logs: {escape(str(state))}")
    return status


def _place() -> Path:
    base = default_state()
    base.mkdir(mode=0o700, parents=True, exist_ok=True)
    return Path(tempfile.mkdtemp(prefix="demo-", dir=base))


def _settings(state: Path) -> Settings:
    """All in a place of its own, and with the clouds that the story is about, whatever the environment says."""
    return Settings(
        state=state, port=0, testbed=True, database=None, workflow_database=None, deployers=frozenset(),
        link="in-process", domain=DOMAIN, server="", ca=None, link_secret=None,
    )  # fmt: skip


@asynccontextmanager
async def _linked(state: Path, link: LinkKind, kind: Kind | None) -> AsyncIterator[Settings]:
    """The settings for that link; its XMPP server, if it needs one, runs as long as the block."""
    alone = _settings(state)
    if link == "in-process" or kind is None:
        yield alone
        return
    async with temporary_server(kind, SERVER_DOMAIN, state) as server:
        plan = server.plan
        chosen = {"domain": plan.agents, "server": f"127.0.0.1:{plan.component_port}"}
        if link == "client":
            chosen = {"domain": plan.domain, "server": f"{plan.listen[0]}:{plan.c2s_port}"}
            for name in addresses.everybody(await _vendors(alone)):
                await accounts.make(name, plan.directory, state)
        yield alone.model_copy(update={"link": link, "ca": plan.ca, **chosen})


async def _vendors(settings: Settings) -> set[str]:
    """The vendors that there will be."""
    async with opened(settings) as (store, _):
        return {vendor.name for vendor in await store.vendors()} | {cloud["name"] for cloud in CLOUDS}


async def _tell(story: Story, agency: Agency, *, keep: bool, as_json: bool) -> int:
    try:
        await story.tell(agency, keep=keep)
    except Exception as error:  # noqa: BLE001 - the story ends here, and says why
        story.failed(error)
    failed = [name for name, true in story.checks.items() if not true]
    done = "problem" not in story.report and not failed
    if as_json:
        story.print_report()
    if done:
        story.say(f"\n[bold green]All {len(story.checks)} checks are true.[/]")
    elif failed:
        story.say(f"\n[bold red]Not true[/]: {', '.join(failed)}")
    return 0 if done else 1


@dataclass
class Story:
    """The story and what it has found so far."""

    console: Console
    server: Kind | None = None
    """The XMPP server that the agents speak over, if they do."""
    checks: dict[str, bool] = field(default_factory=dict)
    report: Json = field(default_factory=dict)
    _printed: bool = False

    async def tell(self, agency: Agency, *, keep: bool) -> None:
        """From submission to proof."""
        self._introduce(agency)
        comparison, name = await self._submit(agency)
        deployment = await self._deploy(agency, comparison)
        url = deployment.endpoints[0].url
        before = await self._use(url)
        plan = await self._plan(agency, name)
        receipt = await self._relocate(agency, plan)
        await self._prove(agency, deployment, receipt, before)
        if not keep:
            await self._tidy(agency, name)

    def failed(self, error: Exception) -> None:
        """Note what went wrong, and show it."""
        self.report["problem"] = problem_of(error).model_dump(mode="json")
        show.problem(Console(stderr=True), self.report["problem"])

    def print_report(self) -> None:
        """Print the report as one JSON document; only once, however often things go wrong."""
        if not self._printed:
            report = self.report | {"checks": self.checks}
            sys.stdout.write(json.dumps(report, indent=2, ensure_ascii=False) + "\n")
            sys.stdout.flush()
        self._printed = True

    def say(self, text: str) -> None:
        """A line of the story."""
        self.console.print(text)

    def chapter(self, number: int, title: str) -> None:
        """The headline of a part."""
        self.console.print(f"\n[bold cyan]{number}. {title}[/]")

    def check(self, name: str, true: bool) -> None:
        """Note whether something is so."""
        self.checks[name] = true
        self.say(f"  {'[green]✓[/]' if true else '[bold red]✗[/]'} {name.replace('_', ' ')}")

    def _introduce(self, agency: Agency) -> None:
        self.chapter(1, "An agency in this process, and three testbed clouds, each a process of its own")
        link, broker = agency.settings.link, agency.deployer.link.address(addresses.BROKER)
        self.report["link"] = {"link": link, "server": self.server, "broker": broker}
        if self.server:
            each = "one component for all" if link == "component" else "a client each"
            self.say(f"  agents speak over {self.server} at {agency.settings.server}, {each}: {broker}, …")
        for name, cloud in agency.clouds.items():
            self.say(f"  {name}: {cloud.url} (process {cloud.pid})")
        pids = {cloud.pid for cloud in agency.clouds.values()}
        self.check("three_clouds_run", len(pids) == 3 and None not in pids)

    async def _submit(self, agency: Agency) -> tuple[Comparison, str]:
        self.chapter(2, "The guestbook is submitted: a web tier, data on a block volume, pictures in object storage")
        application, contents = gather(load(example() / "application.xml", expect=Application), example())
        for content in contents.values():
            agency.workshop.blobs.put(content)
        for component in application.components:
            for file in component.files:
                self.say(f"  {component.name}: {file.target}, {file.size} bytes, {str(file.digest)[:23]}…")
        self.chapter(3, "The Mediator calls for proposals, the Broker holds a Contract Net with the Vendor agents")
        comparison = await ask(
            agency.deployer, agency.deployer.link.address(addresses.MEDIATOR), application, Comparison
        )
        answer = views.comparison(comparison)
        show.offers(self.console, answer)
        self.report["offers"] = answer["offers"]
        reasons = [row["excluded_because"] for row in answer["offers"] if not row["chosen"] and row["score"] is None]
        self.check("every_vendor_answered", len(answer["offers"]) == len(agency.workshop.modules))
        self.check("one_offer_is_chosen", sum(row["chosen"] for row in answer["offers"]) == 1)
        self.check("every_exclusion_has_a_reason", all(reasons))
        return comparison, application.name

    async def _deploy(self, agency: Agency, comparison: Comparison) -> Deployment:
        assert comparison.chosen is not None  # noqa: S101 - checked above
        self.chapter(4, f"The offer of {comparison.chosen.vendor} is accepted and everything is created")
        agreement = await self._request(agency, "accept", comparison.chosen.id, Agreement)
        self.say(f"  {agreement.id} with {agreement.provider}")
        deployment = await self._followed(agency, comparison.application, "deploy", comparison.application, Deployment)
        self.report |= {"agreement": agreement.id, "deployment": deployment.id}
        self.say(f"  {deployment.id}: {len(deployment.resources)} resources, at {deployment.endpoints[0].url}")
        async with client() as http:
            response = await http.get(deployment.endpoints[0].url)
        self.check("application_answers", response.status_code == httpx.codes.OK)
        return deployment

    async def _use(self, url: str) -> str:
        """Write entries and a picture into the guestbook; returns the hash of what it then shows."""
        picture = (example() / "picture.png").read_bytes()
        async with client() as http:
            for name, text in ENTRIES:
                (await http.post(f"{url}/entries", json={"name": name, "text": text})).raise_for_status()
            (await http.put(f"{url}/pictures/picture.png", content=picture)).raise_for_status()
        self.say(f"  {len(ENTRIES)} entries and a picture of {len(picture)} bytes are written")
        seen, shown = await self._read(url)
        self.check("entries_and_picture_are_there", shown == (list(ENTRIES), picture))
        return seen

    async def _read(self, url: str) -> tuple[str, tuple[list[tuple[str, str]], bytes]]:
        """What the guestbook shows to a visitor, and the hash of it."""
        async with client() as http:
            entries = (await http.get(f"{url}/entries")).raise_for_status()
            picture = (await http.get(f"{url}/pictures/picture.png")).raise_for_status().content
        found = entries.json()
        rows = found["entries"] if isinstance(found, dict) else found
        digest = blake3(entries.content + picture).hexdigest()
        return f"blake3:{digest}", ([(row["name"], row["text"]) for row in rows], picture)

    async def _plan(self, agency: Agency, name: str) -> RelocationPlan:
        self.chapter(5, f"A relocation to {TARGET}, which has no block storage, is planned")
        plan = await self._request(agency, "plan-relocation", name, RelocationPlan, vendor=TARGET)
        show.plan(self.console, plan.model_dump(mode="json"))
        actions = {(item.kind, item.action) for item in plan.items}
        self.check("plan_moves_machine", ("machine", "move") in actions)
        self.check("plan_keeps_object_storage", ("bucket", "stay") in actions)
        self.check("plan_adapts_volume_and_configuration", {("volume", "adapt"), ("configuration", "adapt")} <= actions)
        return plan

    async def _relocate(self, agency: Agency, plan: RelocationPlan) -> RelocationReceipt:
        self.chapter(6, f"The Relocator moves it from {plan.source} to {plan.target}")
        receipt = await self._followed(agency, plan.application, "relocate", plan.id, RelocationReceipt)
        show.receipt(self.console, receipt.model_dump(mode="json"))
        return receipt

    async def _prove(self, agency: Agency, old: Deployment, receipt: RelocationReceipt, before: str) -> None:
        self.chapter(7, "Proof")
        deployment = await agency.workshop.store.get(Deployment, old.id)
        after, shown = await self._read(deployment.endpoints[0].url)
        self.say(f"  answers at {deployment.endpoints[0].url}, before at {old.endpoints[0].url}")
        left = await self._held(agency, receipt.source, deployment)
        everywhere = [await self._held(agency, vendor, deployment) for vendor in agency.workshop.modules]
        stayed = [r for r in deployment.resources if r.vendor == receipt.source and r.kind == "bucket"]
        self.check("same_content_at_the_new_place", after == before and shown[0] == list(ENTRIES))
        self.check("agency_proved_the_same", receipt.content_before == receipt.content_after is not None)
        self.check("runs_at_the_target", deployment.vendor_of(receipt_component(receipt)) == receipt.target)
        self.check("object_storage_stayed", bool(stayed))
        self.check("source_address_is_gone", not await self._answers(old.endpoints[0].url))
        self.check("nothing_left_at_source", not left)
        self.check("nothing_leaked", not any(everywhere) and not await agency.workshop.store.cleanups())
        names: dict[str, list[str]] = {"move": [], "stay": [], "adapt": []}
        for item in receipt.items:
            names[item.action].append(f"{item.kind} {item.name}")
        self.report["relocation"] = {
            "from": receipt.source, "to": receipt.target,
            "moved": names["move"], "stayed": names["stay"], "adapted": names["adapt"],
            "content_before": before, "content_after": after,
            "bytes_moved": receipt.bytes_moved, "seconds": receipt.seconds,
            "downtime_seconds": receipt.downtime_seconds, "receipt": receipt.id,
        }  # fmt: skip
        self.report |= {"left_at_source": left, "leaked": [each for found in everywhere for each in found]}

    async def _tidy(self, agency: Agency, name: str) -> None:
        self.chapter(8, "The guestbook is destroyed")
        deployment = await self._followed(agency, name, "destroy", name, Deployment)
        held = [await self._held(agency, vendor, deployment) for vendor in agency.workshop.modules]
        self.check("nothing_left_after_destroy", not any(held))

    @staticmethod
    async def _held(agency: Agency, vendor: str, deployment: Deployment) -> list[Json]:
        """What the vendor holds that is not part of the deployment."""
        used = {(r.kind, r.id) for r in deployment.resources if r.vendor == vendor}
        held = await inventory(agency.workshop.modules[vendor])
        return [{"vendor": vendor, "kind": kind, "id": r.id} for kind, r in held if (kind, r.id) not in used]

    @staticmethod
    async def _answers(url: str) -> bool:
        async with client() as http:
            try:
                return (await http.get(url)).is_success
            except httpx.TransportError:
                return False

    async def _request(self, agency: Agency, action: str, subject: str, expect: type[D], **options: str) -> D:
        request = Request.model_validate({"action": action, "subject": subject, **options})
        return await agency.deployer.request(request, expect)

    async def _followed(self, agency: Agency, application: str, action: str, subject: str, expect: type[D]) -> D:
        """Request long work and show how it goes."""
        with ExitStack() as stack:
            events = stack.enter_context(agency.workshop.events.watch(application))
            following = stack.enter_context(show.Following(self.console))

            async def follow() -> None:
                while True:
                    following.event(await events.get())

            follower = asyncio.create_task(follow())
            stack.callback(follower.cancel)
            return await self._request(agency, action, subject, expect)


def receipt_component(receipt: RelocationReceipt) -> str:
    """The first component that the receipt says was moved."""
    return next(item.name for item in receipt.items if item.kind == "machine")
