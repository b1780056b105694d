"""What the cloud remembers of each resource: the words all modules share, and what only the cloud needs to know.

A record is also the API's answer, its ``private`` fields apart.
"""

from __future__ import annotations

from typing import Annotated, Any, ClassVar

from pydantic import PlainSerializer, SecretStr

from descriptors.base import Port
from descriptors.deployment import Kind
from vendor_modules.resources import (
    AccessKey,
    Address,
    Bucket,
    Image,
    KeyPair,
    LoadBalancer,
    Machine,
    Resource,
    SecurityGroup,
    Snapshot,
    Volume,
)


class Record(Resource):
    """Base of all records."""

    kind: ClassVar[Kind]
    private: ClassVar[frozenset[str]] = frozenset()
    """Fields that are not told to anybody."""

    def shown(self) -> dict[str, Any]:
        """The record as the API's answer."""
        return self.model_dump(mode="json", exclude=set(self.private))


class MachineRecord(Record, Machine):
    """A machine. One that is PENDING is on its way to ACTIVE, also when the cloud starts again."""

    kind: ClassVar[Kind] = "machine"
    private: ClassVar[frozenset[str]] = frozenset({"built", "public_key"})

    port: int
    built: bool = False
    """Whether its disk has been made from the image."""
    key_pair: str | None = None
    public_key: str | None = None
    """The key pair's: a machine keeps it when the pair is removed."""
    security_groups: tuple[str, ...] = ()
    confinement: str = ""


class VolumeRecord(Record, Volume):
    """A volume. One that is PENDING is being filled from ``image`` or ``snapshot``."""

    kind: ClassVar[Kind] = "volume"

    image: str | None = None
    snapshot: str | None = None


class SnapshotRecord(Record, Snapshot):
    """A snapshot. One that is PENDING is being copied from ``volume``, which may be gone later."""

    kind: ClassVar[Kind] = "snapshot"

    volume: str


class ImageRecord(Record, Image):
    """An image. One that is PENDING waits for its upload, or is being made from ``source``."""

    kind: ClassVar[Kind] = "image"

    source: tuple[Kind, str] | None = None
    problem: str | None = None


class AddressRecord(Record, Address):
    """A public address."""

    kind: ClassVar[Kind] = "address"

    port: Port


class LoadBalancerRecord(Record, LoadBalancer):
    """A load balancer."""

    kind: ClassVar[Kind] = "load-balancer"


class BucketRecord(Record, Bucket):
    """A bucket; ``objects`` and ``bytes`` are kept up with every object stored or removed."""

    kind: ClassVar[Kind] = "bucket"


class AccessKeyRecord(Record, AccessKey):
    """An access key, with its secret: whoever holds the account may read it again."""

    kind: ClassVar[Kind] = "access-key"

    secret_key: Annotated[SecretStr, PlainSerializer(lambda secret: secret.get_secret_value(), return_type=str)]


class KeyPairRecord(Record, KeyPair):
    """A key pair."""

    kind: ClassVar[Kind] = "key-pair"


class SecurityGroupRecord(Record, SecurityGroup):
    """A security group."""

    kind: ClassVar[Kind] = "security-group"
