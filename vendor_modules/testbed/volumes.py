"""The cloud's volumes: sparse files, attached to machines that are not running."""

from __future__ import annotations

import asyncio
from pathlib import Path

from descriptors.base import MIB, new_id
from vendor_modules.resources import DiskFormat, Status, VolumeSpec
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.errors import conflict, invalid
from vendor_modules.testbed.files import copy_sparsely, in_thread
from vendor_modules.testbed.jobs import Jobs
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.machines import check_attachable
from vendor_modules.testbed.records import ImageRecord, MachineRecord, SnapshotRecord, VolumeRecord
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.usage import UsageMeters


class Volumes:
    """See the module."""

    def __init__(
        self, state: Path, config: CloudConfig, store: Store, limits: Limits, jobs: Jobs, meters: UsageMeters
    ) -> None:
        self._state = state
        self._config = config
        self._store = store
        self._limits = limits
        self._jobs = jobs
        self._meters = meters
        (state / "volumes").mkdir(exist_ok=True)

    def create(self, spec: VolumeSpec, key: str) -> VolumeRecord:
        """Take the order and begin to fill the volume; the same key gives the same volume."""
        if existing := self._store.by_key(VolumeRecord, key):
            return existing
        self._check(spec)
        record = VolumeRecord(id=new_id("volume"), key=key, status=Status.PENDING, **dict(spec))
        with self._store.together():
            self._store.add(record)
            self._meters.storage(record.id, "volume", spec.size_mib * MIB, self._config.block_gib_month)
        self._fill(record)
        return record

    def resume(self) -> None:
        """Fill the volumes that were being filled when the cloud ended; remove files that belong to none."""
        records = self._store.all(VolumeRecord)
        for file in (self._state / "volumes").iterdir():
            if file.name not in {record.id for record in records}:
                file.unlink()
        for record in records:
            if record.status is Status.PENDING:
                self._fill(record)

    def attach(self, volume_id: str, machine_id: str, device: str) -> VolumeRecord:
        """Attach to a machine that is not running; attached so already is fine."""
        volume = self._store.get(VolumeRecord, volume_id)
        machine = self._store.get(MachineRecord, machine_id)
        if (volume.machine, volume.device) == (machine_id, device):
            return volume
        volume = check_attachable(self._store, self._jobs, volume_id, device)
        self._refuse_unless_off(machine)
        if any(self._store.get(VolumeRecord, other).device == device for other in machine.volumes):
            raise conflict(f"machine {machine_id} has another volume as {device}")
        attached = volume.model_copy(update={"status": Status.ATTACHED, "machine": machine_id, "device": device})
        with self._store.together():
            self._store.put(machine.model_copy(update={"volumes": (*machine.volumes, volume_id)}))
            return self._store.put(attached)

    def detach(self, volume_id: str) -> VolumeRecord:
        """Detach from a machine that is not running; detached already is fine."""
        volume = self._store.get(VolumeRecord, volume_id)
        if volume.machine is None:
            return volume
        self._jobs.refuse_if_held("volume", volume_id)
        machine = self._store.get(MachineRecord, volume.machine)
        self._refuse_unless_off(machine)
        detached = volume.model_copy(update={"status": Status.ACTIVE, "machine": None, "device": None})
        with self._store.together():
            left = tuple(other for other in machine.volumes if other != volume_id)
            self._store.put(machine.model_copy(update={"volumes": left}))
            return self._store.put(detached)

    async def destroy(self, volume_id: str) -> None:
        """Remove a volume that is not attached."""
        volume = self._store.get(VolumeRecord, volume_id)
        if volume.machine:
            raise conflict(f"volume {volume_id} is attached to machine {volume.machine}")
        self._jobs.refuse_if_held("volume", volume_id)
        await self._jobs.cancel(volume_id)
        with self._store.together():
            self._store.remove(volume)
            self._meters.ended(volume_id)
        await asyncio.to_thread((self._state / "volumes" / volume_id).unlink, missing_ok=True)

    # --- inside ---

    def _check(self, spec: VolumeSpec) -> None:
        self._limits.check("volumes")
        self._limits.check("volume_mib", spec.size_mib * MIB)
        if spec.image and spec.snapshot:
            raise invalid("a volume is made from an image or from a snapshot, not from both")
        if spec.image:
            image = self._store.get(ImageRecord, spec.image)
            if image.format is not DiskFormat.RAW:
                raise invalid(f"volumes are made from raw images; {image.id} is a {image.format} image")
            _check_source(image, image.size, spec)
        elif spec.snapshot:
            snapshot = self._store.get(SnapshotRecord, spec.snapshot)
            _check_source(snapshot, snapshot.size_mib * MIB, spec)

    def _refuse_unless_off(self, machine: MachineRecord) -> None:
        if machine.status in (Status.ACTIVE, Status.PENDING):
            raise conflict(f"machine {machine.id} is {machine.status}; stop it first")

    def _fill(self, record: VolumeRecord) -> None:
        sources = [source for source in (record.image, record.snapshot) if source]
        self._jobs.start(record.id, self._make(record), holding=sources)

    async def _make(self, record: VolumeRecord) -> None:
        file = self._state / "volumes" / record.id
        status = Status.ACTIVE
        try:
            if source := self._source(record):
                await in_thread(copy_sparsely, source, file, record.size_mib * MIB)
            else:
                with file.open("wb") as opened:
                    opened.truncate(record.size_mib * MIB)
        except OSError:
            status = Status.ERROR
        self._store.put(record.model_copy(update={"status": status}))

    def _source(self, record: VolumeRecord) -> Path | None:
        if record.image:
            return self._state / "images" / record.image
        return self._state / "snapshots" / record.snapshot if record.snapshot else None


def _check_source(source: ImageRecord | SnapshotRecord, size: int, spec: VolumeSpec) -> None:
    """The API's error unless the source is there whole, and its ``size`` bytes fit into the volume."""
    if source.status is not Status.ACTIVE:
        raise conflict(f"{source.kind} {source.id} is {source.status}, not active")
    if size > spec.size_mib * MIB:
        raise invalid(f"{source.kind} {source.id} has {size} bytes, more than a volume of {spec.size_mib} MiB holds")
