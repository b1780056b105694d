"""The cloud's machines: from a request to a running guest, and back."""

from __future__ import annotations

import asyncio
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from descriptors.base import MIB, new_id
from vendor_modules.resources import Size, Status
from vendor_modules.services import Log
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.errors import conflict, invalid
from vendor_modules.testbed.jobs import Jobs
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.ports import HOST, Claims
from vendor_modules.testbed.records import (
    AddressRecord,
    ImageRecord,
    KeyPairRecord,
    LoadBalancerRecord,
    MachineRecord,
    SecurityGroupRecord,
    VolumeRecord,
)
from vendor_modules.testbed.runtimes.base import Guest, GuestFailed, Runtime
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.usage import UsageMeters
from vendor_modules.testbed.wire import CreateMachine, StoredUserData

GRACE = 5.0
"""Seconds that a machine has to end by itself."""


class Machines:
    """See the module. ``left`` is called with the id of every machine that is not up any more."""

    def __init__(
        self,
        state: Path,
        config: CloudConfig,
        store: Store,
        claims: Claims,
        limits: Limits,
        runtime: Runtime,
        jobs: Jobs,
        meters: UsageMeters,
        log: Log,
        left: Callable[[str], None],
    ) -> None:
        self._state = state
        self._config = config
        self._store = store
        self._claims = claims
        self._limits = limits
        self._runtime = runtime
        self._jobs = jobs
        self._meters = meters
        self._log = log
        self._left = left
        self._locks: dict[str, asyncio.Lock] = {}
        for folder in "machines", "user-data":
            (state / folder).mkdir(exist_ok=True)

    # --- what the API offers ---

    def create(self, spec: CreateMachine, key: str) -> MachineRecord:
        """Take the order and begin to build; the same key gives the same machine."""
        if existing := self._store.by_key(MachineRecord, key):
            return existing
        self._check(spec)
        record = MachineRecord(
            id=new_id("machine"),
            name=spec.name,
            key=key,
            status=Status.PENDING,
            size=spec.size,
            image=spec.image,
            host=HOST,
            port=self._claims.choose(ports_taken(self._store)),
            volumes=tuple(attachment.volume for attachment in spec.volumes),
            key_pair=spec.key_pair,
            public_key=self._store.get(KeyPairRecord, spec.key_pair).public_key if spec.key_pair else None,
            security_groups=spec.security_groups,
        )
        self._keep_user_data(record.id, spec.user_data)
        with self._store.together():
            self._store.add(record)
            for attachment in spec.volumes:
                volume = self._store.get(VolumeRecord, attachment.volume)
                update = {"status": Status.ATTACHED, "machine": record.id, "device": attachment.device}
                self._store.put(volume.model_copy(update=update))
        self._jobs.start(record.id, self._boot(record.id))
        return record

    def start(self, machine_id: str) -> MachineRecord:
        """Begin to start a machine that is not up."""
        record = self._store.get(MachineRecord, machine_id)
        if record.status in (Status.ACTIVE, Status.PENDING):
            return record
        self._jobs.refuse_if_held("machine", machine_id)
        for volume in record.volumes:
            self._jobs.refuse_if_held("volume", volume)
        record = self._store.put(record.model_copy(update={"status": Status.PENDING, "problem": None}))
        self._jobs.start(machine_id, self._boot(machine_id))
        return record

    async def stop(self, machine_id: str) -> MachineRecord:
        """Stop a machine; it is STOPPED on return."""
        self._store.get(MachineRecord, machine_id)
        await self._jobs.cancel(machine_id)
        async with self._lock(machine_id):
            record = self._store.get(MachineRecord, machine_id)
            await self._halt(record)
            return self._store.put(record.model_copy(update={"status": Status.STOPPED, "problem": None}))

    async def reboot(self, machine_id: str) -> MachineRecord:
        """Stop, and begin to start."""
        await self.stop(machine_id)
        return self.start(machine_id)

    async def console(self, machine_id: str) -> str:
        """What the machine printed last."""
        return await self._runtime.console(self.guest(self._store.get(MachineRecord, machine_id)))

    async def destroy(self, machine_id: str) -> None:
        """Remove a machine; its volumes are detached, addresses and load balancers do not lead to it any more."""
        self._store.get(MachineRecord, machine_id)
        self._jobs.refuse_if_held("machine", machine_id)
        await self._jobs.cancel(machine_id)
        async with self._lock(machine_id):
            record = self._store.get(MachineRecord, machine_id)
            await self._halt(record)
            await self._runtime.remove(self.guest(record))
            self._forget(record)
            self._claims.release(record.port)
            await asyncio.to_thread(self._remove_files, machine_id)
        self._locks.pop(machine_id, None)

    # --- for the rest of the cloud ---

    def resume(self) -> None:
        """Begin to start all machines that were up, or on their way, when the cloud ended."""
        known = {record.id for record in self._store.all(MachineRecord)}
        for entry in (*(self._state / "machines").iterdir(), *(self._state / "user-data").iterdir()):
            if entry.name not in known:
                self._remove_files(entry.name)
        for record in self._store.all(MachineRecord):
            if record.status in (Status.ACTIVE, Status.PENDING):
                self._store.put(record.model_copy(update={"status": Status.PENDING}))
                self._jobs.start(record.id, self._boot(record.id))

    async def halt_all(self) -> None:
        """Stop all machines, and leave them marked to be started with the cloud."""
        await asyncio.gather(*(self._halt(record) for record in self._store.all(MachineRecord)))

    def guest(self, record: MachineRecord) -> Guest:
        """The machine as its runtime sees it."""
        size = self._size(record.size)
        volumes = [self._store.get(VolumeRecord, volume) for volume in record.volumes]
        return Guest(
            id=record.id,
            directory=self._state / "machines" / record.id,
            port=record.port,
            cores=size.cores if size else 1,
            memory_mib=size.memory_mib if size else 512,
            devices={v.device: self._state / "volumes" / v.id for v in volumes if v.device},
            public_key=record.public_key,
        )

    # --- inside ---

    def _lock(self, machine_id: str) -> asyncio.Lock:
        return self._locks.setdefault(machine_id, asyncio.Lock())

    def _size(self, name: str) -> Size | None:
        return next((size for size in self._config.sizes if size.name == name), None)

    def _check(self, spec: CreateMachine) -> None:
        self._limits.check("machines")
        if not self._size(spec.size):
            raise invalid(f"there is no machine size {spec.size!r}")
        image = self._store.get(ImageRecord, spec.image)
        if image.status is not Status.ACTIVE:
            raise conflict(f"image {image.id} is {image.status}, not active")
        if image.format not in self._runtime.formats:
            raise invalid(f"this cloud's machines do not start from {image.format} images")
        for group in spec.security_groups:
            self._store.get(SecurityGroupRecord, group)
        devices = [attachment.device for attachment in spec.volumes]
        if len(set(devices)) < len(devices) or len({a.volume for a in spec.volumes}) < len(devices):
            raise invalid("every volume needs a device of its own")
        for attachment in spec.volumes:
            check_attachable(self._store, self._jobs, attachment.volume, attachment.device)

    def _keep_user_data(self, machine_id: str, user_data: StoredUserData | None) -> None:
        """The disk may have to be made after a crash: until then, what goes onto it is kept in a file."""
        if user_data is None:
            return
        file = self._state / "user-data" / machine_id
        with file.open("xb") as opened:
            opened.write(user_data.model_dump_json().encode())
            os.fsync(opened.fileno())

    async def _boot(self, machine_id: str) -> None:
        async with self._lock(machine_id):
            record = self._store.get(MachineRecord, machine_id)
            try:
                if not record.built:
                    record = await self._build(record)
                await self._runtime.start(self.guest(record), lambda problem: self._ended(machine_id, problem))
            except GuestFailed as error:
                await self._runtime.stop(self.guest(record), 0)
                self._store.put(record.model_copy(update={"status": Status.ERROR, "problem": str(error)}))
                self._log.warning("a machine did not start", machine=machine_id)
            else:
                update = {"status": Status.ACTIVE, "problem": None, "confinement": self._runtime.confinement}
                self._store.put(record.model_copy(update=update))
                self._meters.machine_started(machine_id, record.size)
                self._log.info("a machine is up", machine=machine_id, port=record.port)

    async def _build(self, record: MachineRecord) -> MachineRecord:
        image = self._store.find(ImageRecord, record.image or "")
        if image is None:
            raise GuestFailed(f"image {record.image} was removed before the machine was made")
        guest = self.guest(record)
        await asyncio.to_thread(shutil.rmtree, guest.directory, ignore_errors=True)
        guest.directory.mkdir(mode=0o700)
        file = self._state / "user-data" / record.id
        user_data = StoredUserData.model_validate_json(file.read_bytes()) if file.exists() else None
        await self._runtime.create(guest, self._state / "images" / image.id, image.format, user_data)
        record = self._store.put(record.model_copy(update={"built": True}))
        file.unlink(missing_ok=True)
        return record

    def _ended(self, machine_id: str, problem: str | None) -> None:
        """A machine that was up has ended by itself."""
        record = self._store.find(MachineRecord, machine_id)
        if record is None:
            return
        status = Status.ERROR if problem else Status.STOPPED
        self._store.put(record.model_copy(update={"status": status, "problem": problem}))
        self._not_up(record)

    async def _halt(self, record: MachineRecord) -> None:
        await self._runtime.stop(self.guest(record), GRACE)
        self._not_up(record)

    def _not_up(self, record: MachineRecord) -> None:
        self._meters.ended(record.id)
        self._left(record.id)
        for volume in record.volumes:
            # A file grows when it is written past its end, which a device would refuse: back to the size sold.
            size = self._store.get(VolumeRecord, volume).size_mib * MIB
            file = self._state / "volumes" / volume
            if file.exists() and file.stat().st_size != size:
                os.truncate(file, size)

    def _forget(self, record: MachineRecord) -> None:
        with self._store.together():
            for volume in record.volumes:
                detached = {"status": Status.ACTIVE, "machine": None, "device": None}
                self._store.put(self._store.get(VolumeRecord, volume).model_copy(update=detached))
            for address in self._store.all(AddressRecord):
                if address.machine == record.id:
                    self._store.put(address.model_copy(update={"machine": None}))
            for balancer in self._store.all(LoadBalancerRecord):
                left = tuple(machine for machine in balancer.machines if machine != record.id)
                self._store.put(balancer.model_copy(update={"machines": left}))
            self._store.remove(record)

    def _remove_files(self, machine_id: str) -> None:
        shutil.rmtree(self._state / "machines" / machine_id, ignore_errors=True)
        (self._state / "user-data" / machine_id).unlink(missing_ok=True)


def ports_taken(store: Store) -> set[int]:
    """The ports that the cloud's machines and addresses have, up or not."""
    machines = {record.port for record in store.all(MachineRecord)}
    return machines | {record.port for record in store.all(AddressRecord)}


def check_copyable(store: Store, volume_id: str) -> VolumeRecord:
    """The volume, if nobody writes to it: it is detached, or its machine is off. The API's error otherwise."""
    volume = store.get(VolumeRecord, volume_id)
    if volume.status not in (Status.ACTIVE, Status.ATTACHED):
        raise conflict(f"volume {volume_id} is {volume.status}, not active")
    if volume.machine:
        machine = store.get(MachineRecord, volume.machine)
        if machine.status in (Status.ACTIVE, Status.PENDING):
            raise conflict(f"machine {machine.id} is {machine.status}, not stopped")
    return volume


def check_attachable(store: Store, jobs: Jobs, volume_id: str, device: str) -> VolumeRecord:
    """The volume, if it can be attached as the device; one of the API's errors otherwise."""
    volume = store.get(VolumeRecord, volume_id)
    jobs.refuse_if_held("volume", volume_id)
    if volume.status is not Status.ACTIVE:
        raise conflict(f"volume {volume_id} is {volume.status}, not active")
    if len(device) > 255 or device.startswith("tmp/"):
        raise invalid(f"{device!r} cannot be a device")
    return volume
