"""What of the pool is a volume, a snapshot or an image, in the words that all modules share."""

from __future__ import annotations

from pydantic import TypeAdapter, ValidationError

from descriptors.base import MIB, Identifier
from vendor_modules.errors import InvalidRequest, NotFound
from vendor_modules.libvirt_qemu.storage import OURS, Record, Storage, StoredKind
from vendor_modules.resources import DiskFormat, Image, Snapshot, Status, Volume, VolumeSpec

_IDENTIFIER = TypeAdapter(Identifier)


def record(storage: Storage, kind: StoredKind, resource_id: str) -> Record:
    """The record of a thing of that kind; :class:`~vendor_modules.errors.NotFound` if there is none."""
    if not resource_id.startswith(f"{kind}-") or not OURS.fullmatch(f"{resource_id}.json"):
        raise NotFound(f"there is no {kind} {resource_id}")
    return storage.record(resource_id)


def volume(volume_id: str, known: Record, attached: dict[str, tuple[str, str]]) -> Volume:
    """A volume, given where each is attached."""
    machine, target = attached.get(f"{volume_id}.img", (None, None))
    ready = Status.ATTACHED if machine else Status.ACTIVE
    return Volume(
        id=volume_id,
        name=known.name,
        key=known.key,
        status=ready if known.complete else Status.PENDING,
        size_mib=known.size // MIB,
        machine=machine,
        device=target and f"dev/{target}",
    )


def snapshot(snapshot_id: str, known: Record) -> Snapshot:
    """A snapshot."""
    return Snapshot(
        id=snapshot_id,
        name=known.name,
        key=known.key,
        status=_status(known),
        volume=known.volume,
        size_mib=max(1, known.size // MIB),
    )


def own_image(image_id: str, known: Record) -> Image:
    """An image that the agency made."""
    return Image(
        id=image_id,
        name=known.name,
        key=known.key,
        status=_status(known),
        format=known.format,
        size=known.size,
        digest=known.digest,
    )


def _status(known: Record) -> Status:
    return Status.ACTIVE if known.complete else Status.PENDING


def image(storage: Storage, image_id: str) -> Image:
    """The image of that id; :class:`~vendor_modules.errors.NotFound` if there is none."""
    if OURS.fullmatch(f"{image_id}.img"):
        return own_image(image_id, record(storage, "image", image_id))
    form = None if OURS.fullmatch(image_id) or not _is_identifier(image_id) else storage.format(image_id)
    if form is None:
        raise NotFound(f"there is no image {image_id}")
    size = storage.size(image_id)
    return Image(id=image_id, name=image_id, status=Status.ACTIVE, format=form, size=size, public=True)


def _is_identifier(text: str) -> bool:
    try:
        return bool(_IDENTIFIER.validate_python(text))
    except ValidationError:
        return False


def source(storage: Storage, image_id: str) -> tuple[str, DiskFormat]:
    """The file of an image that is ready, and how it is laid out."""
    found = image(storage, image_id)
    if found.status is not Status.ACTIVE:
        raise NotFound(f"image {image_id} is not there yet")
    return (image_id if found.public else f"{image_id}.img"), found.format


def fill(storage: Storage, spec: VolumeSpec, file: str) -> int:
    """Make the file of a new volume, with the content that is asked for; returns its bytes."""
    content, size = None, spec.size_mib * MIB
    if spec.image and spec.snapshot:
        raise InvalidRequest("a volume is made of an image or of a snapshot, not of both")
    if spec.image:
        content, form = source(storage, spec.image)
        if form is not DiskFormat.RAW:
            raise InvalidRequest(f"volumes are made of RAW images; {spec.image} is {form}")
    if spec.snapshot:
        record(storage, "snapshot", spec.snapshot)
        content = f"{spec.snapshot}.img"
    if content and (needed := storage.size(content)) > size:
        raise InvalidRequest(f"its content has {needed} bytes: more than fit into {spec.size_mib} MiB")
    storage.make(file, size, copy_of=content)
    return size
