"""What an agency takes up when it starts."""

from __future__ import annotations

import asyncio
from types import SimpleNamespace
from typing import Any

import pytest
from dbos import DBOS

from agency.relocation.graph import deployment_tasks
from agency.relocation.workshop import Order, Workshop
from agency.running import WORKFLOW_VERSION, _taken_up
from descriptors.base import new_id, utc_now
from descriptors.deployment import Deployment
from tests.agency.relocation.helpers import agreed, offered
from tests.agency.toys import notebook

pytestmark = pytest.mark.usefixtures("dbos")


async def left_undone(workshop: Workshop, monkeypatch: pytest.MonkeyPatch, version: str) -> Order:
    """An order that DBOS lists as begun by an earlier process of that version."""
    application = notebook()
    agreement = await agreed(workshop, await offered(workshop, application, "alpha"))
    deployment = Deployment(
        id=new_id("deployment"), application=application.name, revision=1, changed=utc_now(), status="deploying",
        agreements=(agreement.id,), resources=(), endpoints=(),
    )  # fmt: skip
    order = Order(
        kind="deploy", id=deployment.id, application=application, deployment=deployment, agreement=agreement,
        tasks=deployment_tasks(application, {c.name: "alpha" for c in application.components}),
    )  # fmt: skip
    listed = SimpleNamespace(
        workflow_id=order.id, app_version=version, input={"args": [order.model_dump_json()], "kwargs": {}}
    )

    async def listing(**_: Any) -> list[SimpleNamespace]:
        return [listed]

    monkeypatch.setattr(DBOS, "list_workflows_async", listing)
    return order


async def test_what_ended_before_it_was_marked_is_not_busy_for_ever(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An operation is under way until it has ended, even if it ends while the agency is about to say that it is."""
    order = await left_undone(workshop, monkeypatch, WORKFLOW_VERSION)
    status = "PENDING"

    async def answer(_: str) -> SimpleNamespace:
        return SimpleNamespace(status=status)

    monkeypatch.setattr(DBOS, "get_workflow_status_async", answer)
    monkeypatch.setattr("agency.running.ENDED_POLLING", 0.01)
    async with _taken_up(workshop):
        await asyncio.sleep(0.05)
        assert workshop.busy == {"notes": order.id}
        status = "SUCCESS"
        async with asyncio.timeout(30):
            while workshop.busy:  # noqa: ASYNC110 - it is looked at, now and then
                await asyncio.sleep(0.01)


async def test_an_operation_of_another_version_makes_nothing_busy(
    workshop: Workshop, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What another version began is not taken up by this one, and does not keep the application busy."""
    await left_undone(workshop, monkeypatch, "0")
    async with _taken_up(workshop):
        assert workshop.busy == {}
