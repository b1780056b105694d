"""What is written down when an operation ends: the deployment as it is now, the agreements, the receipt."""

from __future__ import annotations

from contextlib import suppress
from datetime import UTC, datetime, timedelta

from blake3 import blake3

from agency import records
from agency.agents import addresses
from agency.relocation.result import Result, UndoRank
from agency.relocation.workshop import Order, Output, Workshop
from agency.store.store import Conflicted
from agency.trust.claims import claimed
from descriptors.base import utc_now
from descriptors.deployment import Deployment
from descriptors.documents import digest
from descriptors.messages import Problem
from descriptors.relocation import Item, RelocationPlan, RelocationReceipt, Stage
from descriptors.resources import Reason
from descriptors.sla import Agreement
from descriptors.transfer import TransferManifest

SOURCE_NOT_RESTORED = "source-not-restored"
"""Code of the problem that the application could not be brought back at its source."""
SHOW_WITHIN = timedelta(days=1)
"""For how long a receipt can be presented as news; as a proof it is good for ever."""


def receipt_id(plan_id: str) -> str:
    """The receipt of a plan: one plan is applied once."""
    return f"receipt-{plan_id}"


async def conclude_deployment(workshop: Workshop, order: Order, outputs: dict[str, Output], done: bool) -> None:
    """Write down the deployment: running with all that was created, or failed with nothing."""
    created = tuple(output.created for output in outputs.values() if output.created) if done else ()
    after = order.deployment.model_copy(
        update={
            "revision": order.deployment.revision + 1,
            "changed": utc_now(),
            "status": "running" if done else "failed",
            "resources": created,
            "endpoints": tuple(e for output in outputs.values() for e in output.endpoints) if done else (),
        }
    )
    with suppress(Conflicted):  # written before a crash
        await workshop.store.replace(after, id=after.id, expected_revision=order.deployment.revision)
    if not done:
        for agreement in order.agreements:
            await terminate(workshop, agreement)


async def hold_to_account(workshop: Workshop, order: Order, result: Result) -> None:
    """Keep it in a vendor's record when it was at its fault that the operation failed."""
    task = next((task for task in order.tasks if task.name == result.failed_task), None)
    if task and task.vendor and result.problem and records.at_fault(result.problem):
        message = f"{task.name}: {result.problem.message}"
        await records.broke(
            workshop.store,
            task.vendor,
            about=order.id,
            code="failed-to-deliver",
            application=order.application.name,
            message=message,
        )


async def conclude_relocation(workshop: Workshop, order: Order, result: Result) -> RelocationReceipt:
    """Write the receipt, and terminate the agreement that nothing is provided under any more."""
    plan = order.plan
    assert plan is not None  # noqa: S101 - a relocation has a plan
    receipt = _receipt(order, plan, result)
    await workshop.store.put(receipt, id=receipt.id, application=receipt.application)
    await _sign(workshop, order, receipt)
    if result.outcome == "done":
        now = await workshop.store.get(Deployment, order.deployment.id)
        for agreement_id in set(order.deployment.agreements) - set(now.agreements):
            await terminate(workshop, await workshop.store.get(Agreement, agreement_id))
    else:
        await terminate(workshop, order.agreement)
        if any(problem.code == SOURCE_NOT_RESTORED for problem in result.problems):
            stopped = order.deployment.model_copy(
                update={"status": "stopped", "revision": order.deployment.revision + 1, "changed": utc_now()}
            )
            with suppress(Conflicted):  # written before a crash, or not the present one any more
                await workshop.store.replace(stopped, id=stopped.id, expected_revision=order.deployment.revision)
    return receipt


async def _sign(workshop: Workshop, order: Order, receipt: RelocationReceipt) -> None:
    """Keep the receipt as a document that the Relocator has signed, in answer to the plan and the agreement."""
    site = workshop.site
    if await site.signed_by(digest(receipt)):  # signed before a crash
        return
    token = site.signer(f"{addresses.RELOCATOR}@{site.key.name}").sign(
        receipt,
        audience=f"{addresses.DEPLOYER}@{site.key.name}",
        expires=utc_now() + SHOW_WITHIN,
        answers=[receipt.plan_digest, digest(order.agreement)],
    )
    signed = site.verifier.read(token, RelocationReceipt)
    await site.keep(signed, application=receipt.application, conversation=receipt.id)


async def terminate(workshop: Workshop, agreement: Agreement) -> None:
    """The agreement ends here: nothing is provided under it."""
    current = await workshop.store.get(Agreement, agreement.id)
    if current.state == "observed":
        await workshop.store.put(current.become("terminated"), id=current.id, application=current.application)
        workshop.ended.set()


def _receipt(order: Order, plan: RelocationPlan, result: Result) -> RelocationReceipt:
    outputs, relocated = result.outputs, result.outcome == "done"
    fenced = [outputs[f"fence-{name}"] for name in plan.components if f"fence-{name}" in outputs]
    verified = [outputs[f"verify-{name}"] for name in plan.components if f"verify-{name}" in outputs]
    return RelocationReceipt(
        id=receipt_id(plan.id),
        plan=plan.id,
        plan_digest=digest(plan),
        application=plan.application,
        agreement=order.agreement.id if relocated else None,
        source=plan.source,
        target=plan.target,
        outcome="relocated" if relocated else "cancelled" if result.outcome == "cancelled" else "rolled-back",
        started=_moment(result.started),
        finished=_moment(result.ended),
        bytes_moved=sum(output.bytes for output in outputs.values()),
        seconds=round(max(0.0, result.ended - result.started), 3),  # the clock may have been set back
        downtime_seconds=round(max(0.0, _downtime(result, fenced)), 3),
        content_before=_one([output.digest for output in fenced]),
        content_after=_one([output.digest for output in verified]) if relocated else None,
        items=tuple(_item(item, outputs) for item in plan.items) if relocated else (),
        manifests=tuple(output.manifest for output in outputs.values() if output.manifest) if relocated else (),
        stages=tuple(Stage(task=name, seconds=round(max(0.0, output.seconds), 3)) for name, output in outputs.items()),
        problems=tuple(_reason(problem) for problem in result.problems),
    )


def _downtime(result: Result, fenced: list[Output]) -> float:
    """From the moment the source was fenced until the switch, or until the source was back."""
    if not fenced:
        return 0.0
    began = min(output.started for output in fenced)
    if switched := result.outputs.get("switch"):
        return switched.started + switched.seconds - began
    return max((undone.ended for undone in result.undone if undone.rank is UndoRank.RESTORE), default=began) - began


def _item(item: Item, outputs: dict[str, Output]) -> Item:
    fetched = outputs.get(f"fetch-{item.kind}-{item.name}")
    if fetched is None:
        return item
    root = claimed(fetched.manifest, TransferManifest.tag)["root"] if fetched.manifest else None
    return item.model_copy(update={"bytes": fetched.bytes, "digest": fetched.digest, "root": root})


def _one(digests: list[str | None]) -> str | None:
    """One digest for all components: that of the only one, or that of all of them in a row."""
    known = [digest for digest in digests if digest]
    if len(known) <= 1:
        return known[0] if known else None
    return f"blake3:{blake3(' '.join(known).encode()).hexdigest()}"


def _reason(problem: Problem) -> Reason:
    return Reason(code=problem.code, message=f"{problem.message}; {problem.remedy}"[:1024])


def _moment(unix: float) -> datetime:
    return datetime.fromtimestamp(unix, UTC)
