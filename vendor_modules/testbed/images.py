"""The cloud's image catalogue: uploads, downloads, and images made from machines and volumes."""

from __future__ import annotations

import asyncio
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path
from secrets import token_hex
from typing import IO

from blake3 import blake3

from descriptors.base import MIB, new_id
from descriptors.deployment import Kind
from vendor_modules.resources import DiskFormat, ImageSpec, Status
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.errors import ApiError, conflict, invalid
from vendor_modules.testbed.files import Pace, copy_sparsely, digest_of, in_thread, publish, write_sparsely
from vendor_modules.testbed.jobs import Jobs
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.machines import Machines, check_copyable
from vendor_modules.testbed.records import ImageRecord, MachineRecord, VolumeRecord
from vendor_modules.testbed.runtimes.base import Runtime
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.usage import UsageMeters

BASE = "base"
"""The public image: an empty bundle."""
KEPT = (DiskFormat.BUNDLE, DiskFormat.RAW, DiskFormat.QCOW2)
"""The disk formats of images, whatever the cloud's own machines start from."""


class Images:
    """See the module."""

    def __init__(
        self,
        state: Path,
        config: CloudConfig,
        store: Store,
        limits: Limits,
        runtime: Runtime,
        jobs: Jobs,
        meters: UsageMeters,
        machines: Machines,
    ) -> None:
        self._state = state
        self._folder = state / "images"
        self._store = store
        self._limits = limits
        self._runtime = runtime
        self._jobs = jobs
        self._meters = meters
        self._machines = machines
        self._pace = Pace(config.bandwidth_bytes_per_second)
        self._folder.mkdir(exist_ok=True)

    def resume(self) -> None:
        """Seed the public image; go on with what was being made when the cloud ended, remove what belongs to none."""
        if DiskFormat.BUNDLE in self._runtime.formats and not self._store.find(ImageRecord, BASE):
            tarfile.open(self._folder / BASE, "w:").close()
            size, digest = (self._folder / BASE).stat().st_size, digest_of(self._folder / BASE)
            active = {"status": Status.ACTIVE, "size": size, "digest": digest, "public": True}
            self._store.add(ImageRecord.model_validate({"id": BASE, "name": BASE, "format": "bundle", **active}))
        records = self._store.all(ImageRecord)
        for file in self._folder.iterdir():
            if file.name not in {record.id for record in records}:
                file.unlink()
        for record in records:
            if record.status is Status.PENDING and record.source:
                self._jobs.start(record.id, self._make(record), holding=[record.source[1]])

    # --- in ---

    def create(self, spec: ImageSpec, key: str) -> ImageRecord:
        """Take the order for an upload; the same key gives the same image."""
        if existing := self._store.by_key(ImageRecord, key):
            return existing
        if spec.format not in KEPT:
            raise invalid(f"this cloud keeps {', '.join(KEPT)} images, and no {spec.format} images")
        self._check_quota(spec.size)
        record = ImageRecord(id=new_id("image"), key=key, status=Status.PENDING, **dict(spec))
        self._store.add(record)
        return record

    async def upload(self, image_id: str, content: AsyncIterator[bytes]) -> ImageRecord:
        """Take in the content; an image whose content is not what was declared is discarded. An image that is there
        already stays as it is: the content is taken in, compared, and dropped."""
        record = self._store.get(ImageRecord, image_id)
        if record.source or record.public:
            raise conflict(f"image {image_id} takes no upload")
        part = self._folder / f"{token_hex(8)}.part"
        try:
            digest, size = await self._receive(content, part, record.size)
            if (digest, size) != (record.digest, record.size):
                if self._store.get(ImageRecord, image_id).status is Status.PENDING:
                    self._store.remove(record)
                received = f"{size} bytes" if size != record.size else digest
                declared = f"{record.size} bytes" if size != record.size else record.digest
                raise ApiError(422, "wrong-content", f"received {received}, declared {declared}")
            await in_thread(publish, part, self._folder / image_id)
            self._store.get(ImageRecord, image_id)  # it may have been removed during the upload
            return self._store.put(record.model_copy(update={"status": Status.ACTIVE}))
        except ApiError:
            if not self._store.find(ImageRecord, image_id):
                (self._folder / image_id).unlink(missing_ok=True)
            raise
        finally:
            part.unlink(missing_ok=True)

    async def _receive(self, content: AsyncIterator[bytes], part: Path, limit: int) -> tuple[str, int]:
        hasher, size, held = blake3(), 0, bytearray()

        def write(file: IO[bytes], data: bytes) -> None:
            hasher.update(data)
            for start in range(0, len(data), MIB):
                write_sparsely(file, data[start : start + MIB])

        with part.open("wb") as file:
            async for chunk in content:
                size += len(chunk)
                if size > limit:
                    break  # a wrong size is reported as such; the rest need not be read for that
                held += chunk
                await self._pace(len(chunk))
                if len(held) >= MIB:
                    whole = len(held) - len(held) % MIB
                    await in_thread(write, file, bytes(held[:whole]))
                    del held[:whole]
            await in_thread(write, file, bytes(held))
            file.truncate(size)
        return f"blake3:{hasher.hexdigest()}", size

    # --- out ---

    def downloadable(self, image_id: str) -> tuple[ImageRecord, IO[bytes]]:
        """The image and its opened content, which stays readable should the image be removed meanwhile."""
        record = self._store.get(ImageRecord, image_id)
        if record.status is not Status.ACTIVE:
            raise conflict(f"image {image_id} is {record.status}, not active")
        return record, (self._folder / image_id).open("rb")

    async def content(self, image_id: str, file: IO[bytes], offset: int) -> AsyncIterator[bytes]:
        """The content from the offset on; closes the file. What was sent counts as egress."""
        sent = 0
        try:
            file.seek(offset)
            while chunk := await asyncio.to_thread(file.read, MIB):
                await self._pace(len(chunk))
                yield chunk
                sent += len(chunk)
        finally:
            file.close()
            if self._store.find(ImageRecord, image_id):
                self._meters.egress(image_id, "image", sent)

    # --- made here ---

    def bundle(self, kind: Kind, source_id: str, name: str, key: str) -> ImageRecord:
        """Take the order for an image of a machine or volume that is not in use; the same key gives the same image."""
        if existing := self._store.by_key(ImageRecord, key):
            return existing
        format_, size = DiskFormat.BUNDLE, 0
        if kind == "volume":
            format_, size = DiskFormat.RAW, check_copyable(self._store, source_id).size_mib * MIB
        else:
            machine = self._store.get(MachineRecord, source_id)
            if machine.status in (Status.ACTIVE, Status.PENDING) or not machine.built:
                raise conflict(f"machine {source_id} is {machine.status}, not stopped")
        self._check_quota(size)
        pending = {"id": new_id("image"), "name": name, "key": key, "status": Status.PENDING}
        record = ImageRecord.model_validate({**pending, "format": format_, "source": (kind, source_id)})
        self._store.add(record)
        self._jobs.start(record.id, self._make(record), holding=[source_id])
        return record

    async def _make(self, record: ImageRecord) -> None:
        assert record.source  # noqa: S101 - it is what makes it a job
        kind, source = record.source
        part = self._folder / f"{record.id}.part"
        try:
            if kind == "machine":
                guest = self._machines.guest(self._store.get(MachineRecord, source))
                format_ = await self._runtime.bundle(guest, part)
            else:
                format_ = DiskFormat.RAW
                size = self._store.get(VolumeRecord, source).size_mib * MIB
                await in_thread(copy_sparsely, self._state / "volumes" / source, part, size)
            digest = await in_thread(digest_of, part)
            size = part.stat().st_size
            await in_thread(publish, part, self._folder / record.id)
            update = {"status": Status.ACTIVE, "format": format_, "size": size, "digest": digest}
        except (OSError, ValueError, ApiError) as error:
            update = {"status": Status.ERROR, "problem": str(error)}
        finally:
            part.unlink(missing_ok=True)
        self._store.put(record.model_copy(update=update))

    async def destroy(self, image_id: str) -> None:
        """Remove an image; what was made from it stays."""
        record = self._store.get(ImageRecord, image_id)
        if record.public:
            raise ApiError(403, "forbidden", f"image {image_id} is the cloud's own")
        self._jobs.refuse_if_held("image", image_id)
        if any(m.image == image_id and not m.built for m in self._store.all(MachineRecord)):
            raise conflict(f"a machine is being made from image {image_id}")
        await self._jobs.cancel(image_id)
        self._store.remove(record)
        self._meters.ended(image_id)
        (self._folder / image_id).unlink(missing_ok=True)

    def _check_quota(self, size: int) -> None:
        self._limits.check("images")
        self._limits.check("image_mib", size)
