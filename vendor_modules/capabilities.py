"""The optional abilities of a provider, each a small class to inherit from. What a module can do is found by what it
inherits: :func:`capabilities`, never by a list kept by hand.

Whatever kind of resource a capability creates, it can list and destroy: :func:`inventory`, :func:`destroy` and
:func:`release` work on any module.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from datetime import datetime
from inspect import isfunction
from typing import Any

from descriptors.deployment import Kind
from vendor_modules.abilities import UNSUPPORTED, Ability, Support
from vendor_modules.errors import NotFound, Unsupported
from vendor_modules.module import Content, VendorModule
from vendor_modules.resources import (
    AccessKey,
    Address,
    Bucket,
    Image,
    ImageSpec,
    Key,
    KeyPair,
    LoadBalancer,
    Machine,
    Network,
    Quota,
    Resource,
    Rule,
    SecurityGroup,
    Snapshot,
    Status,
    StoredObject,
    Usage,
    Volume,
    VolumeSpec,
)


class Power(VendorModule):
    """Start, stop and reboot machines."""

    async def start_machine(self, machine_id: str) -> Machine:
        """Start a stopped machine; returns when it is ACTIVE. Started already is fine."""
        await self._call("start machine", lambda: self._start_machine(machine_id))
        return await self.wait_for_machine(machine_id, Status.ACTIVE)

    async def stop_machine(self, machine_id: str) -> Machine:
        """Ask the machine to end, then make it; returns when it is STOPPED. Stopped already is fine."""
        await self._call("stop machine", lambda: self._stop_machine(machine_id))
        return await self.wait_for_machine(machine_id, Status.STOPPED)

    async def reboot_machine(self, machine_id: str) -> Machine:
        """Stop and start; returns when it is ACTIVE."""
        await self.stop_machine(machine_id)
        return await self.start_machine(machine_id)

    @abstractmethod
    async def _start_machine(self, machine_id: str) -> None: ...

    @abstractmethod
    async def _stop_machine(self, machine_id: str) -> None: ...


class FirstBoot(VendorModule):
    """Machines do at their first boot what ``MachineSpec.user_data`` says: its files are written, its service is
    installed and started. See :mod:`vendor_modules.userdata`."""

    honours = ("user_data",)


class Endpoints(FirstBoot):
    """The service of an ACTIVE machine answers the agency at the machine's ``host`` and ``port``."""


class Volumes(VendorModule):
    """Block volumes, attached to a machine at its creation."""

    honours = ("volumes",)

    async def create_volume(self, spec: VolumeSpec, *, key: Key) -> Volume:
        """Create a volume; returns when it can be attached."""
        for source, kind, capability in ((spec.image, "images", VolumeBundle), (spec.snapshot, "snapshots", Snapshots)):
            if source and not isinstance(self, capability):
                words = f"volumes cannot be made from {kind}"
                raise Unsupported(words, vendor=self.vendor, operation="create volume")
        created = await self._create("volume", key, lambda: self._create_volume(spec, key))
        return await self._settle("volume", lambda: self._describe_volume(created.id), Status.ACTIVE)

    async def describe_volume(self, volume_id: str) -> Volume:
        """The volume as it is now."""
        return await self._call("describe volume", lambda: self._describe_volume(volume_id))

    async def list_volumes(self) -> list[Volume]:
        """All volumes of the account."""
        return await self._call("list volumes", self._list_volumes)

    async def destroy_volume(self, volume_id: str) -> None:
        """Remove the volume; :class:`~vendor_modules.errors.Conflict` while it is attached."""
        await self._destroy("volume", volume_id, self._destroy_volume, self._describe_volume)

    @abstractmethod
    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume: ...

    @abstractmethod
    async def _describe_volume(self, volume_id: str) -> Volume: ...

    @abstractmethod
    async def _list_volumes(self) -> list[Volume]: ...

    @abstractmethod
    async def _destroy_volume(self, volume_id: str) -> None: ...


class Attachments(Volumes):
    """Attach volumes to machines that exist, and detach them."""

    async def attach_volume(self, volume_id: str, machine_id: str, device: str) -> Volume:
        """Attach; returns when it is ATTACHED. Attached already to that machine and device is fine."""
        await self._call("attach volume", lambda: self._attach_volume(volume_id, machine_id, device))
        return await self._settle("volume", lambda: self._describe_volume(volume_id), Status.ATTACHED)

    async def detach_volume(self, volume_id: str) -> Volume:
        """Detach; returns when it is ACTIVE. Detached already is fine."""
        await self._call("detach volume", lambda: self._detach_volume(volume_id))
        return await self._settle("volume", lambda: self._describe_volume(volume_id), Status.ACTIVE)

    @abstractmethod
    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None: ...

    @abstractmethod
    async def _detach_volume(self, volume_id: str) -> None: ...


class Images(VendorModule):
    """The image catalogue: list, describe, delete."""

    async def describe_image(self, image_id: str) -> Image:
        """The image as it is now."""
        return await self._call("describe image", lambda: self._describe_image(image_id))

    async def list_images(self) -> list[Image]:
        """All images that the account can use, public ones among them."""
        return await self._call("list images", self._list_images)

    async def destroy_image(self, image_id: str) -> None:
        """Remove an image of the account's own."""
        await self._destroy("image", image_id, self._destroy_image, self._describe_image)

    @abstractmethod
    async def _describe_image(self, image_id: str) -> Image: ...

    @abstractmethod
    async def _list_images(self) -> list[Image]: ...

    @abstractmethod
    async def _destroy_image(self, image_id: str) -> None: ...


class ImageUpload(Images):
    """Bring images in."""

    async def upload_image(self, spec: ImageSpec, content: Content, *, key: Key) -> Image:
        """Upload an image; returns when it is ACTIVE, its size and digest those of ``spec``."""
        created = await self._create("image", key, lambda: self._upload_image(spec, content, key), limited=False)
        return await self._settle("image", lambda: self._describe_image(created.id), Status.ACTIVE)

    @abstractmethod
    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image: ...


class ImageDownload(Images):
    """Take images out."""

    def download_image(self, image_id: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The image's bytes from ``offset`` on, in chunks of at most a few MiB. A broken transfer raises
        :class:`~vendor_modules.errors.Unavailable`: go on from the offset reached."""
        return self._mapped_stream("download image", self._download_image(image_id, offset))

    @abstractmethod
    def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]: ...


class MachineBundle(Images):
    """Make an image of a machine's own disk."""

    async def bundle_machine(self, machine_id: str, name: str, *, key: Key) -> Image:
        """An image of a stopped machine, without its volumes; returns when it is ACTIVE."""
        created = await self._create("image", key, lambda: self._bundle_machine(machine_id, name, key))
        return await self._settle("image", lambda: self._describe_image(created.id), Status.ACTIVE)

    @abstractmethod
    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image: ...


class VolumeBundle(Images, Volumes):
    """Make a RAW image of a volume, and volumes from RAW images (``VolumeSpec.image``)."""

    async def bundle_volume(self, volume_id: str, name: str, *, key: Key) -> Image:
        """An image of a volume that is detached or whose machine is stopped; returns when it is ACTIVE."""
        created = await self._create("image", key, lambda: self._bundle_volume(volume_id, name, key))
        return await self._settle("image", lambda: self._describe_image(created.id), Status.ACTIVE)

    @abstractmethod
    async def _bundle_volume(self, volume_id: str, name: str, key: Key) -> Image: ...


class Snapshots(Volumes):
    """Snapshots of volumes, and volumes from them (``VolumeSpec.snapshot``)."""

    async def create_snapshot(self, volume_id: str, name: str, *, key: Key) -> Snapshot:
        """The volume's content now; returns when a volume can be made from it. It does not change with the volume."""
        created = await self._create("snapshot", key, lambda: self._create_snapshot(volume_id, name, key))
        return await self._settle("snapshot", lambda: self._describe_snapshot(created.id), Status.ACTIVE)

    async def describe_snapshot(self, snapshot_id: str) -> Snapshot:
        """The snapshot as it is now."""
        return await self._call("describe snapshot", lambda: self._describe_snapshot(snapshot_id))

    async def list_snapshots(self) -> list[Snapshot]:
        """All snapshots of the account's volumes."""
        return await self._call("list snapshots", self._list_snapshots)

    async def destroy_snapshot(self, snapshot_id: str) -> None:
        """Remove the snapshot; volumes made from it stay."""
        await self._destroy("snapshot", snapshot_id, self._destroy_snapshot, self._describe_snapshot)

    @abstractmethod
    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot: ...

    @abstractmethod
    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot: ...

    @abstractmethod
    async def _list_snapshots(self) -> list[Snapshot]: ...

    @abstractmethod
    async def _destroy_snapshot(self, snapshot_id: str) -> None: ...


class KeyPairs(VendorModule):
    """SSH public keys, for machines to be made with (``MachineSpec.key_pair``)."""

    honours = ("key_pair",)

    async def create_key_pair(self, name: str, public_key: str, *, key: Key) -> KeyPair:
        """Make a public key (OpenSSH form) known to the provider."""
        return await self._create("key-pair", key, lambda: self._create_key_pair(name, public_key, key))

    async def describe_key_pair(self, key_pair_id: str) -> KeyPair:
        """The key pair as it is now."""
        return await self._call("describe key pair", lambda: self._describe_key_pair(key_pair_id))

    async def list_key_pairs(self) -> list[KeyPair]:
        """All key pairs of the account."""
        return await self._call("list key pairs", self._list_key_pairs)

    async def destroy_key_pair(self, key_pair_id: str) -> None:
        """Remove the key pair; machines that have it keep it."""
        await self._destroy("key-pair", key_pair_id, self._destroy_key_pair, self._describe_key_pair)

    @abstractmethod
    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair: ...

    @abstractmethod
    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair: ...

    @abstractmethod
    async def _list_key_pairs(self) -> list[KeyPair]: ...

    @abstractmethod
    async def _destroy_key_pair(self, key_pair_id: str) -> None: ...


class SecurityGroups(VendorModule):
    """Sets of ingress rules for machines (``MachineSpec.security_groups``)."""

    honours = ("security_groups",)

    async def create_security_group(self, name: str, rules: Sequence[Rule], *, key: Key) -> SecurityGroup:
        """Create a group with these rules; whatever no rule allows is refused."""
        return await self._create("security-group", key, lambda: self._create_security_group(name, tuple(rules), key))

    async def describe_security_group(self, group_id: str) -> SecurityGroup:
        """The group as it is now."""
        return await self._call("describe security group", lambda: self._describe_security_group(group_id))

    async def list_security_groups(self) -> list[SecurityGroup]:
        """All groups of the account."""
        return await self._call("list security groups", self._list_security_groups)

    async def destroy_security_group(self, group_id: str) -> None:
        """Remove the group; :class:`~vendor_modules.errors.Conflict` while a machine uses it."""
        await self._destroy("security-group", group_id, self._destroy_security_group, self._describe_security_group)

    @abstractmethod
    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup: ...

    @abstractmethod
    async def _describe_security_group(self, group_id: str) -> SecurityGroup: ...

    @abstractmethod
    async def _list_security_groups(self) -> list[SecurityGroup]: ...

    @abstractmethod
    async def _destroy_security_group(self, group_id: str) -> None: ...


class Addresses(VendorModule):
    """Public addresses (floating, elastic)."""

    async def create_address(self, name: str, *, key: Key) -> Address:
        """Reserve an address."""
        return await self._create("address", key, lambda: self._create_address(name, key))

    async def describe_address(self, address_id: str) -> Address:
        """The address as it is now."""
        return await self._call("describe address", lambda: self._describe_address(address_id))

    async def list_addresses(self) -> list[Address]:
        """All addresses of the account."""
        return await self._call("list addresses", self._list_addresses)

    async def associate_address(self, address_id: str, machine_id: str | None) -> Address:
        """Lead the address to a machine, or with None to nowhere: connections are then refused and open ones cut."""
        await self._call("associate address", lambda: self._associate_address(address_id, machine_id))
        return await self.describe_address(address_id)

    async def destroy_address(self, address_id: str) -> None:
        """Give the address back."""
        await self._destroy("address", address_id, self._destroy_address, self._describe_address)

    @abstractmethod
    async def _create_address(self, name: str, key: Key) -> Address: ...

    @abstractmethod
    async def _describe_address(self, address_id: str) -> Address: ...

    @abstractmethod
    async def _list_addresses(self) -> list[Address]: ...

    @abstractmethod
    async def _associate_address(self, address_id: str, machine_id: str | None) -> None: ...

    @abstractmethod
    async def _destroy_address(self, address_id: str) -> None: ...


class Networks(VendorModule):
    """Private networks for machines (``MachineSpec.networks``)."""

    honours = ("networks",)

    async def create_network(self, name: str, cidr: str, *, key: Key) -> Network:
        """Create a network with that range of IPv4 addresses; returns when machines can be made in it."""
        created = await self._create("network", key, lambda: self._create_network(name, cidr, key))
        return await self._settle("network", lambda: self._describe_network(created.id), Status.ACTIVE)

    async def describe_network(self, network_id: str) -> Network:
        """The network as it is now."""
        return await self._call("describe network", lambda: self._describe_network(network_id))

    async def list_networks(self) -> list[Network]:
        """All networks of the account."""
        return await self._call("list networks", self._list_networks)

    async def destroy_network(self, network_id: str) -> None:
        """Remove the network; :class:`~vendor_modules.errors.Conflict` while a machine is in it."""
        await self._destroy("network", network_id, self._destroy_network, self._describe_network)

    @abstractmethod
    async def _create_network(self, name: str, cidr: str, key: Key) -> Network: ...

    @abstractmethod
    async def _describe_network(self, network_id: str) -> Network: ...

    @abstractmethod
    async def _list_networks(self) -> list[Network]: ...

    @abstractmethod
    async def _destroy_network(self, network_id: str) -> None: ...


class LoadBalancers(VendorModule):
    """Load balancers for TCP services."""

    async def create_load_balancer(self, name: str, port: int, machines: Sequence[str], *, key: Key) -> LoadBalancer:
        """Share out the connections to ``port`` among these machines' services; returns when it is ACTIVE."""
        created = await self._create(
            "load-balancer", key, lambda: self._create_load_balancer(name, port, tuple(machines), key)
        )
        return await self._settle("load-balancer", lambda: self._describe_load_balancer(created.id), Status.ACTIVE)

    async def describe_load_balancer(self, balancer_id: str) -> LoadBalancer:
        """The load balancer as it is now."""
        return await self._call("describe load balancer", lambda: self._describe_load_balancer(balancer_id))

    async def list_load_balancers(self) -> list[LoadBalancer]:
        """All load balancers of the account."""
        return await self._call("list load balancers", self._list_load_balancers)

    async def balance(self, balancer_id: str, machines: Sequence[str]) -> LoadBalancer:
        """Share out among these machines from now on, and no others."""
        await self._call("balance", lambda: self._balance(balancer_id, tuple(machines)))
        return await self.describe_load_balancer(balancer_id)

    async def destroy_load_balancer(self, balancer_id: str) -> None:
        """Remove the load balancer; its machines stay."""
        await self._destroy("load-balancer", balancer_id, self._destroy_load_balancer, self._describe_load_balancer)

    @abstractmethod
    async def _create_load_balancer(
        self, name: str, port: int, machines: tuple[str, ...], key: Key
    ) -> LoadBalancer: ...

    @abstractmethod
    async def _describe_load_balancer(self, balancer_id: str) -> LoadBalancer: ...

    @abstractmethod
    async def _list_load_balancers(self) -> list[LoadBalancer]: ...

    @abstractmethod
    async def _balance(self, balancer_id: str, machines: tuple[str, ...]) -> None: ...

    @abstractmethod
    async def _destroy_load_balancer(self, balancer_id: str) -> None: ...


class ObjectStorage(VendorModule):
    """Buckets of an object store."""

    async def create_bucket(self, name: str, *, key: Key) -> Bucket:
        """Create an empty bucket."""
        return await self._create("bucket", key, lambda: self._create_bucket(name, key))

    async def describe_bucket(self, bucket_id: str) -> Bucket:
        """The bucket as it is now."""
        return await self._call("describe bucket", lambda: self._describe_bucket(bucket_id))

    async def list_buckets(self) -> list[Bucket]:
        """All buckets of the account."""
        return await self._call("list buckets", self._list_buckets)

    async def destroy_bucket(self, bucket_id: str) -> None:
        """Remove the bucket with everything in it."""
        await self._destroy("bucket", bucket_id, self._destroy_bucket, self._describe_bucket)

    @abstractmethod
    async def _create_bucket(self, name: str, key: Key) -> Bucket: ...

    @abstractmethod
    async def _describe_bucket(self, bucket_id: str) -> Bucket: ...

    @abstractmethod
    async def _list_buckets(self) -> list[Bucket]: ...

    @abstractmethod
    async def _destroy_bucket(self, bucket_id: str) -> None: ...


class Objects(ObjectStorage):
    """Read and write the objects in buckets, with the account's own credentials."""

    async def list_objects(self, bucket_id: str, *, prefix: str = "") -> list[StoredObject]:
        """All objects whose names begin with ``prefix``, ordered by name (code points)."""
        return await self._call("list objects", lambda: self._list_objects(bucket_id, prefix))

    async def put_object(self, bucket_id: str, name: str, content: Content, *, size: int) -> None:
        """Store an object of ``size`` bytes, whole or not at all, in place of any of the same name."""
        await self._call("put object", lambda: self._put_object(bucket_id, name, content, size), limited=False)

    def get_object(self, bucket_id: str, name: str, *, offset: int = 0) -> AsyncIterator[bytes]:
        """The object's bytes from ``offset`` on, in chunks of at most a few MiB. A broken transfer raises
        :class:`~vendor_modules.errors.Unavailable`: go on from the offset reached."""
        return self._mapped_stream("get object", self._get_object(bucket_id, name, offset))

    async def delete_object(self, bucket_id: str, name: str) -> None:
        """Remove an object; gone already is fine."""
        with suppress(NotFound):
            await self._call("delete object", lambda: self._delete_object(bucket_id, name))

    @abstractmethod
    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]: ...

    @abstractmethod
    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None: ...

    @abstractmethod
    def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]: ...

    @abstractmethod
    async def _delete_object(self, bucket_id: str, name: str) -> None: ...


class AccessKeys(ObjectStorage):
    """Keys to single buckets, with which applications read and write objects over HTTP."""

    async def create_access_key(self, bucket_id: str, *, internal: bool, key: Key) -> AccessKey:
        """Make a key to the bucket. Calling again with the same ``key`` returns it with its secret."""
        return await self._create("access-key", key, lambda: self._create_access_key(bucket_id, internal, key))

    async def describe_access_key(self, key_id: str) -> AccessKey:
        """The key as it is now, with its secret."""
        return await self._call("describe access key", lambda: self._describe_access_key(key_id))

    async def list_access_keys(self) -> list[AccessKey]:
        """All access keys of the account."""
        return await self._call("list access keys", self._list_access_keys)

    async def destroy_access_key(self, key_id: str) -> None:
        """Revoke the key: it stops working at once."""
        await self._destroy("access-key", key_id, self._destroy_access_key, self._describe_access_key)

    @abstractmethod
    async def _create_access_key(self, bucket_id: str, internal: bool, key: Key) -> AccessKey: ...

    @abstractmethod
    async def _describe_access_key(self, key_id: str) -> AccessKey: ...

    @abstractmethod
    async def _list_access_keys(self) -> list[AccessKey]: ...

    @abstractmethod
    async def _destroy_access_key(self, key_id: str) -> None: ...


class Quotas(VendorModule):
    """The account's limits."""

    async def quotas(self) -> list[Quota]:
        """The limits, and how much of each is used."""
        return await self._call("read quotas", self._quotas)

    @abstractmethod
    async def _quotas(self) -> list[Quota]: ...


class UsageReports(VendorModule):
    """What was used, and what it cost."""

    async def usage(self, since: datetime | None = None) -> list[Usage]:
        """Usage records that had not ended before ``since``."""
        return await self._call("read usage", lambda: self._usage(since))

    @abstractmethod
    async def _usage(self, since: datetime | None) -> list[Usage]: ...


class Consoles(VendorModule):
    """Machines' console output."""

    async def console(self, machine_id: str) -> str:
        """The last 64 KiB or so that the machine printed."""
        return await self._call("read the console", lambda: self._console(machine_id))

    @abstractmethod
    async def _console(self, machine_id: str) -> str: ...


CAPABILITIES: dict[str, type[VendorModule]] = {
    "machines": VendorModule,
    "power": Power,
    "first-boot": FirstBoot,
    "endpoints": Endpoints,
    "consoles": Consoles,
    "volumes": Volumes,
    "attach-detach": Attachments,
    "snapshots": Snapshots,
    "image-list": Images,
    "image-upload": ImageUpload,
    "image-download": ImageDownload,
    "machine-bundle": MachineBundle,
    "volume-bundle": VolumeBundle,
    "key-pairs": KeyPairs,
    "security-groups": SecurityGroups,
    "addresses": Addresses,
    "networks": Networks,
    "load-balancers": LoadBalancers,
    "object-storage": ObjectStorage,
    "objects": Objects,
    "access-keys": AccessKeys,
    "usage-reports": UsageReports,
    "quotas": Quotas,
}
"""The vocabulary of capabilities, in the order the matrix shows them."""


def capabilities(module: type[VendorModule]) -> list[str]:
    """The names of the capabilities that the class implements."""
    return [name for name, capability in CAPABILITIES.items() if issubclass(module, capability)]


OPERATIONS: dict[str, tuple[str, ...]] = {
    name: tuple(method for method, value in vars(capability).items() if isfunction(value) and method[0] != "_")
    for name, capability in CAPABILITIES.items()
}
"""The operations of each capability: its public methods."""


def abilities(module: type[VendorModule]) -> dict[str, Ability]:
    """How the class does each operation there is, by the operation's name."""
    able = set(capabilities(module))
    found = {}
    for capability, operations in OPERATIONS.items():
        for operation in operations:
            implemented = Ability() if capability in able else UNSUPPORTED
            found[operation] = module.abilities.get(operation, implemented)
    if "volumes" in able and "attach-detach" not in able and "attach_volume" not in module.abilities:
        found["attach_volume"] = Ability(Support.ON_CREATION)
    return found


_KINDS: dict[Kind, tuple[str, str, str]] = {
    # kind: capability, the method that lists, the method that destroys. In the order in which things can be let go.
    "address": ("addresses", "list_addresses", "destroy_address"),
    "load-balancer": ("load-balancers", "list_load_balancers", "destroy_load_balancer"),
    "machine": ("machines", "list_machines", "destroy_machine"),
    "snapshot": ("snapshots", "list_snapshots", "destroy_snapshot"),
    "volume": ("volumes", "list_volumes", "destroy_volume"),
    "image": ("image-list", "list_images", "destroy_image"),
    "access-key": ("access-keys", "list_access_keys", "destroy_access_key"),
    "bucket": ("object-storage", "list_buckets", "destroy_bucket"),
    "security-group": ("security-groups", "list_security_groups", "destroy_security_group"),
    "network": ("networks", "list_networks", "destroy_network"),
    "key-pair": ("key-pairs", "list_key_pairs", "destroy_key_pair"),
}


RELEASE_ORDER: tuple[Kind, ...] = tuple(_KINDS)
"""Kinds of resource in the order in which they can be let go."""


def _method(module: VendorModule, kind: Kind, which: int) -> Callable[..., Awaitable[Any]]:
    capability = _KINDS[kind][0]
    if not isinstance(module, CAPABILITIES[capability]):
        raise Unsupported(f"has no {capability}", vendor=module.vendor, operation=f"handle {kind}")
    method: Callable[..., Awaitable[Any]] = getattr(module, _KINDS[kind][which])
    return method


async def inventory(module: VendorModule, kinds: Collection[Kind] = RELEASE_ORDER) -> list[tuple[Kind, Resource]]:
    """Everything of these kinds that the account holds at the provider, public images apart, in the order in which it
    can be let go. A service that the provider lacks holds nothing."""
    held: list[tuple[Kind, Resource]] = []
    for kind, (capability, *_) in _KINDS.items():
        if kind in kinds and isinstance(module, CAPABILITIES[capability]):
            with suppress(Unsupported):
                found = await _method(module, kind, 1)()
                held += [(kind, resource) for resource in found if not getattr(resource, "public", False)]
    return held


async def destroy(module: VendorModule, kind: Kind, resource_id: str) -> None:
    """Destroy a resource of any kind."""
    await _method(module, kind, 2)(resource_id)


async def release(module: VendorModule, kind: Kind, key: Key) -> int:
    """Destroy whatever was created with that idempotency key, recorded or not; returns how many there were."""
    found = [resource for resource in await _method(module, kind, 1)() if resource.key == key]
    for resource in found:
        await destroy(module, kind, resource.id)
    return len(found)
