"""What providers hold, in the words all modules share. Immutable values: a snapshot, never a handle."""

from __future__ import annotations

from datetime import date
from decimal import Decimal
from enum import StrEnum
from typing import Annotated

from pydantic import AwareDatetime, BaseModel, ConfigDict, Field, SecretStr

from descriptors.base import Currency, Digest, Identifier, Mebibytes, Port
from descriptors.deployment import Kind
from descriptors.machine import MachineManifest
from descriptors.sla import GuaranteeTerm

ResourceName = Annotated[str, Field(min_length=1, max_length=255)]
ObjectName = Annotated[str, Field(min_length=1, max_length=1024)]
Key = Identifier
"""An idempotency key: the same key and kind give the same resource, however often the call is made."""


class Value(BaseModel):
    """Base of all values here."""

    model_config = ConfigDict(frozen=True, extra="forbid")


class Status(StrEnum):
    """The states of a resource. Providers' own are mapped to these."""

    PENDING = "pending"
    ACTIVE = "active"
    STOPPED = "stopped"
    ATTACHED = "attached"
    ERROR = "error"


class DiskFormat(StrEnum):
    """How an image's bytes are laid out."""

    BUNDLE = "bundle"
    """A tar archive of a machine's working directory with its manifest: :mod:`descriptors.machine`."""
    RAW = "raw"
    QCOW2 = "qcow2"
    LXD = "lxd"
    """LXD's own: a tar archive of a container's root file system with what LXD knows of it."""


class Resource(Value):
    """What every resource has. ``key`` is the idempotency key it was created with, empty for one made elsewhere."""

    id: Identifier
    name: str
    key: str = ""
    status: Status


class Image(Resource):
    """A disk image in the provider's catalogue. ``size`` is in bytes, 0 when not known; ``digest`` is BLAKE3 of the
    content where the provider tells it."""

    format: DiskFormat
    size: int = 0
    digest: str | None = None
    public: bool = False


class Machine(Resource):
    """A machine. ``host`` and ``port`` are where its service is reached inside the provider's network, and by the
    agency, whatever the public addresses and ingress rules say; ``problem`` is why its status is ERROR."""

    size: str
    image: str | None = None
    host: str | None = None
    port: int | None = None
    volumes: tuple[str, ...] = ()
    problem: str | None = None


class Volume(Resource):
    """A block volume."""

    size_mib: Mebibytes
    machine: str | None = None
    device: str | None = None


class Snapshot(Resource):
    """A volume's content at one moment, kept by the provider. ``size_mib`` is the volume's."""

    volume: str | None = None
    size_mib: Mebibytes


class Bucket(Resource):
    """An object store's container. ``objects`` and ``bytes`` are what is in it."""

    objects: int = 0
    bytes: int = 0


class StoredObject(Value):
    """An object in a bucket; ``size`` in bytes."""

    name: ObjectName
    size: Annotated[int, Field(ge=0)]


class AccessKey(Resource):
    """A key to one bucket: an *internal* one works at the endpoint inside the provider's network, where traffic is
    free; the others work at the public endpoint, where egress is metered."""

    bucket: Identifier
    internal: bool
    endpoint: str
    """Base URL; an object is at ``endpoint/KEY`` (PUT, GET, DELETE; HTTP Basic with the two keys). GET on the endpoint
    itself lists: ``{"objects": [{"key", "size"}]}``."""
    access_key: str
    secret_key: SecretStr


class KeyPair(Resource):
    """An SSH public key known to the provider."""

    public_key: str
    fingerprint: str


class Rule(Value):
    """An ingress rule: who (a CIDR) may reach which TCP port."""

    port: Port
    cidr: str = "0.0.0.0/0"


class SecurityGroup(Resource):
    """A set of ingress rules."""

    rules: tuple[Rule, ...] = ()


class Address(Resource):
    """A public address: the world connects to ``host``:``port`` and reaches the associated machine's service, as far
    as the machine's security groups allow it. Without a ``port``, the whole address leads to the machine."""

    host: str
    port: Port | None = None
    machine: str | None = None


class Network(Resource):
    """A private network for machines; ``cidr`` is its range of IPv4 addresses."""

    cidr: str


class LoadBalancer(Resource):
    """Shares out the connections to ``host``:``port`` among the services of its machines."""

    host: str
    port: Port
    machines: tuple[str, ...] = ()


class Quota(Value):
    """A limit of the account: how much of ``resource`` it may hold, and holds now. None: no limit, or not told.

    Resources are named ``machines``, ``cores``, ``memory-mib``, ``volumes``, ``volume-mib``, ``snapshots``,
    ``images``, ``buckets``, ``key-pairs``, ``security-groups``, ``addresses``, ``networks``; others as the provider
    names them.
    """

    resource: str
    limit: Annotated[int, Field(ge=0)] | None = None
    used: Annotated[int, Field(ge=0)] | None = None


class Size(Value):
    """A machine size (flavour) in the provider's catalogue. A price of None is unknown: it cannot be offered."""

    name: Identifier
    cores: int
    memory_mib: int
    price_per_hour: Decimal | None


class Usage(Value):
    """A usage record: what was used from when to when, and what it cost so far."""

    resource: Identifier
    kind: Kind
    started: AwareDatetime
    ended: AwareDatetime | None = None
    quantity: Decimal
    unit: str
    cost: Decimal
    currency: Currency


class Catalogue(Value):
    """What a provider sells and promises: from it, a proposal is made.

    ``block_gib_month`` and ``object_gib_month`` are None where there is no such service, or its price is unknown.
    ``carbon_g_per_kwh``: grams of CO2 for a kilowatt-hour of the region's power; None where it is not known.
    ``priced`` is the date of the prices; None when they were asked just now. ``lacks`` names capabilities that the
    module has and this cloud has not.
    """

    region: str
    jurisdiction: str
    currency: Currency
    sizes: tuple[Size, ...]
    block_gib_month: Decimal | None = None
    object_gib_month: Decimal | None = None
    egress_per_gib: Decimal = Decimal(0)
    carbon_g_per_kwh: Decimal | None = None
    guarantees: tuple[GuaranteeTerm, ...] = ()
    offer_validity_seconds: int = 900
    priced: date | None = None
    lacks: tuple[str, ...] = ()


class UserData(Value):
    """What a machine is told at its first boot: files to write below its working directory (path to content), and
    its manifest."""

    files: dict[str, bytes] = {}
    manifest: MachineManifest = MachineManifest()


class Attachment(Value):
    """A volume to attach at creation, and the device the machine finds it at (a path below its working directory)."""

    volume: Identifier
    device: str


class MachineSpec(Value):
    """A machine to create and start. ``image`` and ``size`` are the provider's; networks, groups and key pair are
    ids. What a module has no capability for is refused with :class:`~vendor_modules.errors.Unsupported`."""

    name: ResourceName
    image: Identifier
    size: Identifier
    user_data: UserData | None = None
    volumes: tuple[Attachment, ...] = ()
    key_pair: Identifier | None = None
    security_groups: tuple[Identifier, ...] = ()
    networks: tuple[Identifier, ...] = ()


class VolumeSpec(Value):
    """A volume to create: empty (zeros), or with the content of a RAW image or of a snapshot of the same provider."""

    name: ResourceName
    size_mib: Mebibytes
    image: Identifier | None = None
    snapshot: Identifier | None = None


class ImageSpec(Value):
    """An image to upload. ``size`` in bytes and ``digest`` (``blake3:…``) are checked by the module against what it
    sent and what the provider says it received."""

    name: ResourceName
    format: DiskFormat
    size: Annotated[int, Field(ge=0)]
    digest: Digest
