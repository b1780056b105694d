"""The service as the world sees it: let in at its place, switched over, and let go of where it was."""

from __future__ import annotations

from agency.relocation.migrators.base import Migrator
from agency.relocation.migrators.configuration import url_of
from agency.relocation.migrators.machines import await_works
from agency.relocation.release import let_go
from agency.relocation.result import UndoRank
from agency.relocation.workshop import Output, Run
from descriptors.base import utc_now
from descriptors.deployment import DeployedResource, Deployment, Endpoint
from descriptors.relocation import Task
from vendor_modules.capabilities import Addresses


async def _let_in(name: str, run: Run) -> Endpoint:
    """Lead a component's new address to its new machine, and see that the world is answered."""
    component = run.order.application.component(name)
    address, machine = run.created(f"address-{name}"), run.created(f"launch-{name}")
    await run.module(address.vendor, Addresses).associate_address(address.id, machine.id)
    url = await url_of(name, run)
    await await_works(component, machine, run, url)
    return Endpoint(component=name, url=url)


async def _shut_out(name: str, run: Run) -> None:
    output = run.outputs.get(f"address-{name}")
    if output and output.created:
        await run.module(output.created.vendor, Addresses).associate_address(output.created.id, None)


class Publish(Migrator):
    """Let the world in to a component that is deployed for the first time, or that others need which move with it."""

    name = "publish"
    undo_rank = UndoRank.FENCE

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        return Output(endpoints=(await _let_in(task.subject or "", run),))

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        await _shut_out(task.subject or "", run)


def relocated(run: Run, endpoints: tuple[Endpoint, ...]) -> Deployment:
    """The deployment after the relocation: what was made replaces what it was made for."""
    old, plan = run.order.deployment, run.order.plan
    assert plan is not None  # noqa: S101 - only relocations switch
    moved = set(plan.components)
    volumes = {use.resource for name in moved for use in run.order.application.component(name).volumes}
    made = [o.created for o in run.outputs.values() if o.created and not o.temporary]
    kept = [r for r in old.resources if r.component not in moved and r.resource not in volumes]
    kept = [r for r in kept if not _superseded(r, kept, run)]
    resources = (*kept, *made)
    agreements = [a for a in old.agreements if any(r.agreement == a for r in kept)]
    return old.model_copy(
        update={
            "revision": old.revision + 1,
            "changed": utc_now(),
            "resources": resources,
            "agreements": tuple(dict.fromkeys([*agreements, run.order.agreement.id])),
            "endpoints": (*(e for e in old.endpoints if e.component not in moved), *endpoints),
        }
    )


def _superseded(resource: DeployedResource, kept: list[DeployedResource], run: Run) -> bool:
    """Whether what it is for has moved away: a vendor's key pair without machines, a bucket's key without readers."""
    machines = [r for r in kept if r.kind == "machine" and r.vendor == resource.vendor]
    if resource.kind == "key-pair":
        return not machines
    if resource.kind == "access-key":
        staying = {machine.component for machine in machines}
        readers = [
            c.name for c in run.order.application.components if any(b.resource == resource.resource for b in c.buckets)
        ]
        return f"access-key-{resource.resource}" in run.outputs and not staying.intersection(readers)
    return False


class Switch(Migrator):
    """Let the world in at the new place and record that this is where the application is: the downtime ends."""

    name = "switch"
    undo_rank = UndoRank.FENCE
    commits = True

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        plan = run.order.plan
        names = [name for name in (plan.components if plan else ()) if f"address-{name}" in run.outputs]
        present = await run.workshop.store.get(Deployment, run.order.deployment.id)
        made = {output.created.id for output in run.outputs.values() if output.created and not output.temporary}
        if made <= {resource.id for resource in present.resources}:
            # switched, before a crash kept this from being recorded: nothing may call it back any more
            return Output(endpoints=tuple(e for e in present.endpoints if e.component in names))
        run.check()
        endpoints = tuple([await _let_in(name, run) for name in names])
        after = relocated(run, endpoints)
        await run.workshop.store.replace(after, id=after.id, expected_revision=run.order.deployment.revision)
        return Output(endpoints=endpoints)

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        for name in run.order.plan.components if run.order.plan else ():
            await _shut_out(name, run)


class ReleaseSource(Migrator):
    """Let go of what the application no longer uses."""

    name = "release-source"

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        now = await run.workshop.store.get(Deployment, run.order.deployment.id)
        used = {(r.vendor, r.kind, r.id) for r in now.resources}
        gone = [r for r in run.order.deployment.resources if (r.vendor, r.kind, r.id) not in used]
        await let_go(run.workshop, gone, "release of the source")
        return Output()


class ReleaseTemporary(Migrator):
    """Let go of what only served the operation."""

    name = "release-temporary"

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        made = [o.created for o in run.outputs.values() if o.created and o.temporary]
        await let_go(run.workshop, made, "release of what served the relocation")
        return Output()
