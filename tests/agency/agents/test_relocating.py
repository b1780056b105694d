"""The Relocator: planning, applying, cancelling, and what it refuses."""

from __future__ import annotations

import asyncio
import shutil
from types import SimpleNamespace
from typing import Any

import pytest
from sqlalchemy import select

from agency import janitor
from agency.agents import addresses
from agency.problems import AgencyError
from agency.relocation.migrators import migrators
from agency.relocation.workshop import Output, Run, mark_cancelled
from agency.store.models import TokenRow
from agency.trust import proof
from descriptors.application import Application
from descriptors.comparison import Comparison
from descriptors.deployment import Deployment
from descriptors.documents import digest
from descriptors.messages import Request
from descriptors.relocation import RelocationPlan, RelocationReceipt, Task
from descriptors.sla import Agreement
from descriptors.transfer import TransferManifest
from tests.agency.agents.conftest import Society
from tests.agency.toys import notebook


def refusal(code: str) -> Any:
    """Expects an :class:`AgencyError` with that code."""
    return pytest.raises(AgencyError, check=lambda error: error.problem.code == code)


async def plan(society: Society, **choice: str) -> RelocationPlan:
    """A plan to relocate."""
    return await society.request("plan-relocation", "notes", RelocationPlan, **choice)


async def apply(society: Society, plan: RelocationPlan) -> RelocationReceipt:
    """Apply it."""
    return await society.request("relocate", plan.id, RelocationReceipt)


async def test_a_relocation_from_end_to_end(society: Society) -> None:
    """Planned, applied and proven: the data is the same, the source is empty but for what stays, the records agree."""
    before = await society.deployed(notebook())
    alpha, cirrus = society.clouds["alpha"], society.clouds["cirrus"]
    alpha.write(before.the("machine").id, b"dear diary")
    receipt = await apply(society, await plan(society, vendor="cirrus"))
    now = await society.workshop.store.get(Deployment, before.id)
    assert (receipt.outcome, receipt.source, receipt.target) == ("relocated", "alpha", "cirrus")
    assert receipt.content_before == receipt.content_after is not None
    assert receipt.downtime_seconds < receipt.seconds
    assert (now.status, now.vendor_of("web")) == ("running", "cirrus")
    assert now.endpoints != before.endpoints
    assert cirrus.notes(now.the("machine").id).startswith(b"dear diary")
    assert {(r.vendor, r.id) for r in now.resources} == {(c.name, i) for c in society.clouds.values() for i in c.held}
    assert {r.kind for r in now.resources if r.vendor == "alpha"} == {"bucket", "access-key"}
    assert not cirrus.held.get(now.the("access-key").id)  # it is the bucket's vendor's
    assert not alpha.held[now.the("access-key").id].internal
    assert await janitor.find_leaks(society.workshop) == []


async def test_receipts_are_signed(society: Society) -> None:
    """The Relocator signs each receipt, in answer to the plan and to the agreement, and the site keeps it."""
    await society.deployed(notebook())
    found = await plan(society, vendor="cirrus")
    receipt = await apply(society, found)
    store, site = society.workshop.store, society.workshop.site
    async with store.transaction() as session:
        rows = (await session.scalars(select(TokenRow).where(TokenRow.digest == digest(receipt)))).all()
    (signed,) = (site.verifier.read(row.token, RelocationReceipt) for row in rows)
    assert (signed.document, signed.issuer) == (receipt, society.deployer.link.address(addresses.RELOCATOR))
    assert receipt.agreement is not None
    assert signed.answers == (digest(found), digest(await store.get(Agreement, receipt.agreement)))


async def test_receipts_have_the_manifests_of_what_was_moved(society: Society) -> None:
    """For all that came from the source and went to the target its manifest is in the receipt, a volume's root the same
    at both ends; and the proof of the relocation, they among it, holds."""
    await society.deployed(notebook())
    receipt = await apply(society, await plan(society, vendor="beta"))
    verifier = society.workshop.site.verifier
    links = proof.verify(await proof.collect(society.workshop.store, "notes"), verifier)
    moved = {link.document.id: link.document for link in links if isinstance(link.document, TransferManifest)}
    ways = ["fetch-machine-web", "fetch-volume-data", "upload-machine-web", "upload-volume-data"]
    assert sorted(moved) == [f"{receipt.plan}/{way}" for way in ways]
    roots = {item.name: item.root for item in receipt.items if item.root}
    fetched, brought = (moved[f"{receipt.plan}/{way}-volume-data"] for way in ("fetch", "upload"))
    assert roots == {"web": moved[f"{receipt.plan}/fetch-machine-web"].root, "data": fetched.root}
    assert brought.root == fetched.root
    assert ((fetched.sender, fetched.receiver), (brought.sender, brought.receiver)) == (
        ("alpha", society.workshop.site.key.name),
        (society.workshop.site.key.name, "beta"),
    )


async def test_the_best_other_vendor_is_taken(society: Society) -> None:
    """Without a vendor named the best of the others is the target; where the application is, is not asked."""
    await society.deployed(notebook())
    found = await plan(society)
    assert found.target == "cirrus"  # cheaper than beta
    comparison = await society.workshop.store.get(
        Comparison, (await society.workshop.store.all(Comparison, newest_first=True))[0].call
    )
    assert {row.vendor for row in comparison.rows} == {"beta", "cirrus"}


async def test_applying_twice_is_applying_once(society: Society) -> None:
    """A plan that was applied gives its receipt again; two requests at once join one operation."""
    await society.deployed(notebook())
    found = await plan(society, vendor="beta")
    first, second = await asyncio.gather(apply(society, found), apply(society, found))
    assert first == second == await apply(society, found)
    assert len(await society.workshop.store.all(RelocationReceipt)) == 1


async def test_only_what_runs_is_relocated(society: Society) -> None:
    """A stopped application is refused, with its state."""
    await society.deployed(notebook())
    await society.request("stop", "notes")
    with refusal("not-running") as error:
        await plan(society)
    assert "notes is stopped" in error.value.problem.message


async def test_where_it_is_already(society: Society) -> None:
    """The vendor that has it is no target."""
    await society.deployed(notebook())
    with refusal("already-there"):
        await plan(society, vendor="alpha")


async def test_nobody_takes_it(society: Society) -> None:
    """When no other vendor qualifies the answer names each with its reason, and the application is not touched."""
    society.clouds["beta"].jurisdiction = "US"
    society.clouds["cirrus"].away = True
    deployment = await society.deployed(notebook(jurisdictions=("EU",)))
    with refusal("no-offer") as error:
        await plan(society)
    assert "beta: jurisdiction US" in error.value.problem.message
    assert "cirrus: cirrus: read the catalogue: cirrus is out of reach" in error.value.problem.message
    assert await society.workshop.store.get(Deployment, deployment.id) == deployment


async def test_a_plan_for_what_has_changed_since(society: Society) -> None:
    """A plan for an earlier revision is refused: what it moves may not be what there is."""
    await society.deployed(notebook())
    found = await plan(society, vendor="beta")
    await society.request("stop", "notes")
    await society.request("start", "notes")
    with refusal("plan-outdated"):
        await apply(society, found)


async def test_a_plan_whose_offer_has_expired(society: Society) -> None:
    """A plan is good for as long as the offer under it."""
    await society.deployed(notebook())
    found = await plan(society, vendor="beta")
    await society.workshop.store.put(found.model_copy(update={"expires": found.created}), id=found.id)
    with refusal("expired"):
        await apply(society, found)


async def test_an_unknown_plan(society: Society) -> None:
    """A plan that was never made is named."""
    with refusal("not-found") as error:
        await society.request("relocate", "plan-0123456789abcdef", RelocationReceipt)
    assert "plan-0123456789abcdef" in error.value.problem.message


async def test_a_relocation_that_fails_says_where_things_stand(society: Society) -> None:
    """The error tells what went wrong, that the application goes on, what to do, and which receipt tells more."""
    before = await society.deployed(notebook())
    found = await plan(society, vendor="beta")
    society.clouds["beta"].spoil = lambda content: b"something else"
    with refusal("rolled-back") as error:
        await apply(society, found)
    problem = error.value.problem
    assert "its content is not what it was at the source" in problem.message
    assert "notes goes on at alpha with its data" in problem.message
    receipt = await society.workshop.store.get(RelocationReceipt, problem.receipt)
    assert receipt.outcome == "rolled-back"
    assert await society.workshop.store.get(Deployment, before.id) == before
    assert society.clouds["beta"].held == {}
    assert [m.id for m in society.clouds["alpha"].published()] == [before.the("machine").id]
    with refusal("rolled-back"):
        await apply(society, found)  # a plan is applied once


async def test_a_target_that_dies_leaves_clean_ups(society: Society) -> None:
    """When the target goes away for good in the middle the error counts what is pending there."""
    await society.deployed(notebook())
    beta = society.clouds["beta"]
    found = await plan(society, vendor="beta")

    def die(content: bytes) -> bytes:
        beta.away = True
        return content

    society.clouds["alpha"].spoil = die  # while the source is asked for its content
    with refusal("rolled-back") as error:
        await apply(society, found)
    pending = await society.workshop.store.cleanups()
    assert f"{len(pending)} clean-ups at beta are pending" in error.value.problem.message
    assert {cleanup.key for cleanup in pending} >= {resource.key for resource in beta.held.values()} != set()


async def test_cancelling(society: Society) -> None:
    """A relocation that is under way is cancelled: it is undone, and called so."""
    await society.deployed(notebook())
    found = await plan(society, vendor="beta")
    with society.workshop.events.watch("notes") as events:
        applying = asyncio.create_task(apply(society, found))
        while (await events.get())["text"] != "fence-web":
            pass
        assert society.workshop.busy == {"notes": found.id}
        await society.request("cancel", "notes", Request)
        with refusal("cancelled") as error:
            await applying
    assert "notes goes on at alpha" in error.value.problem.message
    assert society.clouds["beta"].held == {}


async def test_nothing_to_cancel(society: Society) -> None:
    """Cancelling when nothing is under way is refused."""
    await society.deployed(notebook())
    with refusal("not-busy"):
        await society.request("cancel", "notes", Request)


async def test_one_operation_at_a_time(society: Society) -> None:
    """While one plan is applied another one is refused."""
    await society.deployed(notebook())
    first, second = await plan(society, vendor="beta"), await plan(society, vendor="cirrus")
    with society.workshop.events.watch("notes") as events:
        applying = asyncio.create_task(apply(society, first))
        while (await events.get())["text"] != "fence-web":
            pass
        with refusal("busy"):
            await apply(society, second)
        assert (await applying).outcome == "relocated"
    with refusal("plan-outdated"):
        await apply(society, second)
    assert [a.provider for a in await society.workshop.store.all(Agreement) if a.state == "observed"] == [
        "alpha",
        "beta",
    ]


async def test_a_cancelled_mark_of_another_operation_means_nothing(society: Society) -> None:
    """A cancellation is of one operation."""
    await society.deployed(notebook())
    mark_cancelled(society.workshop, "plan-of-somebody-else")
    assert (await apply(society, await plan(society, vendor="beta"))).outcome == "relocated"


async def test_the_last_trace_of_the_first_vendor_goes_with_the_application(society: Society) -> None:
    """Destroyed after it moved, an application leaves nothing at either vendor."""
    await society.deployed(notebook(front=True))
    await apply(society, await plan(society, vendor="cirrus"))
    assert isinstance(await society.workshop.store.get(Application, "notes"), Application)
    await society.request("destroy", "notes")
    assert [cloud.held for cloud in society.clouds.values()] == [{}, {}, {}]
    assert {a.state for a in await society.workshop.store.all(Agreement)} == {"terminated"}


async def test_what_was_switched_is_not_called_back(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """A crash between the record of the switch and its step, and a cancel after it, leave the application at its new
    place: the step that is repeated finds the switch made and goes on."""
    before = await society.deployed(notebook())
    replace, switches = society.workshop.store.replace, []

    async def replaced_and_cancelled(document: Deployment, **how: object) -> None:
        await replace(document, **how)  # type: ignore[arg-type]
        if document.revision == before.revision + 1 and not switches:
            switches.append(document)
            raise ConnectionError("the store's answer is lost")

    monkeypatch.setattr(society.workshop.store, "replace", replaced_and_cancelled)
    run = migrators()["switch"].run

    async def crashes_once(task: Task, run_: Run) -> Output:
        try:
            return await run(task, run_)
        except ConnectionError:
            mark_cancelled(society.workshop, run_.order.id)
            return await run(task, run_)

    monkeypatch.setattr(migrators()["switch"], "run", crashes_once)
    receipt = await apply(society, await plan(society, vendor="cirrus"))
    now = await society.workshop.store.get(Deployment, before.id)
    assert switches
    assert (receipt.outcome, now.vendor_of("web"), now.revision) == ("relocated", "cirrus", before.revision + 1)
    assert await janitor.find_leaks(society.workshop) == []


async def test_no_room_is_known_before_anything_is_stopped(society: Society, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relocation that would fill the disk is refused while the application still runs."""
    deployment = await society.deployed(notebook())
    found = await plan(society, vendor="cirrus")
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=1024))
    with refusal("disk-full"):
        await apply(society, found)
    assert (await society.workshop.store.get(Deployment, deployment.id)) == deployment
    assert society.workshop.busy == {}


async def test_of_two_plans_at_once_one_is_applied(society: Society) -> None:
    """Two plans for one application, applied at the same moment, do not both begin."""
    await society.deployed(notebook())
    plans = [await plan(society, vendor="beta"), await plan(society, vendor="cirrus")]
    ends = await asyncio.gather(*(apply(society, each) for each in plans), return_exceptions=True)
    codes = sorted(e.problem.code if isinstance(e, AgencyError) else e.outcome for e in ends)  # type: ignore[union-attr]
    assert codes in (["busy", "relocated"], ["plan-outdated", "relocated"])
    assert await janitor.find_leaks(society.workshop) == []
