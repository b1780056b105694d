"""What is written down at the end: figures come from what was measured, and the records say where things stand."""

from __future__ import annotations

from typing import Any

import pytest
from blake3 import blake3

from agency.problems import refuse
from agency.relocation.conduit import Topology, place
from agency.relocation.outcome import (
    SOURCE_NOT_RESTORED,
    conclude_deployment,
    conclude_relocation,
    receipt_id,
)
from agency.relocation.planner import make_plan
from agency.relocation.result import Result, Undone, UndoRank
from agency.relocation.workshop import Order, Output, Workshop
from descriptors.base import utc_now
from descriptors.deployment import Deployment
from descriptors.documents import digest
from descriptors.relocation import RelocationReceipt
from descriptors.sla import Agreement
from tests.agency.relocation.helpers import agreed, offered, order_for
from tests.agency.relocation.test_graph import as_deployed
from tests.agency.toys import notebook
from vendor_modules.resources import Status, Volume

CONTENT = f"blake3:{blake3(b'content').hexdigest()}"
IMAGE = f"blake3:{blake3(b'image').hexdigest()}"
START = 1_764_000_000.0


@pytest.fixture
async def order(workshop: Workshop) -> Order:
    """A relocation that is about to begin."""
    application = notebook()
    here = await agreed(workshop, await offered(workshop, application, "alpha"))
    deployment = as_deployed(application, "alpha").model_copy(update={"agreements": (here.id,)})
    await workshop.store.put(deployment, id=deployment.id, application="notes")
    volume = Volume(id="volume-data", name="data", status=Status.ATTACHED, size_mib=1)
    found = {place(deployment.the("volume")): volume}
    offer, topology = await offered(workshop, application, "beta", ["web"]), Topology(found, ())
    plan = make_plan(workshop, application, deployment, topology, [here], offer, ("web",), utc_now())
    await workshop.store.put(offer, id=offer.id, application="notes")
    return await order_for(workshop, application, deployment, plan)


def outputs() -> dict[str, Output]:
    """What the tasks of a relocation left: fenced after 10 s, switched between the 40th and the 42nd."""
    return {
        "fence-web": Output(digest=CONTENT, started=START + 10, seconds=1),
        "fetch-machine-web": Output(bytes=1000, digest=IMAGE, started=START + 20, seconds=5),
        "fetch-volume-data": Output(bytes=2000, digest=IMAGE, started=START + 20, seconds=5),
        "verify-web": Output(digest=CONTENT, started=START + 30, seconds=1),
        "switch": Output(started=START + 40, seconds=2),
    }


def result(**changes: Any) -> Result:
    """What came of it."""
    fields = {"outcome": "done", "outputs": outputs(), "started": START, "ended": START + 50}
    return Result(**(fields | changes))


def undone(code: str = "x", rank: UndoRank = UndoRank.TIDY, ended: float = START + 33, problem: bool = True) -> Undone:
    """A task that was undone, or could not be."""
    trouble = refuse(code, "it did not work", "wait").problem if problem else None
    return Undone(task="t", rank=rank, ended=ended, problem=trouble)


async def test_the_figures_of_a_receipt(workshop: Workshop, order: Order) -> None:
    """Down time is from the fence to the end of the switch; bytes are those of the fetches; hashes are those taken."""
    receipt = await conclude_relocation(workshop, order, result())
    assert receipt.outcome == "relocated"
    assert (receipt.seconds, receipt.downtime_seconds, receipt.bytes_moved) == (50, 32, 3000)
    assert (receipt.content_before, receipt.content_after) == (CONTENT, CONTENT)
    assert (receipt.finished - receipt.started).total_seconds() == 50
    assert {stage.task: stage.seconds for stage in receipt.stages} == {n: o.seconds for n, o in outputs().items()}
    assert receipt.problems == ()
    assert (receipt.agreement, receipt.plan_digest) == (order.agreement.id, digest(order.plan))


async def test_the_items_of_a_receipt(workshop: Workshop, order: Order) -> None:
    """What was fetched has its real bytes and its digest; what stayed is as it was planned."""
    receipt = await conclude_relocation(workshop, order, result())
    found = {(item.kind, item.name): (item.bytes, item.digest) for item in receipt.items}
    assert found["machine", "web"] == (1000, IMAGE)
    assert found["volume", "data"] == (2000, IMAGE)
    assert found["bucket", "pictures"] == (0, None)
    assert [item.what for item in receipt.items] == [item.what for item in order.plan.items]


async def test_the_down_time_of_one_that_was_undone(workshop: Workshop, order: Order) -> None:
    """It ends when the source was back, not when everything was tidied."""
    left = {name: output for name, output in outputs().items() if name != "switch"}
    back = [
        undone(rank=UndoRank.FENCE, ended=START + 31, problem=False),
        undone(rank=UndoRank.RESTORE, ended=START + 33, problem=False),
        undone(rank=UndoRank.RESTORE, ended=START + 35, problem=False),
        undone(rank=UndoRank.TIDY, ended=START + 49, problem=False),
    ]
    problem = refuse("x", "broke", "mend").problem
    receipt = await conclude_relocation(
        workshop, order, result(outcome="failed", outputs=left, undone=back, problem=problem)
    )
    assert receipt.downtime_seconds == 25
    assert (receipt.outcome, receipt.items, receipt.agreement, receipt.content_after) == ("rolled-back", (), None, None)


async def test_no_down_time_before_the_fence(workshop: Workshop, order: Order) -> None:
    """What failed before the fence never cut anybody off."""
    receipt = await conclude_relocation(workshop, order, result(outcome="failed", outputs={}))
    assert (receipt.downtime_seconds, receipt.bytes_moved, receipt.content_before) == (0, 0, None)


async def test_a_cancelled_one_is_called_so(workshop: Workshop, order: Order) -> None:
    """Cancelled and failed are told apart."""
    receipt = await conclude_relocation(workshop, order, result(outcome="cancelled", outputs={}))
    assert receipt.outcome == "cancelled"
    assert await workshop.store.get(RelocationReceipt, receipt_id(order.plan.id)) == receipt


async def test_one_that_was_undone_ends_the_new_agreement_only(workshop: Workshop, order: Order) -> None:
    """After a roll-back nothing is provided at the target, and the source's agreement goes on."""
    await conclude_relocation(workshop, order, result(outcome="failed", outputs={}))
    assert (await workshop.store.get(Agreement, order.agreement.id)).state == "terminated"
    (old,) = order.deployment.agreements
    assert (await workshop.store.get(Agreement, old)).state == "observed"
    assert await workshop.store.get(Deployment, order.deployment.id) == order.deployment


async def test_an_agreement_under_which_nothing_is_left_ends(workshop: Workshop, order: Order) -> None:
    """After a relocation the agreements that the deployment no longer names are terminated, the others are not."""
    now = order.deployment.model_copy(update={"agreements": (order.agreement.id,), "revision": 99})
    await workshop.store.put(now, id=now.id, application="notes")
    await conclude_relocation(workshop, order, result())
    (old,) = order.deployment.agreements
    assert (await workshop.store.get(Agreement, old)).state == "terminated"
    assert (await workshop.store.get(Agreement, order.agreement.id)).state == "observed"


async def test_a_source_that_is_not_back_is_recorded_as_stopped(workshop: Workshop, order: Order) -> None:
    """If the application could not be started again at its source the deployment says so, with all its resources, and
    concluding twice, as after a crash, says the same."""
    lost = result(outcome="failed", outputs={}, undone=[undone(SOURCE_NOT_RESTORED, UndoRank.RESTORE)])
    for _ in range(2):
        receipt = await conclude_relocation(workshop, order, lost)
        now = await workshop.store.get(Deployment, order.deployment.id)
        assert (now.status, now.resources) == ("stopped", order.deployment.resources)
        assert now.revision == order.deployment.revision + 1
    assert SOURCE_NOT_RESTORED in {problem.code for problem in receipt.problems}


async def test_all_problems_are_in_the_receipt(workshop: Workshop, order: Order) -> None:
    """First what went wrong, then what could not be undone, each with what to do; however long the words are."""
    problem = refuse("broken", "w" * 4000, "mend it").problem
    failed = result(outcome="failed", outputs={}, problem=problem, undone=[undone("stuck"), undone(problem=False)])
    receipt = await conclude_relocation(workshop, order, failed)
    assert [found.code for found in receipt.problems] == ["broken", "stuck"]
    assert receipt.problems[1].message == "it did not work; wait"


async def test_the_content_of_several_components_is_one_digest(workshop: Workshop, order: Order) -> None:
    """With several probes the receipt's hash is over all of them in their order."""
    plan = order.plan.model_copy(update={"components": ("web", "door")})
    both = outputs() | {"fence-door": Output(digest=IMAGE), "verify-door": Output(digest=IMAGE)}
    receipt = await conclude_relocation(workshop, order.model_copy(update={"plan": plan}), result(outputs=both))
    assert receipt.content_before == receipt.content_after
    assert receipt.content_before == f"blake3:{blake3(f'{CONTENT} {IMAGE}'.encode()).hexdigest()}"


async def test_a_deployment_is_concluded_once(workshop: Workshop, order: Order) -> None:
    """A deployment runs with all that was created; concluding it again, as after a crash, changes nothing."""
    begun = order.deployment.model_copy(update={"id": "d2", "status": "deploying", "resources": (), "endpoints": ()})
    await workshop.store.insert(begun, id="d2", application="notes")
    deploying = order.model_copy(update={"kind": "deploy", "deployment": begun, "plan": None})
    made = {"launch-web": Output(created=order.deployment.the("machine")), "verify-web": Output()}
    await conclude_deployment(workshop, deploying, made, done=True)
    after = await workshop.store.get(Deployment, "d2")
    assert (after.status, after.revision, after.resources) == ("running", 2, (order.deployment.the("machine"),))
    await conclude_deployment(workshop, deploying, made, done=True)
    assert await workshop.store.get(Deployment, "d2") == after


async def test_a_deployment_that_failed_has_nothing(workshop: Workshop, order: Order) -> None:
    """It is recorded as failed, without resources, and its agreement ends."""
    begun = order.deployment.model_copy(update={"id": "d2", "status": "deploying", "resources": (), "endpoints": ()})
    await workshop.store.insert(begun, id="d2", application="notes")
    deploying = order.model_copy(update={"kind": "deploy", "deployment": begun, "plan": None})
    made = {"launch-web": Output(created=order.deployment.the("machine"))}
    await conclude_deployment(workshop, deploying, made, done=False)
    after = await workshop.store.get(Deployment, "d2")
    assert (after.status, after.resources, after.endpoints) == ("failed", (), ())
    assert (await workshop.store.get(Agreement, order.agreement.id)).state == "terminated"
