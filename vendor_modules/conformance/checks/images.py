"""Images: what goes in comes out, and what is made of machines and volumes holds what was in them."""

from __future__ import annotations

import io
import tarfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from descriptors.base import MIB
from descriptors.machine import BUNDLE_MANIFEST, MachineManifest
from vendor_modules.abilities import Requirement
from vendor_modules.capabilities import (
    Endpoints,
    ImageDownload,
    Images,
    ImageUpload,
    MachineBundle,
    Power,
    VolumeBundle,
)
from vendor_modules.conformance.bench import Bench, CheckFailed, digest, expect, find, refused, stream
from vendor_modules.conformance.checks.volumes import new_volume
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.samples import noise
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, ProtocolError, ResourceFailed, VendorError
from vendor_modules.resources import DiskFormat, Image, ImageSpec, Machine, Status, VolumeSpec

_UNTRUE = (InvalidRequest, ResourceFailed, ProtocolError)


class SourceBroke(Exception):
    """The content to upload cannot be read any more: an error of the caller's."""


async def download(bench: Bench, image: Image, offset: int = 0) -> bytes:
    """The image's bytes from the offset on, which come in chunks of a few MiB at most."""
    chunks = [chunk async for chunk in bench.the(ImageDownload).download_image(image.id, offset=offset)]
    largest = max(map(len, chunks), default=0)
    expect(largest <= 8 * MIB, f"a chunk has {largest} bytes: the whole image must not be in memory")
    return b"".join(chunks)


@check(Images)
async def boot_image_is_in_the_catalogue(bench: Bench) -> None:
    """The image that machines start from is listed, ACTIVE, as it is described."""
    images = bench.the(Images)
    described = await images.describe_image(bench.subject.image)
    expect(described.status is Status.ACTIVE, f"it is {described.status}")
    expect(find(await images.list_images(), described) == described, "it is not listed as it is described")


@check(ImageUpload)
async def uploaded_image_is_as_declared(bench: Bench) -> None:
    """An uploaded image is ACTIVE, private, and has the format, size and digest that were declared."""
    content, image = bench.sample(11_000), (await bench.specimen("image")).made
    got = (image.status, image.public, image.format, image.size)
    wanted = (Status.ACTIVE, False, bench.upload_format(), len(content))
    expect(got == wanted, f"it is {got}, expected {wanted}")
    expect(image.digest in (None, digest(content)), f"its digest is {image.digest}")


@check(ImageUpload)
async def upload_takes_the_declared_formats(bench: Bench) -> None:
    """Images in the disk formats that are declared for uploads are taken, and those in others are refused."""
    images, declared = bench.the(ImageUpload), bench.ability("upload_image").formats
    expect(declared, "no disk formats are declared for upload_image")
    for format_ in DiskFormat:
        content = bench.subject.sample(format_, 100_000)
        spec = ImageSpec(name=format_, format=format_, size=len(content), digest=digest(content))
        call = images.upload_image(spec, stream(content), key=bench.key(format_))
        if format_ in declared:
            expect((image := await call).format is format_, f"{format_} went in, {image.format} is there")
            continue
        try:
            await call
        except VendorError:
            continue
        raise CheckFailed(f"an image in {format_} was taken, and declared are {', '.join(declared)}")


@check(ImageUpload)
async def upload_with_a_wrong_digest_is_refused(bench: Bench) -> None:
    """Content whose digest is not the declared one is refused, and no image is made of it."""
    content = bench.sample(100_000)
    format_ = bench.upload_format()
    spec = ImageSpec(name="wrong", format=format_, size=len(content), digest=digest(b"something else"))
    await _refused_upload(bench, spec, content)


@check(ImageUpload)
async def upload_with_a_wrong_size_is_refused(bench: Bench) -> None:
    """Content that is longer or shorter than declared is refused, and no image is made of it."""
    content = bench.sample(100_000)
    for size in (len(content) - 1, len(content) + 1):
        spec = ImageSpec(name="wrong", format=bench.upload_format(), size=size, digest=digest(content))
        await _refused_upload(bench, spec, content)


async def _refused_upload(bench: Bench, spec: ImageSpec, content: bytes) -> None:
    images, key = bench.the(ImageUpload), bench.key(f"wrong-{spec.size}")
    await refused(images.upload_image(spec, stream(content), key=key), *_UNTRUE, what="upload what was not declared")
    await _none_usable(bench, key)


async def _none_usable(bench: Bench, key: str) -> None:
    found = await bench.the(ImageUpload).list_images()
    usable = [image.id for image in found if image.key == key and image.status is Status.ACTIVE]
    expect(not usable, f"{usable} can be used although the upload failed")


@check(ImageUpload)
async def upload_whose_source_breaks_leaves_nothing(bench: Bench) -> None:
    """When the content cannot be read to its end, no image can be used; with the same key it can be uploaded again."""
    images, content, key = bench.the(ImageUpload), bench.sample(3 * MIB), bench.key("broken")
    spec = ImageSpec(name="broken", format=bench.upload_format(), size=len(content), digest=digest(content))

    async def half() -> AsyncIterator[bytes]:
        for start in range(0, len(content) // 2, 64 * 1024):
            yield content[start : start + 64 * 1024]
        raise SourceBroke

    try:
        await images.upload_image(spec, half, key=key)
    except (SourceBroke, VendorError):
        pass
    else:
        raise CheckFailed("half of the content was taken for all of it")
    await _none_usable(bench, key)
    again = await images.upload_image(spec, stream(content), key=key)
    expect((again.status, again.size) == (Status.ACTIVE, len(content)), f"uploaded again, it is {again!r}")


@check(ImageUpload)
async def upload_may_be_repeated_with_its_key(bench: Bench) -> None:
    """Uploading again with the key of an image that is there gives it, whether or not the content is read again."""
    content = bench.sample(100_000)
    first, again = await bench.image(content), await bench.image(content)
    expect(again == first, f"the second is {again!r}, the first {first!r}")


@check(ImageUpload, ImageDownload)
async def image_comes_out_as_it_went_in(bench: Bench) -> None:
    """An image of several chunks is downloaded byte for byte as it was uploaded."""
    content = bench.sample(5 * MIB + 12_345)
    got = await download(bench, await bench.image(content))
    expect(
        got == content, f"{len(got)} bytes with {digest(got)} came out, {len(content)} with {digest(content)} went in"
    )


@check(ImageUpload, ImageDownload)
async def download_gives_the_declared_format(bench: Bench) -> None:
    """What is downloaded has the format that the image has, and that is one declared for downloads."""
    declared, image = bench.ability("download_image").formats, (await bench.specimen("image")).made
    expect(declared, "no disk formats are declared for download_image")
    expect(image.format in declared, f"the image is {image.format}, declared are {', '.join(declared)}")
    expect(digest(await download(bench, image)) == digest(bench.sample(11_000)), "it came out changed")


@check(ImageUpload, ImageDownload)
async def download_goes_on_from_an_offset(bench: Bench) -> None:
    """A download from any offset gives exactly the rest, at and beyond the end nothing."""
    content = bench.sample(3 * MIB + 5)
    image, end = await bench.image(content), len(content)
    for offset in (1, MIB - 1, MIB, 2 * MIB + 77, end - 1, end, end + 1):
        got = await download(bench, image, offset)
        expect(got == content[offset:], f"from {offset}: {len(got)} bytes, expected {max(0, end - offset)}")


@check(ImageUpload, ImageDownload)
async def download_may_be_broken_off(bench: Bench) -> None:
    """A download that is not read to its end disturbs nothing: the next one is whole."""
    content = bench.sample(4 * MIB)
    image = await bench.image(content)
    chunks = bench.the(ImageDownload).download_image(image.id)
    first = await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]  # they are generators
    expect(content.startswith(first), "the first chunk is not the beginning")
    expect(await download(bench, image) == content, "the next download is another")


@check(ImageDownload)
async def download_of_an_unknown_image_is_not_found(bench: Bench) -> None:
    """Downloading an image that is not there raises NotFound."""

    async def read() -> None:
        async for _ in bench.the(ImageDownload).download_image(bench.unknown("image")):
            pass

    await refused(read(), NotFound, what="download an unknown image")


# --- made of machines ---


@asynccontextmanager
async def _machine_to_bundle(bench: Bench) -> AsyncIterator[Machine]:
    """A lent machine with a note on its disk, in the state that bundling requires."""
    async with bench.machine_lent() as machine:
        if bench.answers():
            await bench.get(machine, GREETING)
            await bench.put(machine, "bundle-note", b"in the bundle")
        if Requirement.STOPPED in bench.ability("bundle_machine").requires:
            machine = await bench.the(Power).stop_machine(machine.id)
        yield machine


async def _bundled(bench: Bench) -> Image:
    async with _machine_to_bundle(bench) as machine:
        return await bench.the(MachineBundle).bundle_machine(machine.id, "bundle", key=bench.key("bundle"))


@check(MachineBundle)
async def bundle_is_an_image(bench: Bench) -> None:
    """A machine's bundle is an ACTIVE, private image with the name given, in the list; the same key gives it again."""
    module = bench.the(MachineBundle)
    async with _machine_to_bundle(bench) as machine:
        first, again = [
            await module.bundle_machine(machine.id, "Bündel 世界", key=bench.key("bundle")) for _ in range(2)
        ]
    expect(first.id == again.id, f"the same key gave {first.id} and {again.id}")
    got = (first.status, first.public, first.name, first.key)
    expect(got == (Status.ACTIVE, False, "Bündel 世界", bench.key("bundle")), f"it is {got}")
    listed = [image for image in await module.list_images() if image.id == first.id]
    expect(len(listed) == 1, f"it is in the list {len(listed)} times")


@check(MachineBundle, Endpoints)
async def bundled_machine_starts_elsewhere(bench: Bench) -> None:
    """A machine made from a machine's image, without user data, serves what was in the first; both are there."""
    bench.need_running_machines()
    async with _machine_to_bundle(bench) as original:
        module = bench.the(MachineBundle)
        image = await module.bundle_machine(original.id, "bundle", key=bench.key("bundle"))
        copy = await bench.machine("copy", image=image.id, user_data=None)
        expect(
            await bench.get(copy, "bundle-note") == b"in the bundle", "what was written in the first is not in the copy"
        )
        expect(await bench.get(copy, GREETING) == GREETING_TEXT, "the user data's files are not in the copy")
        now = await bench.module.describe_machine(original.id)
        if now.status is Status.STOPPED:
            now = await bench.the(Power).start_machine(original.id)
        expect(await bench.get(now, "bundle-note") == b"in the bundle", "the first is not what it was")


@check(MachineBundle, ImageDownload)
async def bundle_holds_the_machine(bench: Bench) -> None:
    """A downloaded bundle is as long as its image says, and in an archive are the machine's files and manifest."""
    image = await _bundled(bench)
    content = await download(bench, image)
    expect(len(content) == image.size, f"{len(content)} bytes came out of an image of {image.size}")
    expect(image.digest in (None, digest(content)), f"the digest is not {image.digest}")
    if image.format is DiskFormat.BUNDLE and bench.answers():
        _look_into(content)


def _look_into(content: bytes) -> None:
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        if BUNDLE_MANIFEST not in archive.getnames():
            return  # an archive of the provider's own form
        note, manifest = archive.extractfile("bundle-note"), archive.extractfile(BUNDLE_MANIFEST)
        expect(note and note.read() == b"in the bundle", "what was written in the machine is not in the archive")
        held = MachineManifest.model_validate_json(manifest.read() if manifest else b"")
    expect(held.installed and held.start, f"the manifest says {held!r}")


@check(MachineBundle, ImageDownload, ImageUpload, Endpoints)
async def bundle_can_be_brought_back(bench: Bench) -> None:
    """A bundle that was downloaded and uploaded starts a machine with everything in it: so machines move."""
    bench.need_running_machines()
    image = await _bundled(bench)
    content = await download(bench, image)
    spec = ImageSpec(name="moved", format=image.format, size=len(content), digest=digest(content))
    moved = await bench.the(ImageUpload).upload_image(spec, stream(content), key=bench.key("moved"))
    machine = await bench.machine("moved-machine", image=moved.id, user_data=None)
    expect(await bench.get(machine, "bundle-note") == b"in the bundle", "what was written is not there")


@check(MachineBundle)
async def bundling_requires_what_is_declared(bench: Bench) -> None:
    """Where bundling is declared to require a stopped machine, a running one is refused with Conflict and no image is
    left; where it is not, a running machine is bundled and goes on running."""
    module, requires = bench.the(MachineBundle), bench.ability("bundle_machine").requires
    async with bench.machine_lent() as machine:
        call = module.bundle_machine(machine.id, "running", key=bench.key("running"))
        if Requirement.STOPPED in requires:
            await refused(call, Conflict, what="bundle while it runs")
            left = [image.id for image in await module.list_images() if image.key == bench.key("running")]
            expect(not left, f"{left} were made all the same")
        else:
            await call
            seen = await bench.module.describe_machine(machine.id)
            expect(seen.status is Status.ACTIVE, f"after bundling, the machine is {seen.status}")


@check(MachineBundle)
async def bundling_an_unknown_machine_is_not_found(bench: Bench) -> None:
    """Bundling a machine that is not there raises NotFound."""
    call = bench.the(MachineBundle).bundle_machine(bench.unknown("machine"), "y", key=bench.key("y"))
    await refused(call, NotFound, what="bundle an unknown machine")


# --- made of volumes, and volumes made of them ---


@check(VolumeBundle, ImageUpload, ImageDownload)
async def volume_takes_and_gives_content(bench: Bench) -> None:
    """A volume made from an image has its content and then zeros; an image of the volume is exactly that."""
    bench.need_raw_uploads()
    content, module, size = noise(MIB + 4096), bench.the(VolumeBundle), bench.subject.volume_mib
    image = await bench.image(content)
    spec = VolumeSpec(name="filled", size_mib=size, image=image.id)
    volume = await module.create_volume(spec, key=bench.key("filled"))
    made = await module.bundle_volume(volume.id, "of the volume", key=bench.key("bundle"))
    expect((made.format, made.size) == (DiskFormat.RAW, size * MIB), f"it is {made.format} of {made.size} bytes")
    position = 0
    async for chunk in bench.the(ImageDownload).download_image(made.id):
        wanted = content[position : position + len(chunk)].ljust(len(chunk), b"\0")
        expect(chunk == wanted, f"in the {len(chunk)} bytes from {position} on, not the image's content came out")
        position += len(chunk)
    expect(position == size * MIB, f"{position} bytes came out, expected {size * MIB}")


@check(VolumeBundle, ImageUpload)
async def volume_does_not_need_its_image(bench: Bench) -> None:
    """The image that a volume was made from can be destroyed, or Conflict says that the volume needs it."""
    bench.need_raw_uploads()
    module, image = bench.the(VolumeBundle), await bench.image(noise(100_000))
    spec = VolumeSpec(name="filled", size_mib=bench.subject.volume_mib, image=image.id)
    volume = await module.create_volume(spec, key=bench.key("filled"))
    try:
        await module.destroy_image(image.id)
    except Conflict:
        await module.destroy_volume(volume.id)
    else:
        expect((await module.describe_volume(volume.id)).status is Status.ACTIVE, "it took the volume with it")


@check(VolumeBundle)
async def volume_bundle_is_made_once_for_a_key(bench: Bench) -> None:
    """Bundling a volume again with the same key gives the same image."""
    module, volume = bench.the(VolumeBundle), await new_volume(bench)
    first, again = [await module.bundle_volume(volume.id, "b", key=bench.key("b")) for _ in range(2)]
    expect(first == again, f"the same key gave {first.id} and {again.id}")
    expect((first.status, first.key) == (Status.ACTIVE, bench.key("b")), f"it is {first!r}")


@check(VolumeBundle)
async def bundling_an_unknown_volume_is_not_found(bench: Bench) -> None:
    """Bundling a volume that is not there raises NotFound."""
    call = bench.the(VolumeBundle).bundle_volume(bench.unknown("volume"), "c", key=bench.key("c"))
    await refused(call, NotFound, what="bundle an unknown volume")
