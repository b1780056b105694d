"""Content in transit: fetched and uploaded by the transfer engine, gone on with, proven, and removed again."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from agency.problems import AgencyError
from agency.relocation.migrators.content import Fetch, UploadVolume, file_digest
from agency.relocation.workshop import Cancelled, Output, mark_cancelled
from agency.transfer.formats.opening import open_source
from agency.transfer.manifest import root_text
from descriptors.base import MIB
from descriptors.relocation import Task
from descriptors.transfer import TransferManifest
from tests.agency.relocation.fetching import CONTENT, DEADLY, KEY, KILLED, TASK, prepared
from tests.agency.transfer.formats.copying import manifest_of, room_taken
from vendor_modules.errors import Unavailable
from vendor_modules.resources import Image, ImageSpec

UPLOAD = Task(name="upload-volume-data", migrator="upload-volume", vendor="alpha", subject="data", needs=("adapt",))


def manifest(run: Any, output: Output) -> TransferManifest:
    """What the site has signed."""
    signed = run.workshop.site.verifier.read(output.manifest, TransferManifest)
    assert signed.site == KEY.name
    return signed.document  # type: ignore[no-any-return]


def root_of(path: Path) -> str:
    """The root of a file."""
    source = open_source(path, "raw")
    with manifest_of(source) as found:
        source.close()
        return root_text(found.root())


async def test_a_fetch_goes_on_after_the_process_died(tmp_path: Path) -> None:
    """What came before the process was gone, zeros included, is not downloaded again, and the whole is what the
    provider said; zeros take no room."""
    order = [sys.executable, "-m", "tests.agency.relocation.fetching", str(tmp_path)]
    assert (await asyncio.to_thread(subprocess.run, order, check=False)).returncode == KILLED
    module, run = await prepared(tmp_path)
    output = await Fetch().run(TASK, run)
    path = run.spooled("fetch-volume-data.img")
    assert module.asked == [DEADLY * MIB]
    assert path.read_bytes() == CONTENT
    assert room_taken(path) < len(CONTENT) - 3 * MIB
    assert (output.bytes, output.digest) == (len(CONTENT), file_digest(path))
    said = manifest(run, output)
    assert (said.id, said.name) == ("operation/fetch-volume-data", path.name)
    assert (said.size, said.root, said.wire) == (len(CONTENT), root_of(path), len(CONTENT) - DEADLY * MIB)
    assert (said.sender, said.receiver) == ("alpha", KEY.name)


async def test_a_fetch_that_was_not_recorded_downloads_nothing(tmp_path: Path) -> None:
    """Run again after all is there, as after a crash, it says the same; undone, nothing of it is left, and undone again
    neither."""
    module, run = await prepared(tmp_path)
    once, again = await Fetch().run(TASK, run), await Fetch().run(TASK, run)
    assert module.asked == [0, len(CONTENT)]
    assert manifest(run, once).root == manifest(run, again).root
    for _ in range(2):
        await Fetch().undo(TASK, run)
        assert list(run.spooled("").iterdir()) == []


@pytest.mark.parametrize(
    "lie", [{"size": len(CONTENT) - 1}, {"size": len(CONTENT) + 1}, {"digest": f"blake3:{'0' * 64}"}]
)
async def test_content_that_is_not_what_the_provider_says(tmp_path: Path, lie: dict[str, Any]) -> None:
    """Another size or digest than the provider tells is refused, and no file is left under the name."""
    module, run = await prepared(tmp_path)
    image = module.cloud.held[run.created("bundle").id]
    module.cloud.held[image.id] = image.model_copy(update=lie)
    with pytest.raises(AgencyError) as refused:
        await Fetch().run(TASK, run)
    assert refused.value.problem.code == "source-changed"
    assert not run.spooled("fetch-volume-data.img").exists()


async def test_cancelling_ends_a_fetch_that_waits(tmp_path: Path) -> None:
    """A cancel is seen though the provider sends nothing; what came is gone on with by whoever comes next."""
    module, run = await prepared(tmp_path)
    waits = asyncio.Event()
    download = module._download_image

    async def stalls(image_id: str, offset: int) -> AsyncIterator[bytes]:
        async for chunk in download(image_id, offset):
            if offset == 3 * MIB:
                waits.set()
                await asyncio.Event().wait()
            offset += len(chunk)
            yield chunk

    module._download_image = stalls  # type: ignore[method-assign]
    fetching = asyncio.create_task(Fetch().run(TASK, run))
    await waits.wait()
    mark_cancelled(run.workshop, run.order.id)
    with pytest.raises(Cancelled):
        await fetching
    run.spooled("cancel").unlink()
    module._download_image = download  # type: ignore[method-assign]
    await Fetch().run(TASK, run)
    assert module.asked == [0, 3 * MIB]


async def test_an_agency_that_stops_ends_its_transfers(tmp_path: Path) -> None:
    """When the operation is left where it is, so that another process can go on, no thread of it works on."""
    module, run = await prepared(tmp_path)
    waits = asyncio.Event()

    async def stalls(image_id: str, offset: int) -> AsyncIterator[bytes]:
        waits.set()
        await asyncio.Event().wait()
        yield b""

    module._download_image = stalls  # type: ignore[method-assign]
    fetching = asyncio.create_task(Fetch().run(TASK, run))
    await waits.wait()
    fetching.cancel()
    with pytest.raises(asyncio.CancelledError):
        await fetching
    module, run = await prepared(tmp_path)
    assert (await Fetch().run(TASK, run)).bytes == len(CONTENT)  # nobody else has the part


async def test_an_upload_that_breaks_is_made_again(tmp_path: Path) -> None:
    """A provider that breaks off, and asks for the content once more, gets it; and the manifest says whose it is."""
    module, run = await prepared(tmp_path)
    run.outputs[TASK.name] = await Fetch().run(TASK, run)
    upload, tries = module._upload_image, list[int]()

    async def breaks(spec: ImageSpec, content: Any, key: str) -> Image:
        tries.append(1)
        if len(tries) == 1:
            async for _ in content():
                raise Unavailable("the connection broke")
        return await upload(spec, content, key)

    module._upload_image, module.attempts = breaks, 3  # type: ignore[method-assign]
    output = await UploadVolume().run(UPLOAD, run)
    image = module.cloud.held[output.created.id] if output.created else None
    assert isinstance(image, Image)
    assert (module.cloud.content[image.id], image.digest) == (CONTENT, run.outputs[TASK.name].digest)
    said = manifest(run, output)
    assert (said.name, said.sender, said.receiver) == ("notes-data", KEY.name, "alpha")
    assert (said.size, said.root) == (len(CONTENT), manifest(run, run.outputs[TASK.name]).root)


async def test_what_changed_in_the_spool_is_not_uploaded(tmp_path: Path) -> None:
    """What is not what was fetched, as after the disk has lost it, goes nowhere."""
    module, run = await prepared(tmp_path)
    run.outputs[TASK.name] = await Fetch().run(TASK, run)
    with run.spooled("fetch-volume-data.img").open("r+b") as file:
        file.write(b"other")
    before = dict(module.cloud.held)
    with pytest.raises(AgencyError) as refused:
        await UploadVolume().run(UPLOAD, run)
    assert refused.value.problem.code == "content-differs"
    assert module.cloud.held == before
