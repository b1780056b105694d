"""Snapshots of volumes, on a real cloud."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from descriptors.base import MIB
from tests.labs.testbed import RunningCloud, start_cloud
from tests.vendor_modules.testbed.helpers import SERVE, image, machine
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, Unsupported
from vendor_modules.resources import Status, Volume, VolumeSpec
from vendor_modules.testbed.module import TestbedModule

pytestmark = pytest.mark.integration


async def filled(cloud: TestbedModule, data: bytes, size_mib: int = 1) -> Volume:
    """A volume that begins with the data."""
    spec, content = image(data)
    uploaded = await cloud.upload_image(spec, content, key="filling")
    return await cloud.create_volume(VolumeSpec(name="v", size_mib=size_mib, image=uploaded.id), key="v")


async def content_of(cloud: TestbedModule, volume: Volume) -> bytes:
    """What is in a volume that is not in use."""
    bundled = await cloud.bundle_volume(volume.id, "b", key=f"bundle of {volume.id}".replace(" ", "-"))
    return b"".join([chunk async for chunk in cloud.download_image(bundled.id)])


async def test_a_snapshot_keeps_what_the_volume_held(cloud: TestbedModule) -> None:
    """What is written to a volume after its snapshot is not in the snapshot, nor in volumes made from it, which may be
    larger; these and the snapshot stay when the volume goes, and the volumes stay when the snapshot goes."""
    volume = await filled(cloud, b"before")
    taken = await asyncio.gather(*(cloud.create_snapshot(volume.id, "ß 世界", key="s") for _ in range(3)))
    assert taken[0] == taken[1] == taken[2] == await cloud.describe_snapshot(taken[0].id)
    got = taken[0]
    assert (got.name, got.status, got.volume, got.size_mib) == ("ß 世界", Status.ACTIVE, volume.id, 1)
    write = f"sh -c 'printf after | dd of=dev/vdb conv=notrunc; exec {SERVE}'"
    user = await cloud.create_machine(machine(write, volumes={"dev/vdb": volume.id}), key="m")
    await cloud.destroy_machine(user.id)
    await cloud.destroy_volume(volume.id)
    assert await cloud.list_snapshots() == [got]
    spec = VolumeSpec(name="w", size_mib=2, snapshot=got.id)
    again = await cloud.create_volume(spec, key="w")
    await cloud.destroy_snapshot(got.id)
    with pytest.raises(NotFound):
        await cloud.describe_snapshot(got.id)
    assert await content_of(cloud, again) == b"before".ljust(2 * MIB, b"\0")
    with pytest.raises(NotFound):
        await cloud.create_volume(spec, key="x")


async def test_a_volume_in_use_is_not_copied(cloud: TestbedModule) -> None:
    """While its machine runs, a volume cannot be copied consistently, and is not; while it is stopped, it is."""
    volume = await cloud.create_volume(VolumeSpec(name="v", size_mib=1), key="v")
    user = await cloud.create_machine(machine(None, volumes={"dev/vdb": volume.id}), key="m")
    with pytest.raises(Conflict, match="not stopped"):
        await cloud.create_snapshot(volume.id, "s", key="s")
    await cloud.stop_machine(user.id)
    assert (await cloud.create_snapshot(volume.id, "s", key="s")).status is Status.ACTIVE
    with pytest.raises(NotFound, match="volume"):
        await cloud.create_snapshot("volume-0", "s", key="t")


async def test_what_does_not_fit_is_refused(cloud: TestbedModule) -> None:
    """A volume smaller than the snapshot it is made from, or with two sources, is refused, and none is left."""
    volume = await cloud.create_volume(VolumeSpec(name="v", size_mib=2), key="v")
    taken = await cloud.create_snapshot(volume.id, "s", key="s")
    for spec, words in (
        (VolumeSpec(name="w", size_mib=1, snapshot=taken.id), "more than a volume of 1 MiB"),
        (VolumeSpec(name="w", size_mib=2, snapshot=taken.id, image="base"), "not from both"),
    ):
        with pytest.raises(InvalidRequest, match=words):
            await cloud.create_volume(spec, key="w")
    assert [found.id for found in await cloud.list_volumes()] == [volume.id]


async def test_snapshots_are_sparse_and_metered(cloud: TestbedModule, desk: RunningCloud) -> None:
    """Zeros take no space on the desk; the volume's whole size is charged, until the snapshot is removed."""
    volume = await cloud.create_volume(VolumeSpec(name="v", size_mib=64 * 1024), key="v")
    taken = await cloud.create_snapshot(volume.id, "s", key="s")
    file = (desk.state / "snapshots" / taken.id).stat()
    assert (file.st_size, file.st_blocks * 512 < MIB) == (64 * 1024 * MIB, True)
    await cloud.destroy_snapshot(taken.id)
    assert not (desk.state / "snapshots" / taken.id).exists()
    [record] = [record for record in await cloud.usage() if record.resource == taken.id]
    assert (record.kind, record.unit) == ("snapshot", "GiB-hours")
    assert record.ended
    hours = (record.ended - record.started).total_seconds() / 3600
    assert float(record.quantity) == pytest.approx(64 * hours, rel=0.01, abs=1e-8)


async def test_snapshots_have_a_quota(tmp_path: Path) -> None:
    """More snapshots, or larger ones, than the account may have are refused."""
    async with start_cloud(tmp_path, quotas={"snapshots": 2, "snapshot_mib": 3}) as own:
        small, large = [
            await own.module.create_volume(VolumeSpec(name="v", size_mib=size), key=str(size)) for size in (1, 3)
        ]
        await own.module.create_snapshot(small.id, "s", key="1")
        with pytest.raises(QuotaExceeded, match="3 MiB in snapshots"):
            await own.module.create_snapshot(large.id, "s", key="2")
        await own.module.create_snapshot(small.id, "s", key="2")
        with pytest.raises(QuotaExceeded, match="2 snapshots"):
            await own.module.create_snapshot(small.id, "s", key="3")


async def test_snapshots_survive_a_killed_cloud(tmp_path: Path) -> None:
    """A snapshot is there after kill -9; one that was being copied, or a volume that was being made from one, is made
    whole; files that belong to none are removed."""
    async with start_cloud(tmp_path) as own:
        volume = await filled(own.module, b"content")
        kept, half = [await own.module.create_snapshot(volume.id, "s", key=key) for key in ("kept", "half")]
        made = await own.module.create_volume(VolumeSpec(name="w", size_mib=1, snapshot=kept.id), key="w")
        await own.kill()
        with sqlite3.connect(tmp_path / "cloud.db") as db:
            pending = "UPDATE resources SET record = json_set(record, '$.status', 'pending') WHERE id IN (?, ?)"
            db.execute(pending, (half.id, made.id))
        db.close()
        (tmp_path / "snapshots" / half.id).unlink()
        (tmp_path / "volumes" / made.id).write_bytes(b"half")
        (tmp_path / "snapshots" / "snapshot-0").write_bytes(b"orphan")
        await own.restart()
        assert await own.module.create_snapshot(volume.id, "s", key="half") == half
        assert await own.module.describe_snapshot(kept.id) == kept
        again = await own.module.create_volume(VolumeSpec(name="w", size_mib=1, snapshot=kept.id), key="w")
        other = await own.module.create_volume(VolumeSpec(name="x", size_mib=1, snapshot=half.id), key="x")
        for one in again, other:
            assert (await content_of(own.module, one)).startswith(b"content")
        assert {file.name for file in (tmp_path / "snapshots").iterdir()} == {kept.id, half.id}


async def test_a_cloud_without_volumes_has_no_snapshots(far: TestbedModule) -> None:
    """Where there is no block storage, there are no snapshots, and none can be made."""
    assert await far.list_snapshots() == []
    with pytest.raises(Unsupported, match="block storage"):
        await far.create_snapshot("v", "s", key="s")
