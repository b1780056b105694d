"""Images: what goes in comes out, and what is made of machines and volumes holds what was in them."""

from __future__ import annotations

import io
import random
import tarfile

from descriptors.base import MIB
from descriptors.machine import BUNDLE_MANIFEST, MachineManifest
from vendor_modules.capabilities import (
    ImageDownload,
    Images,
    ImageUpload,
    MachineBundle,
    Power,
    VolumeBundle,
)
from vendor_modules.conformance.bench import Bench, digest, expect, find, refused, stream
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, ProtocolError, ResourceFailed
from vendor_modules.resources import DiskFormat, Image, ImageSpec, Machine, Status, VolumeSpec

_UNTRUE = (InvalidRequest, ResourceFailed, ProtocolError)


def _content(size: int) -> bytes:
    """Bytes that no two places of have in common, with a stretch of zeros as disks have them."""
    generator = random.Random(size)  # noqa: S311 - reproducible on purpose
    return generator.randbytes(size // 2) + bytes(size // 4) + generator.randbytes(size - size // 2 - size // 4)


async def _download(bench: Bench, image: Image, offset: int = 0) -> bytes:
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
    """An uploaded image is ACTIVE, private, and has the name, format, size and digest that were declared."""
    content = _content(100_000)
    image = await bench.image(content, name="Abbild 世界")
    got = (image.status, image.public, image.name, image.format, image.size)
    wanted = (Status.ACTIVE, False, "Abbild 世界", DiskFormat.RAW, len(content))
    expect(got == wanted, f"it is {got}, expected {wanted}")
    expect(image.digest in (None, digest(content)), f"its digest is {image.digest}")


@check(ImageUpload)
async def upload_with_a_wrong_digest_is_refused(bench: Bench) -> None:
    """Content whose digest is not the declared one is refused, and no image is made of it."""
    content = _content(100_000)
    spec = ImageSpec(name="wrong", format=DiskFormat.RAW, size=len(content), digest=digest(b"something else"))
    await _refused_upload(bench, spec, content)


@check(ImageUpload)
async def upload_with_a_wrong_size_is_refused(bench: Bench) -> None:
    """Content that is longer or shorter than declared is refused, and no image is made of it."""
    content = _content(100_000)
    for size in (len(content) - 1, len(content) + 1):
        spec = ImageSpec(name="wrong", format=DiskFormat.RAW, size=size, digest=digest(content))
        await _refused_upload(bench, spec, content)


async def _refused_upload(bench: Bench, spec: ImageSpec, content: bytes) -> None:
    images, key = bench.the(ImageUpload), bench.key(f"wrong-{spec.size}")
    await refused(images.upload_image(spec, stream(content), key=key), *_UNTRUE, what="upload what was not declared")
    usable = [i.id for i in await images.list_images() if i.key == key and i.status is Status.ACTIVE]
    expect(not usable, f"{usable} can be used although the upload was refused")


@check(ImageUpload, ImageDownload)
async def image_comes_out_as_it_went_in(bench: Bench) -> None:
    """An image of several chunks is downloaded byte for byte as it was uploaded."""
    content = _content(5 * MIB + 12_345)
    got = await _download(bench, await bench.image(content))
    expect(
        got == content, f"{len(got)} bytes with {digest(got)} came out, {len(content)} with {digest(content)} went in"
    )


@check(ImageUpload, ImageDownload)
async def empty_image_comes_out_empty(bench: Bench) -> None:
    """An image without a byte is an image."""
    got = await _download(bench, await bench.image(b""))
    expect(got == b"", f"{len(got)} bytes came out")


@check(ImageUpload, ImageDownload)
async def download_goes_on_from_an_offset(bench: Bench) -> None:
    """A download from any offset gives exactly the rest."""
    content = _content(3 * MIB + 5)
    image = await bench.image(content)
    for offset in (1, MIB - 1, MIB, 2 * MIB + 77, len(content) - 1, len(content)):
        got = await _download(bench, image, offset)
        expect(got == content[offset:], f"from {offset}: {len(got)} bytes, expected {len(content) - offset}")


@check(ImageUpload, ImageDownload)
async def download_may_be_broken_off(bench: Bench) -> None:
    """A download that is not read to its end disturbs nothing: the next one is whole."""
    content = _content(4 * MIB)
    image = await bench.image(content)
    chunks = bench.the(ImageDownload).download_image(image.id)
    first = await anext(chunks)
    await chunks.aclose()  # type: ignore[attr-defined]  # they are generators
    expect(content.startswith(first), "the first chunk is not the beginning")
    expect(await _download(bench, image) == content, "the next download is another")


@check(ImageDownload)
async def download_of_an_unknown_image_is_not_found(bench: Bench) -> None:
    """Downloading an image that is not there raises NotFound."""

    async def read() -> None:
        async for _ in bench.the(ImageDownload).download_image("there-is-none"):
            pass

    await refused(read(), NotFound, what="download an unknown image")


# --- made of machines ---


async def _bundled(bench: Bench) -> tuple[Machine, Image]:
    machine = await bench.machine()
    await bench.get(machine, GREETING)
    await bench.put(machine, "note", b"in the bundle")
    await bench.the(Power).stop_machine(machine.id)
    return machine, await bench.the(MachineBundle).bundle_machine(machine.id, "bundle", key=bench.key("bundle"))


@check(MachineBundle, Power)
async def bundled_machine_starts_elsewhere(bench: Bench) -> None:
    """A machine made from a machine's image, without user data, serves what was in the first; both are there."""
    original, image = await _bundled(bench)
    copy = await bench.machine("copy", image=image.id, user_data=None)
    expect(await bench.get(copy, "note") == b"in the bundle", "what was written in the first is not in the copy")
    expect(await bench.get(copy, GREETING) == GREETING_TEXT, "the user data's files are not in the copy")
    again = await bench.the(Power).start_machine(original.id)
    expect(await bench.get(again, "note") == b"in the bundle", "the first is not what it was")


@check(MachineBundle, Power)
async def bundle_is_made_once_for_a_key(bench: Bench) -> None:
    """Bundling again with the same key gives the same image."""
    machine, image = await _bundled(bench)
    again = await bench.the(MachineBundle).bundle_machine(machine.id, "bundle", key=bench.key("bundle"))
    expect(again == image, f"the second is {again!r}")


@check(MachineBundle, Power, ImageDownload)
async def bundle_holds_the_machine(bench: Bench) -> None:
    """A downloaded bundle is as long as its image says, and its archive has the machine's files and manifest."""
    _, image = await _bundled(bench)
    content = await _download(bench, image)
    expect(len(content) == image.size, f"{len(content)} bytes came out of an image of {image.size}")
    expect(image.digest in (None, digest(content)), f"the digest is not {image.digest}")
    if image.format is not DiskFormat.BUNDLE:
        return
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        note = archive.extractfile("note")
        manifest = archive.extractfile(BUNDLE_MANIFEST)
        expect(note and note.read() == b"in the bundle", "what was written in the machine is not in the archive")
        expect(manifest, f"{BUNDLE_MANIFEST} is not in the archive")
        held = MachineManifest.model_validate_json(manifest.read() if manifest else b"")
    expect(held.installed and held.start, f"the manifest says {held!r}")


@check(MachineBundle, Power, ImageDownload, ImageUpload)
async def bundle_can_be_brought_back(bench: Bench) -> None:
    """A bundle that was downloaded and uploaded starts a machine with everything in it: so machines move."""
    _, image = await _bundled(bench)
    content = await _download(bench, image)
    spec = ImageSpec(name="moved", format=image.format, size=len(content), digest=digest(content))
    moved = await bench.the(ImageUpload).upload_image(spec, stream(content), key=bench.key("moved"))
    machine = await bench.machine("moved-machine", image=moved.id, user_data=None)
    expect(await bench.get(machine, "note") == b"in the bundle", "what was written is not there")


@check(MachineBundle)
async def running_machine_is_not_bundled(bench: Bench) -> None:
    """Bundling a machine that runs raises Conflict; one that is not there, NotFound."""
    module, machine = bench.the(MachineBundle), await bench.machine()
    await refused(module.bundle_machine(machine.id, "x", key=bench.key("x")), Conflict, what="bundle while it runs")
    call = module.bundle_machine("there-is-none", "y", key=bench.key("y"))
    await refused(call, NotFound, what="bundle an unknown machine")


# --- made of volumes, and volumes made of them ---


@check(VolumeBundle, ImageUpload, ImageDownload)
async def volume_takes_and_gives_content(bench: Bench) -> None:
    """A volume made from an image has its content and then zeros; an image of the volume is exactly that."""
    content, module = _content(MIB + 4096), bench.the(VolumeBundle)
    image = await bench.image(content)
    spec = VolumeSpec(name="filled", size_mib=2, image=image.id)
    volume = await module.create_volume(spec, key=bench.key("filled"))
    await bench.the(ImageUpload).destroy_image(image.id)
    made = await module.bundle_volume(volume.id, "of the volume", key=bench.key("bundle"))
    expect((made.format, made.size) == (DiskFormat.RAW, 2 * MIB), f"it is {made.format} of {made.size} bytes")
    got = await _download(bench, made)
    expect(got == content.ljust(2 * MIB, b"\0"), f"{len(got)} bytes with {digest(got)} came out")


@check(VolumeBundle)
async def volume_bundle_is_made_once_for_a_key(bench: Bench) -> None:
    """Bundling a volume again with the same key gives the same image; one that is not there is NotFound."""
    module = bench.the(VolumeBundle)
    volume = await module.create_volume(VolumeSpec(name="volume", size_mib=1), key=bench.key("volume"))
    first, again = [await module.bundle_volume(volume.id, "b", key=bench.key("b")) for _ in range(2)]
    expect(first == again, f"the same key gave {first.id} and {again.id}")
    call = module.bundle_volume("there-is-none", "c", key=bench.key("c"))
    await refused(call, NotFound, what="bundle an unknown volume")
