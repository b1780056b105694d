"""Images that a Vendor Module downloads and uploads, over a real cloud of the testbed's."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from blake3 import blake3

from agency.problems import AgencyError
from agency.transfer.ends import UNIT
from agency.transfer.formats.opening import open_sink, open_source
from agency.transfer.formats.streams import ImageSink, ImageSource
from agency.transfer.manifest import Manifest
from tests.agency.transfer.ends import transfer
from tests.agency.transfer.formats.copying import copy
from tests.labs.testbed import RunningCloud, start_cloud
from vendor_modules.errors import InvalidRequest, Unavailable, VendorError
from vendor_modules.resources import DiskFormat, Image, ImageSpec, Status
from vendor_modules.testbed.module import TestbedModule

CONTENT = random.Random(5).randbytes(3 * UNIT + 12_345) + bytes(2 * UNIT)  # noqa: S311 - the same each time


pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def cloud(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[RunningCloud]:
    """A cloud of these tests' own; each uses keys of its own."""
    async with start_cloud(tmp_path_factory.mktemp("cloud"), block_gib_month="0.1") as running:
        yield running


def spec_of(content: bytes) -> ImageSpec:
    """What is declared of an image with that content."""
    return ImageSpec(
        name="image", format=DiskFormat.RAW, size=len(content), digest=f"blake3:{blake3(content).hexdigest()}"
    )


async def uploaded(module: TestbedModule, content: bytes = CONTENT) -> Image:
    """An image that is there."""

    async def stream() -> AsyncIterator[bytes]:
        yield content

    return await module.upload_image(spec_of(content), stream, key="source")


async def test_an_image_goes_from_vendor_to_vendor(cloud: RunningCloud, tmp_path: Path) -> None:
    """Downloaded to a file, and uploaded from it, an image is what it was, zeros and a last short unit included."""
    source = ImageSource(cloud.module, await uploaded(cloud.module))
    await asyncio.to_thread(copy, source, open_sink(tmp_path, "file", source.size, "raw"))
    assert (tmp_path / "file").read_bytes() == CONTENT
    sink = ImageSink(cloud.module, spec_of(CONTENT), "copy")
    await asyncio.to_thread(copy_with_zeros, open_source(tmp_path / "file", "raw"), sink)
    assert (sink.image.status, sink.image.digest) == (Status.ACTIVE, spec_of(CONTENT).digest)
    source = ImageSource(cloud.module, sink.image)
    for at in (0, UNIT):
        assert await asyncio.to_thread(source.read, at, UNIT) == CONTENT[at : at + UNIT]
    await asyncio.to_thread(source.close)


async def test_an_image_goes_through_the_engine_with_no_file_between(cloud: RunningCloud) -> None:
    """Over several streams, whose units the engine brings in order, the image arrives as it was."""
    source = ImageSource(cloud.module, await uploaded(cloud.module))
    sink = ImageSink(cloud.module, spec_of(CONTENT), "arrived")
    sent, _ = (await asyncio.to_thread(transfer, source, sink, 3)).results
    await asyncio.to_thread(source.close)
    assert sent.size == len(CONTENT)
    assert sink.image.digest == spec_of(CONTENT).digest


def copy_with_zeros(source: Any, sink: ImageSink) -> None:
    """As the engine does with a sequential sink: in order, and the zeros in one go."""
    for at in range(0, 3 * UNIT, UNIT):
        sink.write(at, memoryview(source.read(at, UNIT)))
    sink.write(3 * UNIT, source.read(3 * UNIT, 12_345))
    sink.zero(3 * UNIT + 12_345, 2 * UNIT)
    source.close()
    with Manifest(sink.size) as manifest:
        sink.finish(manifest)


class Breaking(TestbedModule):
    """A module whose downloads break after each chunk, as often as it is told."""

    breaks = 0
    asked: list[int]

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        self.asked.append(offset)
        async for chunk in super()._download_image(image_id, offset):
            if self.breaks and len(self.asked) > 1:
                yield chunk[:1000]
            if self.breaks:
                self.breaks -= 1
                raise Unavailable("the connection broke")
            yield chunk


@pytest_asyncio.fixture(loop_scope="module")
async def breaking(cloud: RunningCloud) -> AsyncIterator[Breaking]:
    """One, to that cloud."""
    whole = cloud.module
    async with Breaking(whole.vendor, whole.settings, whole.services) as module:
        module.asked = []
        yield module


async def test_a_download_that_breaks_is_gone_on_with(breaking: Breaking, tmp_path: Path) -> None:
    """What has come is not asked for again, and the content is whole."""
    image, breaking.breaks = await uploaded(breaking), 6
    source = ImageSource(breaking, image)
    await asyncio.to_thread(copy, source, open_sink(tmp_path, "file", source.size, "raw"))
    assert (tmp_path / "file").read_bytes() == CONTENT
    assert breaking.asked == [0, 0, 1000, 2000, 3000, 4000, 5000]


async def test_a_download_that_gets_nowhere_fails(breaking: Breaking) -> None:
    """A provider that breaks off each time without a byte is not asked for ever."""
    image, breaking.breaks = await uploaded(breaking), 10**6
    source = ImageSource(breaking, image)
    breaking.asked = []
    source._attempts = 1
    with pytest.raises(VendorError):
        await asyncio.to_thread(source.read, 0, UNIT)
    await asyncio.to_thread(source.close)


async def test_an_image_that_is_not_what_was_said_is_refused(cloud: RunningCloud) -> None:
    """Another digest, a size that is too small, and one that is too large are found before the transfer is complete."""
    image = await uploaded(cloud.module)
    wrong: list[tuple[dict[str, Any], Callable[[ImageSource], object]]] = [
        ({"digest": "blake3:" + "0" * 64}, lambda source: source.check_unchanged()),
        ({"size": 0}, lambda source: source.check_unchanged()),
        ({"size": len(CONTENT) + 1}, lambda source: source.read(0, len(CONTENT) + 1)),
        ({"size": UNIT}, lambda source: (source.read(0, UNIT), source.check_unchanged())),
    ]
    for change, use in wrong:
        source = ImageSource(cloud.module, image.model_copy(update=change))
        with pytest.raises(AgencyError) as refused:
            await asyncio.to_thread(use, source)
        assert refused.value.problem.code == "source-changed"
        await asyncio.to_thread(source.close)


async def test_a_stream_is_read_and_written_in_order(cloud: RunningCloud) -> None:
    """Whoever skips is refused; nothing is sent in a wrong place."""
    source = ImageSource(cloud.module, await uploaded(cloud.module))
    sink = ImageSink(cloud.module, spec_of(CONTENT), "order")
    for call in (lambda: source.read(UNIT, UNIT), lambda: sink.write(UNIT, b"x"), lambda: sink.zero(UNIT, 1)):
        with pytest.raises(AgencyError) as refused:
            await asyncio.to_thread(call)
        assert refused.value.problem.code == "out-of-turn"
    await asyncio.to_thread(source.close)
    await asyncio.to_thread(sink.leave, None)


async def test_an_upload_that_is_given_up_leaves_nothing(cloud: RunningCloud) -> None:
    """A transfer that ends early leaves no image that could be used, and its key can be used again."""
    sink = ImageSink(cloud.module, spec_of(CONTENT), "given-up")
    await asyncio.to_thread(sink.write, 0, CONTENT[:UNIT])
    await asyncio.to_thread(sink.leave, None)
    left = [image for image in await cloud.module.list_images() if image.key == "given-up"]
    assert Status.ACTIVE not in [image.status for image in left]
    again = ImageSink(cloud.module, spec_of(CONTENT), "given-up")
    await asyncio.to_thread(again.write, 0, CONTENT)
    with Manifest(again.size) as manifest:
        await asyncio.to_thread(again.finish, manifest)
    assert again.image.status is Status.ACTIVE


async def test_what_the_provider_does_not_take_is_said(cloud: RunningCloud) -> None:
    """Content that is not what was declared, or that stops short, ends in the provider's or our refusal, not in a
    hang."""
    sink = ImageSink(cloud.module, spec_of(CONTENT), "wrong")
    await asyncio.to_thread(sink.write, 0, CONTENT[::-1])
    with Manifest(sink.size) as manifest:
        with pytest.raises(InvalidRequest):
            await asyncio.to_thread(sink.finish, manifest)
        short = ImageSink(cloud.module, spec_of(CONTENT), "short")
        await asyncio.to_thread(short.write, 0, CONTENT[:UNIT])
        with pytest.raises((AgencyError, VendorError)):
            await asyncio.to_thread(short.finish, manifest)


async def test_a_slow_provider_slows_the_writer(cloud: RunningCloud) -> None:
    """No more than a few writes are held while the provider takes none; what ends it frees the writer, too."""
    held = asyncio.Event()

    class Slow(TestbedModule):
        async def _upload_image(self, spec: ImageSpec, content: Any, key: str) -> Image:
            await held.wait()
            raise InvalidRequest("full")

    async with Slow("slow", cloud.module.settings, cloud.module.services) as module:
        sink = ImageSink(module, spec_of(bytes(16 * UNIT)), "slow")
        written: list[int] = []
        full, loop = asyncio.Event(), asyncio.get_running_loop()

        def write() -> None:
            for at in range(0, 16 * UNIT, UNIT):
                sink.write(at, bytes(UNIT))
                written.append(at)
                if len(written) == 4:
                    loop.call_soon_threadsafe(full.set)

        writer = asyncio.create_task(asyncio.to_thread(write))
        await full.wait()
        await asyncio.wait([writer], timeout=0.1)
        assert len(written) == 4
        held.set()
        with pytest.raises(InvalidRequest):
            await writer
        await asyncio.to_thread(sink.leave, None)


class Hanging(TestbedModule):
    """A module whose provider says nothing more, in a download or before or after an upload's content."""

    at = ""
    hangs = False

    async def _hang(self) -> None:
        self.hangs = True
        await asyncio.Event().wait()

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        async for chunk in super()._download_image(image_id, offset):
            yield chunk[:1000]
            await self._hang()

    async def _upload_image(self, spec: ImageSpec, content: Any, key: str) -> Image:
        if self.at == "end":
            async for _ in content():
                pass
        await self._hang()
        raise AssertionError


@pytest.mark.parametrize("at", ["download", "begin", "end"])
async def test_a_cancel_is_obeyed_while_a_provider_hangs(cloud: RunningCloud, tmp_path: Path, at: str) -> None:
    """A provider that says nothing more is not waited for when the transfer is cancelled."""
    (tmp_path / "file").write_bytes(CONTENT)
    image = await uploaded(cloud.module)
    async with Hanging(cloud.module.vendor, cloud.module.settings, cloud.module.services) as module:
        module.at = at
        source: Any = ImageSource(module, image) if at == "download" else open_source(tmp_path / "file", "raw")
        sink: Any = (
            open_sink(tmp_path, "copy", len(CONTENT), "raw")
            if at == "download"
            else ImageSink(module, spec_of(CONTENT), f"hangs-{at}")
        )
        side = "sending" if at == "download" else "receiving"
        options: Any = {side: {"cancelled": lambda: module.hangs}}
        async with asyncio.timeout(60):
            outcome = await asyncio.to_thread(transfer, source, sink, **options)
        await asyncio.to_thread(source.close)
    error = outcome.sent if at == "download" else outcome.received
    assert isinstance(error, AgencyError)
    assert error.problem.code == "cancelled"
