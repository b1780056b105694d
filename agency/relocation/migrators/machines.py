"""Machines: launched at the target, fenced, stopped and bundled at the source, and proven before anything is let go."""

from __future__ import annotations

import asyncio
from functools import partial

from agency.problems import refuse
from agency.relocation.migrators.base import Creates, Migrator
from agency.relocation.migrators.configuration import in_machine_disk, rewritten, values
from agency.relocation.probing import await_health, content_digest
from agency.relocation.result import UndoRank
from agency.relocation.workshop import Output, Run
from descriptors.application import Component
from descriptors.deployment import DeployedResource
from descriptors.machine import MachineManifest
from descriptors.relocation import Task
from descriptors.sla import Agreement
from vendor_modules.capabilities import Addresses, Images, MachineBundle, Power, VolumeBundle
from vendor_modules.module import VendorModule
from vendor_modules.resources import Attachment, Image, Machine, MachineSpec, UserData


def _name(run: Run, component: str) -> str:
    return f"{run.order.application.name}-{component}"


async def _private_url(run: Run, vendor: str, machine_id: str) -> str:
    """Where the machine's service is reached whatever its public address and its rules say."""
    machine = await run.module(vendor, VendorModule).describe_machine(machine_id)
    return f"http://{machine.host}:{machine.port}"


async def await_works(component: Component, machine: DeployedResource, run: Run, base: str | None = None) -> None:
    """Wait until the component on the machine says that it works; asked at ``base``, or inside the vendor's network."""
    if component.health is None:
        return
    url = base or await _private_url(run, machine.vendor, machine.id)
    describe = partial(run.module(machine.vendor, VendorModule).describe_machine, machine.id)
    await await_health(url + component.health.path, f"{component.name} at {machine.vendor}", describe)


class LaunchMachine(Creates):
    """Create and start a component's machine: from an image that was brought, or from the vendor's with the
    component's files."""

    name = "launch-machine"
    kind = "machine"
    serves = "component"
    undo_rank = UndoRank.FENCE

    async def create(self, task: Task, run: Run) -> Machine:
        """See :class:`Creates`."""
        component, module = run.component(task), run.module(task.vendor, VendorModule)
        uploaded = f"upload-machine-{component.name}"
        brought = run.outputs.get(uploaded)
        spec = MachineSpec(
            name=_name(run, component.name),
            image=run.created(uploaded).id if brought else await self._vendor_image(component, task, run),
            size=self._size(component, run.order.agreement_at(task.vendor, component=component.name)),
            user_data=None if brought else await self._user_data(component, run),
            volumes=tuple(
                Attachment(volume=run.created(f"volume-{use.resource}").id, device=use.device)
                for use in component.volumes
                if not in_machine_disk(run, use.resource)
            ),
            key_pair=self._made(run, f"key-pair-{task.vendor}"),
            security_groups=tuple(filter(None, [self._made(run, f"security-group-{component.name}")])),
        )
        return await module.create_machine(spec, key=run.key(task))

    @staticmethod
    def _size(component: Component, agreement: Agreement) -> str:
        return next(a.size for a in agreement.allocations if a.resource == component.resource)

    @staticmethod
    def _made(run: Run, task: str) -> str | None:
        return run.created(task).id if task in run.outputs else None

    @staticmethod
    async def _vendor_image(component: Component, task: Task, run: Run) -> str:
        images: list[Image] = await run.module(task.vendor, Images).list_images()
        for image in images:
            if image.public and image.name == component.image:
                return image.id
        known = ", ".join(sorted(i.name for i in images if i.public)) or "none"
        raise refuse(
            "no-such-image",
            f"{task.vendor} has no image {component.image!r} for component {component.name!r}; it has: {known}",
            "name an image that the vendor has",
        )

    @staticmethod
    async def _user_data(component: Component, run: Run) -> UserData:
        known = await values(component, run)
        files: dict[str, bytes] = {}
        for file in component.files:
            if file.digest is None:
                raise refuse("file-missing", f"the content of {file.source!r} was never uploaded", "submit it again")
            content = await asyncio.to_thread(run.workshop.blobs.read, file.digest)
            files[file.target] = await rewritten(component, file.target, content, known)
        (start,) = component.command("start")
        manifest = MachineManifest(install=tuple(component.command("install")), start=start)
        return UserData(files=files, manifest=manifest)


class FenceMachine(Migrator):
    """Cut the world off from a component at its source and take the hash of its content: the downtime begins."""

    name = "fence-machine"
    needs = Addresses
    undo_rank = UndoRank.RESTORE

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        deployment, component = run.order.deployment, run.component(task)
        for address in deployment.all("address", component=component.name):
            await run.module(task.vendor, Addresses).associate_address(address.id, None)
        if component.content is None:
            return Output()
        machine = deployment.the("machine", component=component.name)
        url = await _private_url(run, machine.vendor, machine.id)
        what = f"{component.name} at {task.vendor}"
        return Output(digest=await content_digest(url + component.content.path, what, run.check))

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`."""
        deployment, component = run.order.deployment, run.component(task)
        machine = deployment.the("machine", component=component.name)
        for address in deployment.all("address", component=component.name):
            await run.module(task.vendor, Addresses).associate_address(address.id, machine.id)


class StopMachine(Migrator):
    """Stop a component's machine at its source."""

    name = "stop-machine"
    needs = Power
    undo_rank = UndoRank.RESTORE

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        machine = run.order.deployment.the("machine", component=task.subject or "")
        await run.module(task.vendor, Power).stop_machine(machine.id)
        return Output()

    async def undo(self, task: Task, run: Run) -> None:
        """See :class:`Migrator`. The source is back when its component says that it works."""
        component = run.component(task)
        machine = run.order.deployment.the("machine", component=component.name)
        await run.module(task.vendor, Power).start_machine(machine.id)
        await await_works(component, machine, run)


class BundleMachine(Creates):
    """An image of the stopped machine's own disk."""

    name = "bundle-machine"
    needs = MachineBundle
    kind = "image"
    temporary = True
    serves = "component"

    async def create(self, task: Task, run: Run) -> Image:
        """See :class:`Creates`."""
        machine = run.order.deployment.the("machine", component=task.subject or "")
        module = run.module(task.vendor, MachineBundle)
        return await module.bundle_machine(machine.id, _name(run, task.subject or ""), key=run.key(task))


class BundleVolume(Creates):
    """An image of a volume whose machine is stopped."""

    name = "bundle-volume"
    needs = VolumeBundle
    kind = "image"
    temporary = True
    serves = "resource"

    async def create(self, task: Task, run: Run) -> Image:
        """See :class:`Creates`."""
        volume = run.order.deployment.the("volume", resource=task.subject or "")
        module = run.module(task.vendor, VolumeBundle)
        return await module.bundle_volume(volume.id, _name(run, task.subject or ""), key=run.key(task))


class VerifyMachine(Migrator):
    """Prove the component at its new place, before the world is let in: it works, and its content is the same."""

    name = "verify-machine"

    async def run(self, task: Task, run: Run) -> Output:
        """See :class:`Migrator`."""
        component = run.component(task)
        machine = run.created(f"launch-{component.name}")
        await await_works(component, machine, run)
        if component.content is None:
            return Output()
        url, what = await _private_url(run, machine.vendor, machine.id), f"{component.name} at {task.vendor}"
        digest = await content_digest(url + component.content.path, what, run.check)
        fenced = run.outputs.get(f"fence-{component.name}")
        if fenced and fenced.digest != digest:
            raise refuse(
                "content-differs",
                f"{what}: its content is not what it was at the source ({digest}, expected {fenced.digest})",
                "the application goes on at its source; look at what the component's content probe answers",
            )
        return Output(digest=digest)
