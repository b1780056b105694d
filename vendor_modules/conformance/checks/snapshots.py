"""Snapshots of volumes, and what is made from them."""

from __future__ import annotations

from descriptors.base import MIB
from vendor_modules.capabilities import Attachments, Endpoints, ImageDownload, ImageUpload, Snapshots, VolumeBundle
from vendor_modules.conformance.bench import Bench, expect, refused
from vendor_modules.conformance.checks.images import download
from vendor_modules.conformance.checks.volumes import answering, detached, device_of, machine_to_attach_to, new_volume
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.samples import noise
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import Snapshot, Status, Volume, VolumeSpec


async def _snapshot(bench: Bench, volume: Volume, word: str = "snapshot") -> Snapshot:
    return await bench.the(Snapshots).create_snapshot(volume.id, word, key=bench.key(word))


async def _volume_from(bench: Bench, snapshot_id: str, *, more_mib: int = 0, word: str = "copy") -> Volume:
    spec = VolumeSpec(name=word, size_mib=bench.subject.volume_mib + more_mib, snapshot=snapshot_id)
    return await bench.the(Snapshots).create_volume(spec, key=bench.key(word))


@check(Snapshots)
async def snapshot_is_as_ordered(bench: Bench) -> None:
    """A new snapshot is ACTIVE, names its volume, and has that one's size."""
    volume, snapshot = (await bench.specimen("volume")).made, (await bench.specimen("snapshot")).made
    got = (snapshot.status, snapshot.volume, snapshot.size_mib)
    expect(got == (Status.ACTIVE, volume.id, volume.size_mib), f"it is {got}")


@check(Snapshots)
async def snapshot_leaves_its_volume_alone(bench: Bench) -> None:
    """A volume that a snapshot was made of is what it was."""
    specimen = await bench.specimen("volume")
    await _snapshot(bench, specimen.made)
    seen = await bench.the(Snapshots).describe_volume(specimen.made.id)
    expect(seen == specimen.described, f"it was {specimen.described!r}, and is {seen!r}")


@check(Snapshots)
async def volume_is_made_from_a_snapshot(bench: Bench) -> None:
    """A volume made from a snapshot is ACTIVE, another one than the snapshot's, and as large as ordered."""
    snapshot = (await bench.specimen("snapshot")).made
    copy = await _volume_from(bench, snapshot.id)
    expect((copy.status, copy.machine) == (Status.ACTIVE, None), f"it is {copy!r}")
    expect(copy.id != snapshot.volume, "it is the volume that the snapshot was made of")
    expect(copy.size_mib == bench.subject.volume_mib, f"it has {copy.size_mib} MiB")


@check(Snapshots, Attachments, Endpoints)
async def snapshot_holds_the_content_of_its_moment(bench: Bench) -> None:
    """A volume made from a snapshot has what the first had when the snapshot was made, and not what was written after
    that."""
    bench.need_running_machines()
    module, volume, device = bench.the(Attachments), await new_volume(bench), bench.subject.device
    async with machine_to_attach_to(bench) as machine:
        await module.attach_volume(volume.id, machine.id, device)
        now = await answering(bench, machine)
        await bench.put(now, await device_of(bench, volume), b"before")
        await detached(bench, volume, now)
    snapshot = await _snapshot(bench, volume)
    async with machine_to_attach_to(bench) as machine:
        await module.attach_volume(volume.id, machine.id, device)
        now = await answering(bench, machine)
        await bench.put(now, await device_of(bench, volume), b"after!")
        await detached(bench, volume, now)
    copy = await _volume_from(bench, snapshot.id)
    async with machine_to_attach_to(bench) as machine:
        await module.attach_volume(copy.id, machine.id, device)
        now = await answering(bench, machine)
        content = await bench.get(now, await device_of(bench, copy), length=6)
        expect(content == b"before", f"its content begins with {content!r}")
        await detached(bench, copy, now)


@check(Snapshots, VolumeBundle, ImageUpload, ImageDownload)
async def snapshot_holds_every_byte(bench: Bench) -> None:
    """A volume made from a snapshot has every byte of the volume that the snapshot was made of."""
    bench.need_raw_uploads()
    module, content, size = bench.the(VolumeBundle), noise(MIB + 512), bench.subject.volume_mib
    image = await bench.image(content)
    spec = VolumeSpec(name="filled", size_mib=size, image=image.id)
    snapshot = await _snapshot(bench, await module.create_volume(spec, key=bench.key("filled")))
    copy = await _volume_from(bench, snapshot.id)
    made = await module.bundle_volume(copy.id, "of the copy", key=bench.key("bundle"))
    got = await download(bench, made)
    expect(len(got) == size * MIB, f"{len(got)} bytes came out, expected {size * MIB}")
    expect(got[: len(content)] == content and not any(got[len(content) :]), "other bytes came out than went in")


@check(Snapshots)
async def volume_from_a_snapshot_may_be_larger(bench: Bench) -> None:
    """A volume that is ordered larger than its snapshot is larger, or refused."""
    snapshot, more = (await bench.specimen("snapshot")).made, bench.subject.volume_mib
    try:
        copy = await _volume_from(bench, snapshot.id, more_mib=more, word="larger")
    except InvalidRequest:
        return
    expect(copy.size_mib == bench.subject.volume_mib + more, f"it has {copy.size_mib} MiB")


@check(Snapshots)
async def volume_too_small_for_its_snapshot_is_refused(bench: Bench) -> None:
    """A volume from a snapshot that does not fit into it is refused, and none is left."""
    size = bench.subject.volume_mib
    spec = VolumeSpec(name="large", size_mib=2 * size)
    snapshot = await _snapshot(bench, await bench.the(Snapshots).create_volume(spec, key=bench.key("large")))
    call = _volume_from(bench, snapshot.id, word="small")
    await refused(call, InvalidRequest, what="make a volume that is too small for its snapshot")
    left = [v.id for v in await bench.the(Snapshots).list_volumes() if v.key == bench.key("small")]
    expect(not left, f"{left} were made all the same")


@check(Snapshots)
async def volume_outlives_its_snapshot(bench: Bench) -> None:
    """A volume made from a snapshot stays when the snapshot is destroyed."""
    module, volume = bench.the(Snapshots), (await bench.specimen("volume")).made
    snapshot = await _snapshot(bench, volume)
    copy = await _volume_from(bench, snapshot.id)
    await module.destroy_snapshot(snapshot.id)
    seen = await module.describe_volume(copy.id)
    expect(seen.status is Status.ACTIVE, f"it is {seen.status}")


@check(Snapshots)
async def snapshot_outlives_its_volume(bench: Bench) -> None:
    """A volume that has a snapshot cannot be destroyed, or its snapshot goes on to make volumes."""
    module, volume = bench.the(Snapshots), await new_volume(bench)
    snapshot = await _snapshot(bench, volume)
    try:
        await module.destroy_volume(volume.id)
    except Conflict:
        expect((await module.describe_volume(volume.id)).status is Status.ACTIVE, "it was refused, and done")
    copy = await _volume_from(bench, snapshot.id)
    expect(copy.status is Status.ACTIVE, f"a volume made from the snapshot is {copy.status}")
    await module.destroy_volume(copy.id)  # before the snapshot: some providers want that order
    await module.destroy_snapshot(snapshot.id)


@check(Snapshots)
async def snapshot_of_the_unknown_is_refused(bench: Bench) -> None:
    """A snapshot of an unknown volume is NotFound, and so is a volume from an unknown snapshot, or refused; none is
    left."""
    module = bench.the(Snapshots)
    call = module.create_snapshot(bench.unknown("volume"), "lost", key=bench.key("lost"))
    await refused(call, NotFound, what="make a snapshot of an unknown volume")
    call_ = _volume_from(bench, bench.unknown("snapshot"), word="orphan")
    await refused(call_, NotFound, InvalidRequest, what="make a volume from an unknown snapshot")
    left = [v.id for v in await module.list_volumes() if v.key == bench.key("orphan")]
    expect(not left, f"{left} were made all the same")
