"""Resource classes: what an application needs, before anybody has offered it.

The types are those of mOSAIC's Cloud Agency (COMPUTE, STORAGE, NETWORK, LOAD_BALANCER, MAP_REDUCE, CLUSTER). A resource
class is identified by its name and type; once provisioned it is tied to a provider and an agreement.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Literal, Self

from pydantic import Field, model_validator
from pydantic_xml import attr

from descriptors.base import Element, Identifier, Mebibytes, Name, Printable


class ResourceType(StrEnum):
    """The six resource types of the Cloud Agency."""

    COMPUTE = "COMPUTE"
    STORAGE = "STORAGE"
    NETWORK = "NETWORK"
    LOAD_BALANCER = "LOAD_BALANCER"
    MAP_REDUCE = "MAP_REDUCE"
    CLUSTER = "CLUSTER"


_MACHINES = frozenset({ResourceType.COMPUTE, ResourceType.CLUSTER, ResourceType.MAP_REDUCE})
_ALLOWED = {
    "cores": _MACHINES,
    "memory_mib": _MACHINES,
    "nodes": frozenset({ResourceType.CLUSTER, ResourceType.MAP_REDUCE}),
    "kind": frozenset({ResourceType.STORAGE}),
    "size_mib": frozenset({ResourceType.STORAGE}),
    "fallback": frozenset({ResourceType.STORAGE}),
}


class ResourceClass(Element, tag="resource"):
    """A class of resource, by name and type, with what it must at least offer."""

    name: Name = attr()
    type: ResourceType = attr()
    kind: Literal["block", "object"] | None = attr(default=None)
    """STORAGE only, and required there: a block volume or an object store."""
    cores: int | None = attr(default=None, gt=0, le=4096)
    memory_mib: Mebibytes | None = attr(default=None)
    size_mib: Mebibytes | None = attr(default=None)
    """Size of a block volume; an object store has none."""
    nodes: int | None = attr(default=None, gt=0, le=10_000)
    fallback: Literal["machine-disk"] | None = attr(default=None)
    """What a relocation may turn a block volume into where the target has no block storage. None: it may not."""
    provider: Name | None = attr(default=None)
    """The vendor that provides it, once provisioned."""
    agreement: Identifier | None = attr(default=None)
    """The agreement it is provided under, once provisioned."""

    @model_validator(mode="after")
    def _fits_its_type(self) -> Self:
        for field, types in _ALLOWED.items():
            if getattr(self, field) is not None and self.type not in types:
                expected = " or ".join(sorted(types))
                raise ValueError(f"resource {self.name!r}: '{field}' belongs to {expected}, not to {self.type}")
        if self.type is ResourceType.STORAGE:
            self._check_storage()
        if (self.provider is None) != (self.agreement is None):
            raise ValueError(f"resource {self.name!r}: provider and agreement come together, after provisioning")
        return self

    def _check_storage(self) -> None:
        if self.kind is None:
            raise ValueError(f"resource {self.name!r}: STORAGE needs kind='block' or kind='object'")
        if self.kind == "block" and self.size_mib is None:
            raise ValueError(f"resource {self.name!r}: block storage needs size_mib")
        if self.kind == "object" and (self.size_mib or self.fallback):
            raise ValueError(f"resource {self.name!r}: an object store has no size_mib and no fallback")


class Reason(Element, tag="reason"):
    """Why an offer or a vendor was left out, as data: what was required, what there was, and the sentence to show."""

    code: Name = attr()
    """A stable word to match on, such as ``no-block-storage`` or ``over-price-cap``."""
    resource: Name | None = attr(default=None)
    required: Printable | None = attr(default=None, max_length=255)
    offered: Printable | None = attr(default=None, max_length=255)
    message: Printable = Field(min_length=1, max_length=1024)
