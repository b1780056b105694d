"""The Viaduct: the graph of Migrators of one operation, run durably.

Every task is a step of a DBOS workflow: its output is in the workflow database before a task that needs it begins, and
a process that died is followed by one that goes on where the last output was written. Steps may therefore run twice;
Migrators are made for that. When a task fails, or somebody cancels, what was begun is undone: first whatever could be
a second primary, then the service comes back at its source, then the rest is tidied. What cannot be undone now (a
vendor is out of reach) is remembered, and the janitor goes on trying. After the switch there is no way back: what
follows only tidies up.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Iterable
from typing import Any

import stamina
from dbos import DBOS, DBOSConfiguredInstance, SetWorkflowID, WorkflowHandleAsync

from agency.problems import problem_of
from agency.relocation.migrators import migrators
from agency.relocation.migrators.base import Makes
from agency.relocation.outcome import SOURCE_NOT_RESTORED, conclude_deployment, conclude_relocation, hold_to_account
from agency.relocation.result import Result, Undone, UndoRank
from agency.relocation.workshop import Cancelled, Order, Output, Run, Workshop
from descriptors.deployment import Kind
from descriptors.messages import Problem
from descriptors.relocation import Task
from vendor_modules.errors import VendorError

JsonDict = dict[str, Any]

RESTORE_PATIENCE = 300.0
"""Seconds for which bringing the service back at its source is tried again, while trying can help."""


STORE_PATIENCE = 60.0
"""Seconds for which it is tried again to write to the store what must not be forgotten."""
RESULT_POLLING = 0.1
"""Seconds between two looks at whether an operation has ended."""


def _worth_repeating(error: Exception) -> bool:
    return isinstance(error, VendorError) and error.retryable


@DBOS.dbos_class()
class Viaducts(DBOSConfiguredInstance):
    """Runs orders. DBOS is one for a process and so is this: the agency that is open lends it its workshop."""

    workshop: Workshop

    def __init__(self) -> None:
        super().__init__("viaducts")
        self._runs: set[asyncio.Task[Any]] = set()

    @DBOS.workflow(name="operation", max_recovery_attempts=100)
    async def operate(self, order_json: str) -> JsonDict:
        """Carry out an :class:`Order`; returns a :class:`Result`. Deterministic but for its steps, as DBOS demands."""
        order = Order.model_validate_json(order_json)
        self.workshop.busy[order.application.name] = order.id
        run = asyncio.current_task()
        assert run is not None  # noqa: S101 - a coroutine that runs is a task's
        self._runs.add(run)
        try:
            result = await self._operate(order, order_json)
        finally:
            self._runs.discard(run)
        # Only now: an operation that could not be brought to its end keeps others off until it is taken up again.
        self.workshop.busy.pop(order.application.name, None)
        return result

    async def suspend(self) -> None:
        """Leave every operation where it is, so that its tools can be put away: it goes on at the next start."""
        runs = list(self._runs)
        for run in runs:
            run.cancel()
        await asyncio.gather(*runs, return_exceptions=True)

    async def _operate(self, order: Order, order_json: str) -> JsonDict:
        started = await self.moment()
        outputs: dict[str, JsonDict] = {}
        begun: list[str] = []
        failure: JsonDict | None = None
        committed = False
        while (failure is None or committed) and len(outputs) < len(order.tasks):
            ready = [t for t in order.tasks if t.name not in outputs and all(need in outputs for need in t.needs)]
            begun += [task.name for task in ready]
            results = await asyncio.gather(*(self.perform(order_json, task.name, outputs, committed) for task in ready))
            for task, result in zip(ready, results, strict=True):
                if "problem" in result:
                    failure = failure or {"task": task.name, **result}
                if "problem" not in result or committed:
                    outputs[task.name] = result.get("output", Output().model_dump(mode="json"))
                    committed = committed or migrators()[task.migrator].commits
        undone = [] if failure is None or committed else await self._undo_all(order, order_json, begun, outputs)
        result = {
            "outcome": "done" if failure is None or committed else "cancelled" if failure["cancelled"] else "failed",
            "outputs": outputs,
            "failed_task": failure and failure["task"],
            "problem": failure and failure["problem"],
            "undone": undone,
            "started": started,
            "ended": await self.moment(),
        }
        await self.conclude(order_json, result)
        return result

    async def _undo_all(
        self, order: Order, order_json: str, begun: Iterable[str], outputs: dict[str, JsonDict]
    ) -> list[JsonDict]:
        tasks = {task.name: task for task in order.tasks}
        latest_first = [tasks[name] for name in reversed(list(begun))]
        place = {component.name: i for i, component in enumerate(order.application.start_order())}

        def turn(task: Task) -> tuple[UndoRank, int]:
            rank = migrators()[task.migrator].undo_rank
            # a component works again only when those that it depends on are reached again
            return rank, place.get(task.subject or "", 0) if rank is UndoRank.RESTORE else 0

        ranked = sorted(latest_first, key=turn)
        return [await self.revert(order_json, task.name, outputs) for task in ranked]

    @DBOS.step(name="moment")
    async def moment(self) -> float:
        """The time, remembered."""
        return time.time()

    @DBOS.step(name="perform")
    async def perform(self, order_json: str, name: str, outputs: dict[str, JsonDict], committed: bool) -> JsonDict:
        """Do one task; returns ``{"output"}``, or ``{"problem", "cancelled"}``."""
        run, task = self._run(order_json, name, outputs)
        application, events = run.order.application.name, self.workshop.events
        started = time.time()
        migrator = migrators()[task.migrator]
        try:
            if not (committed or migrator.commits):  # a task that commits looks for itself, once it knows where it is
                run.check()
            await events.happened(application, "task-started", name, operation=run.order.id)
            output = await migrator.run(task, run)
        except Cancelled:
            problem = Problem(code="cancelled", message=f"cancelled before {name} was done", remedy="apply it again")
            return {"problem": problem.model_dump(mode="json"), "cancelled": True}
        except Exception as error:  # noqa: BLE001 - every failure is an outcome that is acted upon
            problem = problem_of(error)
            await events.happened(application, "task-failed", f"{name}: {problem.message}", operation=run.order.id)
            return {"problem": problem.model_dump(mode="json"), "cancelled": False}
        seconds = time.time() - started
        await events.happened(application, "task-done", name, operation=run.order.id, seconds=round(seconds, 3))
        output = output.model_copy(update={"started": started, "seconds": seconds})
        return {"output": output.model_dump(mode="json")}

    @DBOS.step(name="revert")
    async def revert(self, order_json: str, name: str, outputs: dict[str, JsonDict]) -> JsonDict:
        """Undo one task; what a creating task leaves behind because its vendor is out of reach is remembered."""
        run, task = self._run(order_json, name, outputs)
        migrator = migrators()[task.migrator]
        problem = None
        attempts, patience = (None, RESTORE_PATIENCE) if migrator.undo_rank is UndoRank.RESTORE else (1, None)
        try:
            async for attempt in stamina.retry_context(on=_worth_repeating, attempts=attempts, timeout=patience):
                with attempt:
                    await migrator.undo(task, run)
        except Exception as error:  # noqa: BLE001 - undoing goes on with the next task whatever happens
            problem = problem_of(error)
            if migrator.undo_rank is UndoRank.RESTORE:
                problem = problem.model_copy(update={"code": SOURCE_NOT_RESTORED})
            if isinstance(migrator, Makes) and task.vendor:
                await self._remember(task.vendor, migrator.kind, run.key(task), f"undo of {name}: {problem.message}")
        text = f"{name}: {problem.message}" if problem else name
        kind = "undo-failed" if problem else "undone"
        await self.workshop.events.happened(run.order.application.name, kind, text, operation=run.order.id)
        undone = Undone(task=name, rank=migrator.undo_rank, ended=time.time(), problem=problem)
        return undone.model_dump(mode="json")

    @stamina.retry(on=Exception, attempts=None, timeout=STORE_PATIENCE)
    async def _remember(self, vendor: str, kind: Kind, key: str, reason: str) -> None:
        await self.workshop.store.add_cleanup(vendor, kind, key, reason)

    @DBOS.step(name="conclude")
    async def conclude(self, order_json: str, result_json: JsonDict) -> None:
        """Write down what came of it, and remove what was in transit."""
        order, result = Order.model_validate_json(order_json), Result.model_validate(result_json)
        async for attempt in stamina.retry_context(on=Exception, attempts=None, timeout=STORE_PATIENCE):
            with attempt:
                if order.kind == "deploy":
                    await conclude_deployment(self.workshop, order, result.outputs, result.outcome == "done")
                else:
                    await conclude_relocation(self.workshop, order, result)
                await hold_to_account(self.workshop, order, result)
        await asyncio.to_thread(shutil.rmtree, self.workshop.spool / order.id, ignore_errors=True)

    def _run(self, order_json: str, name: str, outputs: dict[str, JsonDict]) -> tuple[Run, Task]:
        order = Order.model_validate_json(order_json)
        run = Run(self.workshop, order, {task: Output.model_validate(output) for task, output in outputs.items()})
        return run, next(task for task in order.tasks if task.name == name)


VIADUCTS = Viaducts()


async def begin(order: Order) -> None:
    """Begin to carry out the order. One that was begun before is not begun again: an order is carried out once."""
    busy = VIADUCTS.workshop.busy
    busy[order.application.name] = order.id
    try:
        with SetWorkflowID(order.id):
            await DBOS.start_workflow_async(VIADUCTS.operate, order.model_dump_json())
    except BaseException:
        busy.pop(order.application.name, None)
        raise


async def was_begun(order_id: str) -> bool:
    """Whether the order was begun, by this process or one before it."""
    return await DBOS.get_workflow_status_async(order_id) is not None


async def result_of(order_id: str) -> Result:
    """Wait for the end of an order that was begun."""
    handle: WorkflowHandleAsync[JsonDict] = await DBOS.retrieve_workflow_async(order_id)
    return Result.model_validate(await handle.get_result(polling_interval_sec=RESULT_POLLING))
