"""Volumes: size, content, and where they are attached."""

from __future__ import annotations

from descriptors.base import MIB
from vendor_modules.capabilities import Attachments, ImageUpload, Power, VolumeBundle, Volumes
from vendor_modules.conformance.bench import Bench, expect, refused
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import Attachment, Machine, Status, Volume, VolumeSpec

DEVICE = "dev/vdb"
MIBS = 2


async def _volume(bench: Bench, name: str = "volume") -> Volume:
    spec = VolumeSpec(name=name, size_mib=MIBS)
    return await bench.the(Volumes).create_volume(spec, key=bench.key("volume"))


async def _machine_with(bench: Bench, volume: Volume, word: str = "machine") -> Machine:
    machine = await bench.machine(word, volumes=(Attachment(volume=volume.id, device=DEVICE),))
    await bench.get(machine, GREETING)
    return machine


@check(Volumes)
async def volume_is_as_ordered(bench: Bench) -> None:
    """A new volume is ACTIVE, has the name and size that were ordered, and is attached to nothing."""
    volume = await _volume(bench, "Band 世界")
    got = (volume.status, volume.name, volume.size_mib, volume.machine, volume.device)
    expect(got == (Status.ACTIVE, "Band 世界", MIBS, None, None), f"it is {got}")


@check(Volumes)
async def volume_is_a_device_of_its_machine(bench: Bench) -> None:
    """A machine finds a volume that it was created with at the device named, empty and of its full size."""
    volume = await _volume(bench)
    machine = await _machine_with(bench, volume)
    content = await bench.get(machine, DEVICE)
    expect(content == bytes(MIBS * MIB), f"the device has {len(content)} bytes, expected {MIBS * MIB} zeros")


@check(Volumes)
async def volume_says_where_it_is_attached(bench: Bench) -> None:
    """An attached volume is ATTACHED and names its machine and device; the machine names the volume."""
    volume = await _volume(bench)
    machine = await _machine_with(bench, volume)
    seen = await bench.the(Volumes).describe_volume(volume.id)
    got = (seen.status, seen.machine, seen.device)
    expect(got == (Status.ATTACHED, machine.id, DEVICE), f"it is {got}")
    volumes = (await bench.module.describe_machine(machine.id)).volumes
    expect(volumes == (volume.id,), f"the machine's volumes are {volumes}")


@check(Volumes)
async def attached_volume_cannot_be_destroyed(bench: Bench) -> None:
    """Destroying a volume that is attached raises Conflict, and the volume stays."""
    volume = await _volume(bench)
    await _machine_with(bench, volume)
    volumes = bench.the(Volumes)
    await refused(volumes.destroy_volume(volume.id), Conflict, what="destroy an attached volume")
    expect((await volumes.describe_volume(volume.id)).id == volume.id, "it is gone")


@check(Volumes)
async def volume_outlives_its_machine(bench: Bench) -> None:
    """A destroyed machine's volume is ACTIVE again, and another machine finds its content."""
    volume = await _volume(bench)
    first = await _machine_with(bench, volume, "first")
    await bench.put(first, DEVICE, b"kept")
    await bench.module.destroy_machine(first.id)
    seen = await bench.the(Volumes).describe_volume(volume.id)
    expect((seen.status, seen.machine) == (Status.ACTIVE, None), f"it is {seen.status} at {seen.machine}")
    second = await _machine_with(bench, volume, "second")
    content = await bench.get(second, DEVICE)
    expect(content[:4] == b"kept" and len(content) == MIBS * MIB, f"its content begins with {content[:16]!r}")


@check(Volumes)
async def volume_has_one_machine(bench: Bench) -> None:
    """A machine cannot be created with a volume that another has, or that is not there."""
    volume = await _volume(bench)
    await _machine_with(bench, volume, "first")
    await refused(_machine_with(bench, volume, "second"), Conflict, InvalidRequest, what="use a volume twice")
    missing = (Attachment(volume="there-is-none", device=DEVICE),)
    call = bench.machine("third", volumes=missing)
    await refused(call, NotFound, InvalidRequest, what="create a machine with an unknown volume")


# --- attach and detach ---


@check(Attachments, Power)
async def volume_is_attached_to_a_machine_that_exists(bench: Bench) -> None:
    """A volume attached to a stopped machine is ATTACHED there, and the machine finds it when it has started."""
    module, power = bench.the(Attachments), bench.the(Power)
    machine, volume = await bench.machine(), await _volume(bench)
    await power.stop_machine(machine.id)
    attached = await module.attach_volume(volume.id, machine.id, DEVICE)
    got = (attached.status, attached.machine, attached.device)
    expect(got == (Status.ATTACHED, machine.id, DEVICE), f"it is {got}")
    started = await power.start_machine(machine.id)
    expect(len(await bench.get(started, DEVICE)) == MIBS * MIB, "the machine does not find the device")


@check(Attachments, Power)
async def attaching_and_detaching_may_be_repeated(bench: Bench) -> None:
    """Attaching where it is attached already, and detaching what is detached, is no error."""
    module = bench.the(Attachments)
    machine, volume = await bench.machine(), await _volume(bench)
    await bench.the(Power).stop_machine(machine.id)
    for _ in range(2):
        await module.attach_volume(volume.id, machine.id, DEVICE)
    for _ in range(2):
        detached = await module.detach_volume(volume.id)
    expect((detached.status, detached.machine) == (Status.ACTIVE, None), f"it is {detached!r}")
    volumes = (await bench.module.describe_machine(machine.id)).volumes
    expect(volumes == (), f"the machine still has {volumes}")


@check(Attachments, Power)
async def volume_takes_its_content_along(bench: Bench) -> None:
    """What one machine wrote to a volume, another finds after the volume was detached and attached there."""
    module, power = bench.the(Attachments), bench.the(Power)
    volume = await _volume(bench)
    first = await _machine_with(bench, volume, "first")
    await bench.put(first, DEVICE, b"moved along")
    second = await bench.machine("second")
    for machine in (first, second):
        await power.stop_machine(machine.id)
    await module.detach_volume(volume.id)
    await module.attach_volume(volume.id, second.id, DEVICE)
    started = await power.start_machine(second.id)
    content = await bench.get(started, DEVICE)
    expect(content[:11] == b"moved along", f"its content begins with {content[:16]!r}")


@check(Attachments, Power)
async def volume_is_not_attached_twice(bench: Bench) -> None:
    """Attaching a volume that another machine has, or one that is not there, is refused."""
    module, volume = bench.the(Attachments), await _volume(bench)
    await _machine_with(bench, volume, "first")
    second = await bench.machine("second")
    await bench.the(Power).stop_machine(second.id)
    await refused(module.attach_volume(volume.id, second.id, DEVICE), Conflict, what="attach a volume twice")
    call = module.attach_volume("there-is-none", second.id, DEVICE)
    await refused(call, NotFound, what="attach an unknown volume")


# --- from images and to images ---


@check(VolumeBundle, ImageUpload)
async def volume_too_small_for_its_image_is_refused(bench: Bench) -> None:
    """A volume from an image that does not fit into it, or that is not there, is refused."""
    image = await bench.image(bytes(MIB + 1))
    volumes = bench.the(Volumes)
    small = VolumeSpec(name="small", size_mib=1, image=image.id)
    await refused(volumes.create_volume(small, key=bench.key("small")), InvalidRequest, what="a volume too small")
    lost = VolumeSpec(name="lost", size_mib=1, image="there-is-none")
    call = volumes.create_volume(lost, key=bench.key("lost"))
    await refused(call, NotFound, InvalidRequest, what="a volume from an unknown image")
