"""Volumes and images, on a real cloud."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from descriptors.base import MIB
from tests.labs.testbed import RunningCloud
from tests.vendor_modules.testbed.helpers import SERVE, digest, eventually, image, machine
from vendor_modules.errors import Conflict, Forbidden, InvalidRequest, NotFound, Unavailable
from vendor_modules.resources import DiskFormat, Status, VolumeSpec
from vendor_modules.testbed.module import TestbedModule

pytestmark = pytest.mark.integration

SPEC = VolumeSpec(name="data", size_mib=8)


async def content_of(cloud: TestbedModule, image_id: str, offset: int = 0) -> bytes:
    """An image's bytes from the offset on."""
    return b"".join([chunk async for chunk in cloud.download_image(image_id, offset=offset)])


async def test_a_volume_outlives_its_machines(cloud: TestbedModule) -> None:
    """What one machine writes to a volume, another one reads; it is attached and detached while they are stopped."""
    volume = await cloud.create_volume(SPEC, key="v")
    assert (volume.status, volume.size_mib, volume.machine) == (Status.ACTIVE, 8, None)
    write = f"sh -c 'printf kept | dd of=dev/vdb conv=notrunc; exec {SERVE}'"
    one = await cloud.create_machine(machine(write, volumes={"dev/vdb": volume.id}), key="one")
    assert one.volumes == (volume.id,)
    attached = await cloud.describe_volume(volume.id)
    assert (attached.status, attached.machine, attached.device) == (Status.ATTACHED, one.id, "dev/vdb")
    with pytest.raises(Conflict, match="stop it first"):
        await cloud.detach_volume(volume.id)
    with pytest.raises(Conflict, match="attached"):
        await cloud.destroy_volume(volume.id)
    await cloud.stop_machine(one.id)
    assert (await cloud.detach_volume(volume.id)).machine is None
    assert (await cloud.detach_volume(volume.id)).status is Status.ACTIVE
    assert (await cloud.describe_machine(one.id)).volumes == ()
    two = await cloud.create_machine(machine(f"sh -c 'head -c 4 deep/er/disk; exec {SERVE}'"), key="two")
    with pytest.raises(Conflict, match="stop it first"):
        await cloud.attach_volume(volume.id, two.id, "deep/er/disk")
    await cloud.stop_machine(two.id)
    for _ in range(2):
        assert (await cloud.attach_volume(volume.id, two.id, "deep/er/disk")).device == "deep/er/disk"
    await cloud.start_machine(two.id)
    assert "kept" in await cloud.console(two.id)
    await cloud.destroy_machine(two.id)
    assert (await cloud.describe_volume(volume.id)).status is Status.ACTIVE
    await cloud.destroy_volume(volume.id)
    with pytest.raises(NotFound):
        await cloud.describe_volume(volume.id)


async def test_a_volume_keeps_its_size(cloud: TestbedModule) -> None:
    """What a machine writes beyond the end of a volume, or cuts off, leaves it as big as it was sold."""
    volume = await cloud.create_volume(VolumeSpec(name="v", size_mib=1), key="v")
    grow = f"sh -c 'head -c 3000000 /dev/zero | tr \\\\0 x > dev/vdb; exec {SERVE}'"
    made = await cloud.create_machine(machine(grow, volumes={"dev/vdb": volume.id}), key="m")
    await cloud.stop_machine(made.id)
    bundled = await cloud.bundle_volume(volume.id, "v", key="i")
    assert await content_of(cloud, bundled.id) == b"x" * MIB


async def test_volumes_are_made_once_and_from_raw_images(cloud: TestbedModule) -> None:
    """Concurrent duplicates make one volume; an image may be smaller than the volume, not larger, and must be RAW."""
    data = bytes(MIB) + b"data" * 1000
    spec, content = image(data)
    uploaded = await cloud.upload_image(spec, content, key="i")
    order = VolumeSpec(name="v", size_mib=2, image=uploaded.id)
    made = await asyncio.gather(*(cloud.create_volume(order, key="v") for _ in range(4)))
    assert len({volume.id for volume in made}) == len(await cloud.list_volumes()) == 1
    bundled = await cloud.bundle_volume(made[0].id, "v", key="b")
    assert await content_of(cloud, bundled.id) == data.ljust(2 * MIB, b"\0")
    with pytest.raises(InvalidRequest, match="more than a volume of 1 MiB"):
        await cloud.create_volume(VolumeSpec(name="v", size_mib=1, image=uploaded.id), key="w")
    with pytest.raises(InvalidRequest, match="bundle image"):
        await cloud.create_volume(VolumeSpec(name="v", size_mib=1, image="base"), key="w")


async def test_volumes_and_images_are_sparse(cloud: TestbedModule, desk: RunningCloud) -> None:
    """Zeros take no space on the desk: not in a volume, nor in an image made of it or uploaded."""
    volume = await cloud.create_volume(VolumeSpec(name="v", size_mib=64), key="v")
    made = await cloud.bundle_volume(volume.id, "v", key="i")
    spec, content = image(bytes(64 * MIB))
    uploaded = await cloud.upload_image(spec, content, key="u")
    files = [desk.state / "volumes" / volume.id, *(desk.state / "images" / one.id for one in (made, uploaded))]
    assert [file.stat().st_size for file in files] == [64 * MIB] * 3
    assert all(file.stat().st_blocks * 512 < MIB for file in files)
    assert made.digest == uploaded.digest == digest(bytes(64 * MIB))


async def test_an_image_comes_back_as_it_went(cloud: TestbedModule) -> None:
    """What was uploaded can be downloaded, from any offset on; the catalogue tells size and digest."""
    data = bytes(range(256)) * 9000
    spec, content = image(data, DiskFormat.QCOW2)
    uploaded = await asyncio.gather(*(cloud.upload_image(spec, content, key="u") for _ in range(3)))
    assert uploaded[0] == uploaded[1] == uploaded[2] == await cloud.describe_image(uploaded[0].id)
    assert (uploaded[0].format, uploaded[0].size, uploaded[0].digest) == (DiskFormat.QCOW2, len(data), digest(data))
    for offset in 0, 1, 1_000_001, len(data) - 1, len(data), len(data) + 5:
        assert await content_of(cloud, uploaded[0].id, offset) == data[offset:]
    assert [found.id for found in await cloud.list_images()] == ["base", uploaded[0].id]
    await cloud.destroy_image(uploaded[0].id)
    with pytest.raises(NotFound):
        await cloud.describe_image(uploaded[0].id)


async def test_an_empty_image_is_an_image(cloud: TestbedModule) -> None:
    """No bytes at all can be uploaded and downloaded."""
    spec, content = image(b"")
    uploaded = await cloud.upload_image(spec, content, key="u")
    assert await content_of(cloud, uploaded.id) == b""


@pytest.mark.parametrize("sent", [b"1234567", b"12345", b"123456789 and more"], ids=["other", "short", "long"])
async def test_wrong_content_is_refused_by_the_cloud(cloud: TestbedModule, sent: bytes) -> None:
    """The cloud itself checks what it received, and discards an image that is not what was declared."""
    headers = {"idempotency-key": "u"}
    spec, _ = image(b"7654321")
    order = await cloud._ask("POST", "/images", spec, headers=headers)
    with pytest.raises(InvalidRequest, match=r"received .*declared"):
        await cloud._send("PUT", f"/images/{order['id']}/content", content=sent)
    assert [found.id for found in await cloud.list_images()] == ["base"]


async def test_a_broken_upload_can_be_repeated(cloud: TestbedModule, desk: RunningCloud) -> None:
    """When the connection breaks in the middle, nothing is left of it, and the same key goes on."""
    spec, content = image(b"x" * 2 * MIB)
    order = await cloud._ask("POST", "/images", spec, headers={"idempotency-key": "u"})
    _, writer = await asyncio.open_connection("127.0.0.1", int(desk.url.rpartition(":")[2]))
    head = f"PUT /v1/images/{order['id']}/content HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {cloud._token}\r\n"
    writer.write(f"{head}Content-Length: {spec.size}\r\n\r\n".encode() + b"x" * MIB)
    await writer.drain()
    writer.close()
    uploaded = await cloud.upload_image(spec, content, key="u")
    assert uploaded.id == order["id"]
    await eventually(lambda: not list((desk.state / "images").glob("*.part")))


async def test_a_broken_download_is_unavailable(cloud: TestbedModule, monkeypatch: pytest.MonkeyPatch) -> None:
    """A transfer that breaks says that it is worth going on."""
    with pytest.raises(NotFound):
        await content_of(cloud, "nix")

    async def broken(*_: object, **__: object) -> httpx.Response:
        raise httpx.ReadError("broken")

    spec, content = image(b"x" * 10)
    uploaded = await cloud.upload_image(spec, content, key="u")
    send = cloud._http.send

    async def broken_when_streamed(request: httpx.Request, *, stream: bool = False) -> httpx.Response:
        return await (broken() if stream else send(request))

    monkeypatch.setattr(cloud._http, "send", broken_when_streamed)
    with pytest.raises(Unavailable):
        await content_of(cloud, uploaded.id)


async def test_what_is_in_use_is_not_bundled_or_removed(cloud: TestbedModule) -> None:
    """A volume of a running machine cannot be made an image; the cloud's own image cannot be removed."""
    volume = await cloud.create_volume(SPEC, key="v")
    made = await cloud.create_machine(machine(None, volumes={"dev/vdb": volume.id}), key="m")
    with pytest.raises(Conflict, match="not stopped"):
        await cloud.bundle_volume(volume.id, "v", key="i")
    with pytest.raises(Forbidden, match="cloud's own"):
        await cloud.destroy_image("base")
    await cloud.stop_machine(made.id)
    first, second = await asyncio.gather(*(cloud.bundle_volume(volume.id, "v", key="i") for _ in range(2)))
    assert first == second
    assert first.format is DiskFormat.RAW


async def test_bandwidth_is_limited(far: TestbedModule) -> None:
    """A cloud with a narrow line takes its time for images, both ways."""
    data = b"x" * 300_000
    spec, content = image(data)
    clock = asyncio.get_running_loop().time
    started = clock()
    uploaded = await far.upload_image(spec, content, key="u")
    assert clock() - started > 0.25
    started = clock()
    assert await content_of(far, uploaded.id) == data
    assert clock() - started > 0.25
