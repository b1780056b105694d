"""Volumes: size, content, and where they are attached."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from descriptors.base import MIB
from vendor_modules.abilities import Requirement
from vendor_modules.capabilities import Attachments, Endpoints, ImageUpload, Power, VolumeBundle, Volumes
from vendor_modules.conformance.bench import Bench, expect, refused
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import Attachment, Machine, Status, Volume, VolumeSpec


async def new_volume(bench: Bench, word: str = "volume") -> Volume:
    """An ordinary volume."""
    spec = VolumeSpec(name=word, size_mib=bench.subject.volume_mib)
    return await bench.the(Volumes).create_volume(spec, key=bench.key(word))


async def _with_a_volume(bench: Bench) -> tuple[Machine, Volume]:
    """A machine that was created with a volume, and the volume; both are lent."""
    given = await bench.equipped()
    return given.machine, given.volume or await new_volume(bench)


@asynccontextmanager
async def machine_to_attach_to(bench: Bench, slot: str = "first") -> AsyncIterator[Machine]:
    """A lent machine in the state that attaching requires: stopped if that is declared, else running."""
    stopped = Requirement.STOPPED in bench.ability("attach_volume").requires
    async with bench.machine_lent(slot, stopped=stopped) as machine:
        yield machine


async def detached(bench: Bench, volume: Volume, machine: Machine) -> Volume:
    """The volume after it was detached, with the machine in the state that detaching requires."""
    if Requirement.STOPPED in bench.ability("detach_volume").requires:
        await bench.the(Power).stop_machine(machine.id)
    return await bench.the(Attachments).detach_volume(volume.id)


async def answering(bench: Bench, machine: Machine) -> Machine:
    """The machine when it has been started, if it was not, and answers."""
    now = await bench.module.describe_machine(machine.id)
    if now.status is Status.STOPPED:
        now = await bench.the(Power).start_machine(machine.id)
    await bench.get(now, GREETING)
    return now


async def device_of(bench: Bench, volume: Volume) -> str:
    """Where its machine finds an attached volume."""
    device = (await bench.the(Volumes).describe_volume(volume.id)).device
    return device or bench.subject.device


@check(Volumes)
async def volume_is_as_ordered(bench: Bench) -> None:
    """A new volume is ACTIVE, has the size that was ordered, and is attached to nothing."""
    volume = (await bench.specimen("volume")).made
    got = (volume.status, volume.size_mib, volume.machine, volume.device)
    expect(got == (Status.ACTIVE, bench.subject.volume_mib, None, None), f"it is {got}")


@check(Volumes)
async def volume_is_never_too_small(bench: Bench) -> None:
    """A volume of a size that the provider does not sell is larger than ordered, or refused."""
    spec = VolumeSpec(name="odd", size_mib=bench.subject.volume_mib + 1)
    try:
        volume = await bench.the(Volumes).create_volume(spec, key=bench.key("odd"))
    except InvalidRequest:
        return
    expect(volume.size_mib >= spec.size_mib, f"{spec.size_mib} MiB were ordered, it has {volume.size_mib}")


@check(Volumes)
async def volume_says_where_it_is_attached(bench: Bench) -> None:
    """A volume that a machine was created with is ATTACHED and names its machine and device; the machine names it."""
    machine, volume = await _with_a_volume(bench)
    seen = await bench.the(Volumes).describe_volume(volume.id)
    got, wanted = (seen.status, seen.machine, seen.device), (Status.ATTACHED, machine.id, bench.subject.device)
    expect(got == wanted, f"it is {got}, expected {wanted}")
    volumes = (await bench.module.describe_machine(machine.id)).volumes
    expect(volumes == (volume.id,), f"the machine's volumes are {volumes}")


@check(Volumes, Endpoints)
async def volume_is_a_device_of_its_machine(bench: Bench) -> None:
    """A machine finds a volume that it was created with at the device named, empty and of its full size."""
    bench.need_running_machines()
    machine, volume = await _with_a_volume(bench)
    size = bench.subject.volume_mib * MIB
    device = await device_of(bench, volume)
    for start in (0, size - MIB):
        content = await bench.get(machine, device, start=start, length=MIB)
        expect(content == bytes(MIB), f"from {start} on, {len(content)} bytes were read, expected {MIB} zeros")
    rest = await bench.get(machine, device, start=size, length=1)
    expect(rest == b"", f"the device has more than {size} bytes")


@check(Volumes)
async def attached_volume_cannot_be_destroyed(bench: Bench) -> None:
    """Destroying a volume that is attached raises Conflict, and the volume stays."""
    (_, volume), volumes = await _with_a_volume(bench), bench.the(Volumes)
    await refused(volumes.destroy_volume(volume.id), Conflict, what="destroy an attached volume")
    seen = await volumes.describe_volume(volume.id)
    expect(seen.status is Status.ATTACHED, f"it is {seen.status}")


@check(Volumes)
async def volume_has_one_machine(bench: Bench) -> None:
    """A machine cannot be created with a volume that another has, and none is left of the attempt."""
    _, volume = await _with_a_volume(bench)
    taken = (Attachment(volume=volume.id, device=bench.subject.device),)
    await refused(bench.machine("taken", volumes=taken), Conflict, InvalidRequest, what="use a volume twice")
    left = [m.id for m in await bench.module.list_machines() if m.key == bench.key("taken")]
    expect(not left, f"{left} were made all the same")


@check(Volumes)
async def machine_with_an_unknown_volume_is_refused(bench: Bench) -> None:
    """A machine cannot be created with a volume that is not there, and none is left of the attempt."""
    missing = (Attachment(volume=bench.unknown("volume"), device=bench.subject.device),)
    call = bench.machine("missing", volumes=missing)
    await refused(call, NotFound, InvalidRequest, what="create a machine with an unknown volume")
    left = [m.id for m in await bench.module.list_machines() if m.key == bench.key("missing")]
    expect(not left, f"{left} were made all the same")


@check(Volumes)
async def volume_outlives_its_machine(bench: Bench) -> None:
    """A destroyed machine's volume is ACTIVE again, and another machine finds its content."""
    volume = await new_volume(bench)
    attachment = (Attachment(volume=volume.id, device=bench.subject.device),)
    first = await bench.machine("first", volumes=attachment)
    if bench.answers():
        await bench.get(first, GREETING)
        await bench.put(first, await device_of(bench, volume), b"kept")
    await bench.module.destroy_machine(first.id)
    seen = await bench.the(Volumes).describe_volume(volume.id)
    expect((seen.status, seen.machine) == (Status.ACTIVE, None), f"it is {seen.status} at {seen.machine}")
    if bench.answers():
        expect(await _beginning(bench, volume, 4) == b"kept", "another machine does not find what was written")


async def _beginning(bench: Bench, volume: Volume, length: int) -> bytes:
    """The first bytes of a volume, as a machine reads them."""
    if not bench.has(Attachments):
        attachment = (Attachment(volume=volume.id, device=bench.subject.device),)
        machine = await bench.machine("reader", volumes=attachment)
        await bench.get(machine, GREETING)
        return await bench.get(machine, await device_of(bench, volume), length=length)
    async with machine_to_attach_to(bench) as machine:
        await bench.the(Attachments).attach_volume(volume.id, machine.id, bench.subject.device)
        now = await answering(bench, machine)
        content = await bench.get(now, await device_of(bench, volume), length=length)
        await detached(bench, volume, now)
    return content


# --- attach and detach ---


@check(Attachments)
async def volume_is_attached_to_a_machine_that_exists(bench: Bench) -> None:
    """A volume attached to a machine is ATTACHED there, at the device named, and the machine names it."""
    module, volume = bench.the(Attachments), await new_volume(bench)
    async with machine_to_attach_to(bench) as machine:
        attached = await module.attach_volume(volume.id, machine.id, bench.subject.device)
        got = (attached.status, attached.machine, attached.device)
        expect(got == (Status.ATTACHED, machine.id, bench.subject.device), f"it is {got}")
        volumes = (await bench.module.describe_machine(machine.id)).volumes
        expect(volumes == (volume.id,), f"the machine's volumes are {volumes}")
        await detached(bench, volume, machine)


@check(Attachments, Endpoints)
async def attached_volume_is_found_by_its_machine(bench: Bench) -> None:
    """A machine that runs, or is started, after a volume was attached to it finds the volume."""
    bench.need_running_machines()
    module, volume = bench.the(Attachments), await new_volume(bench)
    async with machine_to_attach_to(bench) as machine:
        await module.attach_volume(volume.id, machine.id, bench.subject.device)
        now = await answering(bench, machine)
        content = await bench.get(now, await device_of(bench, volume), length=MIB)
        expect(content == bytes(MIB), f"{len(content)} bytes were read, expected {MIB} zeros")
        await detached(bench, volume, now)


@check(Attachments)
async def attaching_and_detaching_may_be_repeated(bench: Bench) -> None:
    """Attaching where it is attached already, and detaching what is detached, is no error."""
    module, volume = bench.the(Attachments), await new_volume(bench)
    async with machine_to_attach_to(bench) as machine:
        for _ in range(2):
            await module.attach_volume(volume.id, machine.id, bench.subject.device)
        for _ in range(2):
            seen = await detached(bench, volume, machine)
        expect((seen.status, seen.machine) == (Status.ACTIVE, None), f"it is {seen!r}")
        volumes = (await bench.module.describe_machine(machine.id)).volumes
        expect(volumes == (), f"the machine still has {volumes}")


@check(Attachments, Endpoints)
async def volume_takes_its_content_along(bench: Bench) -> None:
    """What one machine wrote to a volume, another finds after the volume was detached and attached there."""
    bench.need_running_machines()
    module, volume, device = bench.the(Attachments), await new_volume(bench), bench.subject.device
    async with machine_to_attach_to(bench) as first:
        await module.attach_volume(volume.id, first.id, device)
        now = await answering(bench, first)
        await bench.put(now, await device_of(bench, volume), b"moved along")
        await detached(bench, volume, now)
    async with machine_to_attach_to(bench, "second") as second:
        await module.attach_volume(volume.id, second.id, device)
        now = await answering(bench, second)
        content = await bench.get(now, await device_of(bench, volume), length=11)
        expect(content == b"moved along", f"its content begins with {content!r}")
        await detached(bench, volume, now)


@check(Attachments)
async def volume_is_not_attached_twice(bench: Bench) -> None:
    """Attaching a volume that another machine has raises Conflict, and it stays where it is."""
    (machine, volume), module = await _with_a_volume(bench), bench.the(Attachments)
    async with machine_to_attach_to(bench) as other:
        call = module.attach_volume(volume.id, other.id, bench.subject.device)
        await refused(call, Conflict, what="attach a volume twice")
    seen = await module.describe_volume(volume.id)
    expect(seen.machine == machine.id, f"it is attached to {seen.machine}")


@check(Attachments)
async def attaching_the_unknown_is_not_found(bench: Bench) -> None:
    """Attaching an unknown volume, or to an unknown machine, and detaching an unknown volume raise NotFound."""
    module, unknown = bench.the(Attachments), bench.unknown("volume")
    async with machine_to_attach_to(bench) as machine:
        call = module.attach_volume(unknown, machine.id, bench.subject.device)
        await refused(call, NotFound, what="attach an unknown volume")
    volume = (await bench.specimen("volume")).made
    call = module.attach_volume(volume.id, bench.unknown("machine"), bench.subject.device)
    await refused(call, NotFound, what="attach to an unknown machine")
    await refused(module.detach_volume(unknown), NotFound, what="detach an unknown volume")


@check(Attachments, Power)
async def attaching_requires_what_is_declared(bench: Bench) -> None:
    """Where attaching and detaching are declared to require a stopped machine, a running one is refused with Conflict;
    where they are not, a running machine takes a volume and gives it back."""
    module, volume = bench.the(Attachments), await new_volume(bench)
    async with bench.machine_lent() as machine:
        call = module.attach_volume(volume.id, machine.id, bench.subject.device)
        if Requirement.STOPPED in bench.ability("attach_volume").requires:
            await refused(call, Conflict, what="attach to a running machine")
            await bench.the(Power).stop_machine(machine.id)
            await module.attach_volume(volume.id, machine.id, bench.subject.device)
            await bench.the(Power).start_machine(machine.id)
        else:
            await call
        if Requirement.STOPPED in bench.ability("detach_volume").requires:
            await refused(module.detach_volume(volume.id), Conflict, what="detach from a running machine")
            await bench.the(Power).stop_machine(machine.id)
        seen = await module.detach_volume(volume.id)
        expect(seen.status is Status.ACTIVE, f"after detaching, it is {seen.status}")


# --- from images and to images ---


@check(VolumeBundle, ImageUpload)
async def volume_too_small_for_its_image_is_refused(bench: Bench) -> None:
    """A volume from an image that does not fit into it is refused, and none is left."""
    bench.need_raw_uploads()
    image, volumes = await bench.image(bytes(bench.subject.volume_mib * MIB + 512)), bench.the(Volumes)
    small = VolumeSpec(name="small", size_mib=bench.subject.volume_mib, image=image.id)
    await refused(volumes.create_volume(small, key=bench.key("small")), InvalidRequest, what="a volume too small")
    left = [v.id for v in await volumes.list_volumes() if v.key == bench.key("small")]
    expect(not left, f"{left} were made all the same")


@check(VolumeBundle)
async def volume_from_an_unknown_image_is_refused(bench: Bench) -> None:
    """A volume from an image that is not there is refused, and none is left."""
    volumes = bench.the(Volumes)
    lost = VolumeSpec(name="lost", size_mib=bench.subject.volume_mib, image=bench.unknown("image"))
    call = volumes.create_volume(lost, key=bench.key("lost"))
    await refused(call, NotFound, InvalidRequest, what="a volume from an unknown image")
    left = [v.id for v in await volumes.list_volumes() if v.key == bench.key("lost")]
    expect(not left, f"{left} were made all the same")
