"""Volumes and snapshots of the providers that libcloud has a driver for: the mixins."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar, TypeVar

from libcloud.compute.types import StorageVolumeState, VolumeSnapshotState

from vendor_modules.abilities import Ability, Requirement
from vendor_modules.capabilities import Attachments, Snapshots
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.libcloud.core import Driver, LibcloudModule, one
from vendor_modules.resources import Key, Machine, MachineSpec, Snapshot, Status, Volume, VolumeSpec

T = TypeVar("T")
MIB_PER_GIB = 1024


class LibcloudVolumes(LibcloudModule, Attachments):
    """Volumes by libcloud's base calls, in whole GiB. Those of a new machine are attached when it runs: libcloud's
    drivers can do no better."""

    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_volume": Ability(note="sizes are rounded up to whole GiB"),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
    }
    volume_statuses: ClassVar[Mapping[str | None, Status | None]] = {
        None: Status.ACTIVE,
        StorageVolumeState.AVAILABLE: Status.ACTIVE,
        StorageVolumeState.UNKNOWN: Status.ACTIVE,
        StorageVolumeState.INUSE: Status.ATTACHED,
        StorageVolumeState.ERROR: Status.ERROR,
        StorageVolumeState.DELETED: None,
    }
    """What a volume's states mean; None is one that is no more. Those that are missing are PENDING."""

    # --- hooks ---

    def _storage_volumes(self, driver: Driver) -> list[Any]:
        """All volumes of the account, in all pages."""
        return list(driver.list_volumes())

    def _storage_volume(self, driver: Driver, volume_id: str) -> Any:
        """One volume, else :class:`~vendor_modules.errors.NotFound`. Override it where a driver can ask for one."""
        return one(self._storage_volumes(driver), volume_id, "volume")

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        """The id of the node that has the volume, and the device it is there (None where the provider chooses, and does
        not tell); None for a detached one."""
        raise NotImplementedError(f"{type(self).__name__} does not say where volumes are attached")

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        """Keyword arguments of ``create_volume``. Mixins add theirs."""
        return {
            "size": gib(spec.size_mib),
            "name": self._provider_name("volume", key, spec.name),
            **self._tags_for("volume", key, spec.name),
        }

    def _mib_of(self, volume: Any) -> int:
        """The volume's size in MiB; override it where the driver does not tell GiB."""
        return int(volume.size) * MIB_PER_GIB

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        driver.attach_volume(node, volume, device)

    def _detach(self, driver: Driver, volume: Any) -> None:
        driver.detach_volume(volume)

    def _volumes_of(self, driver: Driver, nodes: list[Any]) -> Mapping[str, tuple[str, ...]]:
        found: dict[str, tuple[str, ...]] = {}
        for volume in self._storage_volumes(driver) if nodes else []:
            if attached := self._attached_to(volume):
                found[attached[0]] = (*found.get(attached[0], ()), str(volume.id))
        return found

    # --- machines with volumes ---

    async def create_machine(self, spec: MachineSpec, *, key: Key) -> Machine:
        """See :class:`~vendor_modules.module.VendorModule`; the volumes are attached when the machine is ACTIVE."""
        for wanted in spec.volumes:
            volume = await self.describe_volume(wanted.volume)
            machine = volume.machine and await self.describe_machine(volume.machine)
            if machine and machine.key != key:
                words = f"volume {volume.id} is attached to machine {machine.id}"
                raise Conflict(words, vendor=self.vendor, operation="create machine")
        made = await super().create_machine(spec, key=key)
        return await self._equip(made, spec) if spec.volumes else made

    async def _equip(self, made: Machine, spec: MachineSpec) -> Machine:
        """Attach the volumes of a new machine, or of one that has some of them already."""
        for wanted in spec.volumes:
            await self.attach_volume(wanted.volume, made.id, wanted.device)
        return await self.describe_machine(made.id)

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        def create(driver: Driver) -> Volume:
            volume = self._once(
                lambda: self._present_volumes(driver),
                lambda: driver.create_volume(**self._volume_arguments(driver, spec, key)),
                driver.destroy_volume,
                key,
            )
            return self._volume(volume, (key,))

        return await self._run(create, key=f"volume {key}")

    async def _describe_volume(self, volume_id: str) -> Volume:
        keys = await self._keys("volume")
        return await self._run(self._with_volume(volume_id, lambda _, volume: self._volume(volume, keys)))

    async def _list_volumes(self) -> list[Volume]:
        keys = await self._keys("volume")
        return await self._run(lambda driver: [self._volume(v, keys) for v in self._present_volumes(driver)])

    async def _destroy_volume(self, volume_id: str) -> None:
        def destroy(driver: Driver, volume: Any) -> None:
            if attached := self._attached_to(volume):
                raise Conflict(f"volume {volume_id} is attached to machine {attached[0]}")
            driver.destroy_volume(volume)

        await self._run(self._with_volume(volume_id, destroy))

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        def attach(driver: Driver, volume: Any) -> None:
            if attached := self._attached_to(volume):
                if attached[0] == machine_id and attached[1] in (None, device):
                    return
                raise Conflict(f"volume {volume_id} is attached to machine {attached[0]} as {attached[1]}")
            node = self._node(driver, machine_id)
            if self._status_of(node) is None:
                raise NotFound(f"there is no machine {machine_id!r}")
            self._attach(driver, node, volume, device)

        await self._run(self._with_volume(volume_id, attach), key=f"attach {volume_id}")

    async def _detach_volume(self, volume_id: str) -> None:
        def detach(driver: Driver, volume: Any) -> None:
            if self._attached_to(volume):
                self._detach(driver, volume)

        await self._run(self._with_volume(volume_id, detach), key=f"attach {volume_id}")

    def _with_volume(self, volume_id: str, call: Callable[[Driver, Any], T]) -> Callable[[Driver], T]:
        def run(driver: Driver) -> T:
            volume = self._storage_volume(driver, volume_id)
            if self._volume_status(volume) is None:
                raise NotFound(f"there is no volume {volume_id!r}")
            return call(driver, volume)

        return run

    def _present_volumes(self, driver: Driver) -> list[Any]:
        return [volume for volume in self._storage_volumes(driver) if self._volume_status(volume) is not None]

    def _volume_status(self, volume: Any) -> Status | None:
        return self.volume_statuses.get(volume.state, Status.PENDING)

    def _volume(self, volume: Any, keys: Collection[str]) -> Volume:
        machine, device = self._attached_to(volume) or (None, None)
        status = self._volume_status(volume) or Status.PENDING
        if status in (Status.ACTIVE, Status.ATTACHED):  # drivers are slow to tell, or do not
            status = Status.ATTACHED if machine else Status.ACTIVE
        return Volume(
            id=str(volume.id),
            name=self._name_of(volume),
            key=self._key_of(volume, keys),
            status=status,
            size_mib=self._mib_of(volume),
            machine=machine,
            device=device,
        )


class LibcloudSnapshots(LibcloudVolumes, Snapshots):
    """Snapshots by libcloud's base calls, and volumes from them."""

    snapshot_statuses: ClassVar[Mapping[str | None, Status | None]] = {
        None: Status.ACTIVE,
        VolumeSnapshotState.AVAILABLE: Status.ACTIVE,
        VolumeSnapshotState.UNKNOWN: Status.ACTIVE,
        VolumeSnapshotState.ERROR: Status.ERROR,
    }
    """What a snapshot's states mean. Those that are missing are PENDING."""

    def _volume_snapshots(self, driver: Driver) -> list[Any]:
        """All snapshots of the account, in all pages. By the base calls, which know those of volumes that are still
        there only: override it where the driver lists all."""
        return [snapshot for volume in self._storage_volumes(driver) for snapshot in volume.list_snapshots()]

    def _volume_of(self, snapshot: Any) -> str | None:
        """The id of the volume that the snapshot is of."""
        extra = snapshot.extra or {}
        volume = extra.get("volume_id") or extra.get("volumeId")
        return str(volume) if volume else None

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        arguments = super()._volume_arguments(driver, spec, key)
        if spec.snapshot:
            snapshot = self._snapshot_found(driver, spec.snapshot)
            if int(snapshot.size or 0) > gib(spec.size_mib):
                raise InvalidRequest(f"snapshot {spec.snapshot} has {snapshot.size} GiB, more than the volume")
            arguments["snapshot"] = snapshot
        return arguments

    def _snapshot_found(self, driver: Driver, snapshot_id: str) -> Any:
        return one(self._volume_snapshots(driver), snapshot_id, "snapshot")

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        def create(driver: Driver, volume: Any) -> Snapshot:
            chosen, tags = self._provider_name("snapshot", key, name), self._tags_for("snapshot", key, name)
            snapshot = self._once(
                lambda: self._volume_snapshots(driver),
                lambda: driver.create_volume_snapshot(volume, name=chosen, **tags),
                driver.destroy_volume_snapshot,
                key,
            )
            return self._snapshot(snapshot, (key,))

        return await self._run(self._with_volume(volume_id, create), key=f"snapshot {key}")

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        keys = await self._keys("snapshot")
        return await self._run(lambda driver: self._snapshot(self._snapshot_found(driver, snapshot_id), keys))

    async def _list_snapshots(self) -> list[Snapshot]:
        keys = await self._keys("snapshot")
        return await self._run(lambda driver: [self._snapshot(s, keys) for s in self._volume_snapshots(driver)])

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        await self._run(lambda driver: driver.destroy_volume_snapshot(self._snapshot_found(driver, snapshot_id)))

    def _snapshot(self, snapshot: Any, keys: Collection[str]) -> Snapshot:
        return Snapshot(
            id=str(snapshot.id),
            name=self._name_of(snapshot),
            key=self._key_of(snapshot, keys),
            status=self.snapshot_statuses.get(snapshot.state, Status.PENDING),
            volume=self._volume_of(snapshot),
            size_mib=int(snapshot.size or 0) * MIB_PER_GIB,
        )


def gib(size_mib: int) -> int:
    """Whole GiB that hold so many MiB."""
    return -(-size_mib // MIB_PER_GIB)
