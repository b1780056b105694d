"""Work that goes on after the API has answered: making disks, starting machines, copying volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from typing import Any

from vendor_modules.services import Log
from vendor_modules.testbed.errors import conflict


class Jobs:
    """At most one job at a time for a resource. A job may hold other resources: they are busy until it ends."""

    def __init__(self, log: Log, failed: Callable[[str, str], None]) -> None:
        """``failed`` is told the resource's id, and what happened, when a job ends in an error that it did not foresee:
        whoever waits for the resource must not wait for ever."""
        self._log = log
        self._failed = failed
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._held: dict[str, frozenset[str]] = {}

    def start(self, resource_id: str, work: Coroutine[Any, Any, None], *, holding: Iterable[str] = ()) -> None:
        """Begin the resource's job; it must end well whatever happens, or be cancelled."""
        self._held[resource_id] = frozenset(holding)
        task = self._tasks[resource_id] = asyncio.create_task(work)
        task.add_done_callback(lambda done: self._done(resource_id, done))

    def refuse_if_held(self, kind: str, resource_id: str) -> None:
        """The API's conflict error while another resource's job works with this one."""
        for by, held in self._held.items():
            if resource_id in held:
                raise conflict(f"{kind} {resource_id} is being copied to {by}; wait until that is ready")

    async def cancel(self, resource_id: str) -> None:
        """Cancel the resource's job, if there is one, and wait until it has ended."""
        if task := self._tasks.get(resource_id):
            task.cancel()
            await asyncio.wait([task])

    async def close(self) -> None:
        """Cancel all jobs; what they leave half done is taken up when the cloud starts again."""
        for resource_id in list(self._tasks):
            await self.cancel(resource_id)

    def _done(self, resource_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(resource_id) is task:
            del self._tasks[resource_id], self._held[resource_id]
        if not task.cancelled() and (error := task.exception()):
            self._log.error("a job failed", resource=resource_id, exc_info=error)
            self._failed(resource_id, f"the cloud itself failed: {type(error).__name__}; see its log")
