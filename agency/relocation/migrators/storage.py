"""Volumes, buckets and the keys to them."""

from __future__ import annotations

from agency.relocation.migrators.base import Creates
from agency.relocation.workshop import Run
from descriptors.relocation import Task
from vendor_modules.capabilities import AccessKeys, ObjectStorage, Volumes
from vendor_modules.resources import AccessKey, Bucket, Volume, VolumeSpec


class CreateVolume(Creates):
    """A block volume: with the content uploaded for it when there is some, else empty."""

    name = "create-volume"
    needs = Volumes
    kind = "volume"
    serves = "resource"

    async def create(self, task: Task, run: Run) -> Volume:
        """See :class:`Creates`."""
        resource = run.order.application.resource(task.subject or "")
        content = next((name for name in task.needs if name.startswith("upload-volume-")), None)
        spec = VolumeSpec(
            name=f"{run.order.application.name}-{resource.name}",
            size_mib=resource.size_mib or 1,
            image=run.created(content).id if content else None,
        )
        return await run.module(task.vendor, Volumes).create_volume(spec, key=run.key(task))


class CreateBucket(Creates):
    """An empty object store."""

    name = "create-bucket"
    needs = ObjectStorage
    kind = "bucket"
    serves = "resource"

    async def create(self, task: Task, run: Run) -> Bucket:
        """See :class:`Creates`."""
        name = f"{run.order.application.name}-{task.subject}-{run.order.id}"
        return await run.module(task.vendor, ObjectStorage).create_bucket(name, key=run.key(task))


class CreateAccessKey(Creates):
    """A key to an object store: internal for machines at the same vendor, public for machines elsewhere."""

    name = "create-access-key"
    needs = AccessKeys
    kind = "access-key"
    serves = "resource"

    async def create(self, task: Task, run: Run) -> AccessKey:
        """See :class:`Creates`."""
        bucket = next((run.created(name).id for name in task.needs if name.startswith("bucket-")), None)
        if bucket is None:
            bucket = run.order.deployment.the("bucket", resource=task.subject or "").id
        internal = task.vendor in {agreement.provider for agreement in run.order.agreements}
        module = run.module(task.vendor, AccessKeys)
        return await module.create_access_key(bucket, internal=internal, key=run.key(task))
