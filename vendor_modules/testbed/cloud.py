"""The cloud as a whole: its parts, put together over one state directory."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import datetime
from pathlib import Path

from descriptors.base import utc_now
from vendor_modules.resources import Status
from vendor_modules.services import Log
from vendor_modules.testbed import runtimes
from vendor_modules.testbed.access import Access
from vendor_modules.testbed.balancers import LoadBalancers
from vendor_modules.testbed.config import CloudConfig, Ports
from vendor_modules.testbed.forwarding import Forwarder
from vendor_modules.testbed.images import Images
from vendor_modules.testbed.jobs import Jobs
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.machines import Machines
from vendor_modules.testbed.network import Addresses, KeyPairsAndGroups
from vendor_modules.testbed.objects import Buckets
from vendor_modules.testbed.ports import Claims
from vendor_modules.testbed.records import ImageRecord, MachineRecord, SnapshotRecord, VolumeRecord
from vendor_modules.testbed.runtimes.base import Runtime
from vendor_modules.testbed.snapshots import Snapshots
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.usage import UsageMeters
from vendor_modules.testbed.volumes import Volumes

HEARTBEAT_SECONDS = 5.0


class Cloud:
    """Everything but the HTTP. Make it with :meth:`open`."""

    def __init__(
        self, state: Path, config: CloudConfig, ports: Ports, store: Store, runtime: Runtime, log: Log
    ) -> None:
        self.config = config
        self.store = store
        self.runtime = runtime
        self.jobs = Jobs(log, self._job_failed)
        self.meters = UsageMeters(store, config)
        self.access = Access(config, store)
        self.limits = limits = Limits(config, store)
        self.forwarder = Forwarder(self.meters)
        self.keys_and_groups = KeyPairsAndGroups(store, limits)
        claims = Claims(state)
        self.addresses = Addresses(store, claims, limits, self.forwarder, log)
        self.balancers = LoadBalancers(store, limits, self.forwarder, log)
        left = self.forwarder.cut_machine
        self.machines = Machines(state, config, store, claims, limits, runtime, self.jobs, self.meters, log, left)
        self.volumes = Volumes(state, config, store, limits, self.jobs, self.meters)
        self.snapshots = Snapshots(state, config, store, limits, self.jobs, self.meters)
        self.images = Images(state, config, store, limits, runtime, self.jobs, self.meters, self.machines)
        self.buckets = Buckets(state, config, ports, store, limits, self.meters)
        self._background: list[asyncio.Task[None]] = []

    @classmethod
    async def open(cls, state: Path, config: CloudConfig, ports: Ports, store: Store, log: Log) -> Cloud:
        """Go on from where the state directory says that the cloud was."""
        cloud = cls(state, config, ports, store, await runtimes.load(config.runtime, state / "runtime"), log)
        cloud._end_usage_of_machines()
        cloud.buckets.resume()
        cloud.images.resume()
        cloud.snapshots.resume()
        cloud.volumes.resume()
        cloud.machines.resume()
        await cloud.addresses.resume()
        await cloud.balancers.resume()
        cloud._background = [asyncio.create_task(cloud.forwarder.meter()), asyncio.create_task(cloud._heartbeat())]
        return cloud

    async def close(self) -> None:
        """Stop the machines; what is in the state directory then is all that the next start needs."""
        for task in self._background:
            task.cancel()
        self.forwarder.close_all()
        await self.jobs.close()
        await self.machines.halt_all()
        with suppress(asyncio.CancelledError):
            await asyncio.gather(*self._background)
        self.store.close()

    def _job_failed(self, resource_id: str, problem: str) -> None:
        """The resource whose job failed is in error, whatever it was to become."""
        for kind in (MachineRecord, VolumeRecord, SnapshotRecord, ImageRecord):
            record = self.store.find(kind, resource_id)
            if isinstance(record, VolumeRecord | SnapshotRecord):
                self.store.put(record.model_copy(update={"status": Status.ERROR}))
            elif record is not None:
                self.store.put(record.model_copy(update={"status": Status.ERROR, "problem": problem}))

    async def _heartbeat(self) -> None:
        while True:
            self.store.set_setting("alive", utc_now().isoformat())
            await asyncio.sleep(HEARTBEAT_SECONDS)

    def _end_usage_of_machines(self) -> None:
        """Machines of a cloud that was killed ran until its last heartbeat, as far as anybody knows."""
        alive = self.store.setting("alive")
        for record in self.store.all(MachineRecord):
            self.meters.ended(record.id, datetime.fromisoformat(alive) if alive else None)
