"""What a Migrator is: it does one task of an operation and knows how to undo it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar, Literal

from agency.relocation.result import UndoRank
from agency.relocation.workshop import Output, Run
from descriptors.base import Token
from descriptors.deployment import DeployedResource, Kind
from descriptors.relocation import Task
from vendor_modules.capabilities import release
from vendor_modules.module import VendorModule
from vendor_modules.resources import Resource


class Migrator(ABC):
    """One kind of task. Running or undoing it twice is the same as once: either may be repeated after a crash."""

    name: ClassVar[str]
    needs: ClassVar[type[VendorModule]] = VendorModule
    """The capability that the task's vendor must have."""
    undo_rank: ClassVar[UndoRank] = UndoRank.TIDY
    commits: ClassVar[bool] = False
    """After this task there is no way back: what follows tidies up, and what cannot be tidied is remembered."""

    @abstractmethod
    async def run(self, task: Task, run: Run) -> Output:
        """Do the task."""

    async def undo(self, task: Task, run: Run) -> None:
        """Undo the task, whether it was done, half done or not begun."""
        return


class Makes(Migrator):
    """A task that leaves one resource, and removes it when undone."""

    kind: ClassVar[Kind]
    temporary: ClassVar[bool] = False
    serves: ClassVar[Literal["component", "resource"]]
    """Whether the task's subject is a ``component`` or a ``resource`` class."""

    def made(self, task: Task, run: Run, resource: Resource, manifest: Token | None = None) -> Output:
        """What the task leaves: the resource, which has the key ``run.key(task)``."""
        deployed = DeployedResource(
            kind=self.kind,
            id=resource.id,
            name=task.name,
            vendor=task.vendor or "",
            agreement=run.order.agreement_at(task.vendor, **{self.serves: task.subject}).id,
            key=run.key(task),
            **{self.serves: task.subject},
        )
        return Output(created=deployed, temporary=self.temporary, manifest=manifest)

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`. Whatever bears the key goes, recorded or not."""
        await release(run.module(task.vendor, VendorModule), self.kind, run.key(task))


class Creates(Makes):
    """A task that does nothing but create the resource."""

    @abstractmethod
    async def create(self, task: Task, run: Run) -> Resource:
        """Create the resource with the key ``run.key(task)``."""

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        return self.made(task, run, await self.create(task, run))
