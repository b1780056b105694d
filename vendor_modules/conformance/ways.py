"""How resources of each kind are made and handled, whichever kind it is."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import count
from typing import Any

from descriptors.deployment import Kind
from vendor_modules.capabilities import (
    AccessKeys,
    Addresses,
    ImageUpload,
    KeyPairs,
    LoadBalancers,
    Networks,
    ObjectStorage,
    SecurityGroups,
    Snapshots,
    Volumes,
)
from vendor_modules.conformance.bench import Bench, digest, stream
from vendor_modules.module import VendorModule
from vendor_modules.resources import ImageSpec, Resource, Rule, Status, VolumeSpec

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIObJb3pMgxz3pM7Cz5NVNvnrOnvIYqyGnlFqzvGgFVlB conformance"
SERVICE_RULES = (Rule(port=8080), Rule(port=8080, cidr="::/0"))
"""Everybody may reach a test machine's service."""


@dataclass(frozen=True)
class Ways:
    """How resources of one kind are handled. ``create`` takes the bench, the module to ask, a name and a key; the same
    key always orders the same. ``named`` says whether they have names of our choice."""

    needs: type[VendorModule]
    create: Callable[[Bench, Any, str, str], Awaitable[Any]]
    named: bool = True

    def many(self, kind: Kind) -> str:
        """The kind in plural, as methods have it."""
        return f"{kind.replace('-', '_')}{'es' if kind == 'address' else 's'}"


async def _machine(bench: Bench, module: VendorModule, name: str, key: str) -> Resource:
    return await module.create_machine(await bench.machine_spec(name), key=key)


async def _volume(bench: Bench, module: Volumes, name: str, key: str) -> Resource:
    return await module.create_volume(VolumeSpec(name=name, size_mib=bench.subject.volume_mib), key=key)


async def _snapshot(bench: Bench, module: Snapshots, name: str, key: str) -> Resource:
    volume = (await bench.specimen("volume")).made
    return await module.create_snapshot(volume.id, name, key=key)


async def _image(bench: Bench, module: ImageUpload, name: str, key: str) -> Resource:
    content = bench.sample(11_000)
    spec = ImageSpec(name=name, format=bench.upload_format(), size=len(content), digest=digest(content))
    return await module.upload_image(spec, stream(content), key=key)


async def _access_key(bench: Bench, module: AccessKeys, name: str, key: str) -> Resource:
    bucket = (await bench.specimen("bucket")).made
    made = await module.create_access_key(bucket.id, internal=False, key=key)
    bench.secrets.append(made.secret_key.get_secret_value())
    return made


async def _security_group(bench: Bench, module: SecurityGroups, name: str, key: str) -> Resource:
    return await module.create_security_group(name, SERVICE_RULES, key=key)


async def _network(bench: Bench, module: Networks, name: str, key: str) -> Resource:
    return await module.create_network(name, cidr_for(key), key=key)


async def _load_balancer(bench: Bench, module: LoadBalancers, name: str, key: str) -> Resource:
    machine = await bench.machine_brought("first", Status.ACTIVE)  # an earlier check may have stopped it
    return await module.create_load_balancer(name, port_for(key), [machine.id], key=key)


_numbers = count(secrets.randbelow(1 << 15))  # what an earlier run has left seldom has the same


@cache
def _number(key: str) -> int:
    return next(_numbers)


def cidr_for(key: str) -> str:
    """A private network's range for a key: no other key of this run has it."""
    one, two = divmod(_number(key) % (1 << 15), 1 << 8)
    return f"10.{64 + one}.{two}.0/24"


def port_for(key: str) -> int:
    """A load balancer's port for a key: no other key of this run has it."""
    return 21_000 + _number(key) % 9_000


WAYS: dict[Kind, Ways] = {
    "machine": Ways(VendorModule, _machine),
    "volume": Ways(Volumes, _volume),
    "snapshot": Ways(Snapshots, _snapshot),
    "image": Ways(ImageUpload, _image),
    "bucket": Ways(ObjectStorage, lambda _, m, name, key: m.create_bucket(name, key=key)),
    "access-key": Ways(AccessKeys, _access_key, named=False),
    "key-pair": Ways(KeyPairs, lambda _, m, name, key: m.create_key_pair(name, PUBLIC_KEY, key=key)),
    "security-group": Ways(SecurityGroups, _security_group),
    "address": Ways(Addresses, lambda _, m, name, key: m.create_address(name, key=key)),
    "network": Ways(Networks, _network),
    "load-balancer": Ways(LoadBalancers, _load_balancer),
}


@dataclass(frozen=True)
class Of:
    """One kind of resource, on a bench."""

    kind: Kind
    bench: Bench

    async def create(self, word: str = "one", *, name: str | None = None, module: VendorModule | None = None) -> Any:
        """Create one; the word makes its key, and its name unless another is given."""
        return await self.order(name or word, self.bench.key(word), module)

    async def order(self, name: str, key: str, module: VendorModule | None = None) -> Any:
        """Create one with that name and key."""
        return await WAYS[self.kind].create(self.bench, module or self.bench.module, name, key)

    async def describe(self, resource_id: str) -> Any:
        """The resource as it is now."""
        return await getattr(self.bench.module, f"describe_{self.kind.replace('-', '_')}")(resource_id)

    async def list(self) -> list[Any]:
        """All of the account's."""
        found: list[Any] = await getattr(self.bench.module, f"list_{WAYS[self.kind].many(self.kind)}")()
        return found

    async def listed(self, resource_id: str) -> Sequence[Any]:
        """The entries of the list with that id, as soon as the module says that new ones are listed."""
        return await self._in_time(resource_id, there=True)

    async def still_listed(self, resource_id: str) -> Sequence[Any]:
        """The same for one that is gone, or goes as soon as the module says."""
        return await self._in_time(resource_id, there=False)

    async def _in_time(self, resource_id: str, *, there: bool) -> Sequence[Any]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self.bench.module.visible_within
        while True:
            found = [resource for resource in await self.list() if resource.id == resource_id]
            if bool(found) is there or loop.time() >= deadline:
                return found
            await asyncio.sleep(0.1)

    async def count(self, key: str) -> int:
        """How many there are with that key."""
        return sum(resource.key == key for resource in await self.list())

    async def destroy(self, resource_id: str) -> None:
        """Remove one."""
        await getattr(self.bench.module, f"destroy_{self.kind.replace('-', '_')}")(resource_id)

    @property
    def words(self) -> str:
        """The kind, as people write it."""
        return self.kind.replace("-", " ")
