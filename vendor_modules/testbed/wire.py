"""What goes over the wire besides the words all modules share, for the cloud's API and its Vendor Module."""

from __future__ import annotations

from base64 import b64decode, b64encode
from typing import Annotated, Any

from pydantic import AwareDatetime, BeforeValidator, Field, PlainSerializer, SecretStr

from descriptors.application import RelativePath
from descriptors.base import Identifier, Port
from vendor_modules.resources import Attachment, MachineSpec, ResourceName, Rule, UserData, Value


def _decoded(value: Any) -> Any:
    return b64decode(value, validate=True) if isinstance(value, str) else value


Base64 = Annotated[
    bytes, BeforeValidator(_decoded), PlainSerializer(lambda value: b64encode(value).decode(), return_type=str)
]
"""Bytes, as base64 in JSON."""


class StoredUserData(UserData):
    """User data whose files may hold any bytes."""

    files: Annotated[dict[RelativePath, Base64], Field(default_factory=dict, max_length=10_000)]


class AttachAs(Attachment):
    """A volume and the device it is to be."""

    device: RelativePath


class CreateMachine(MachineSpec):
    """Order a machine."""

    user_data: StoredUserData | None = None
    volumes: Annotated[tuple[AttachAs, ...], Field(max_length=64)] = ()
    security_groups: Annotated[tuple[Identifier, ...], Field(max_length=64)] = ()
    networks: Annotated[tuple[Identifier, ...], Field(max_length=0)] = ()
    """There are none."""


class Attach(Value):
    """Attach a volume to a machine."""

    machine: Identifier
    device: RelativePath


class Named(Value):
    """Create something that needs a name only."""

    name: ResourceName


class CreateKeyPair(Value):
    """Make a public key known."""

    name: ResourceName
    public_key: Annotated[str, Field(max_length=16_384)]


class CreateSecurityGroup(Value):
    """Create a group."""

    name: ResourceName
    rules: Annotated[tuple[Rule, ...], Field(max_length=256)] = ()


class Associate(Value):
    """Lead an address to a machine, or to nowhere."""

    machine: Identifier | None


Balanced = Annotated[tuple[Identifier, ...], Field(max_length=256)]
"""The machines that a load balancer shares out among."""


class CreateLoadBalancer(Value):
    """Share out the connections to a port among machines."""

    name: ResourceName
    port: Port
    machines: Balanced


class Balance(Value):
    """Share out among these machines from now on."""

    machines: Balanced


class CreateAccessKey(Value):
    """Make a key to a bucket."""

    internal: bool


class Console(Value):
    """What a machine printed last."""

    output: str


class Login(Value):
    """Ask for a token."""

    username: Annotated[str, Field(max_length=255)]
    password: Annotated[SecretStr, Field(max_length=1024)]


class Token(Value):
    """What everything else is asked with."""

    token: str
    expires_at: AwareDatetime
