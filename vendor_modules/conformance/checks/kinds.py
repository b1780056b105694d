"""What must hold for every kind of resource alike: made once, found, told apart, and gone when destroyed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from descriptors.deployment import Kind
from vendor_modules.capabilities import (
    RELEASE_ORDER,
    AccessKeys,
    Addresses,
    ImageUpload,
    KeyPairs,
    ObjectStorage,
    SecurityGroups,
    Volumes,
    release,
)
from vendor_modules.conformance.bench import Bench, digest, expect, find, refused, stream
from vendor_modules.conformance.registry import check
from vendor_modules.errors import NotFound
from vendor_modules.module import VendorModule
from vendor_modules.resources import DiskFormat, ImageSpec, Resource, Rule, VolumeSpec

PUBLIC_KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIObJb3pMgxz3pM7Cz5NVNvnrOnvIYqyGnlFqzvGgFVlB conformance"
_CONTENT = b"conformance" * 1000


@dataclass(frozen=True)
class Ways:
    """How resources of one kind are handled. ``create`` takes the bench, the module to ask, a name and a key."""

    needs: type[VendorModule]
    create: Callable[[Bench, Any, str, str], Awaitable[Any]]

    def many(self, kind: Kind) -> str:
        """The kind in plural, as methods have it."""
        return f"{kind.replace('-', '_')}{'es' if kind == 'address' else 's'}"


async def _machine(bench: Bench, module: VendorModule, name: str, key: str) -> Resource:
    return await module.create_machine(await bench.machine_spec(name), key=key)


async def _image(bench: Bench, module: ImageUpload, name: str, key: str) -> Resource:
    spec = ImageSpec(name=name, format=DiskFormat.RAW, size=len(_CONTENT), digest=digest(_CONTENT))
    return await module.upload_image(spec, stream(_CONTENT), key=key)


async def _access_key(bench: Bench, module: AccessKeys, name: str, key: str) -> Resource:
    bucket = await module.create_bucket("bucket", key=bench.key("bucket"))
    made = await module.create_access_key(bucket.id, internal=False, key=key)
    bench.secrets.append(made.secret_key.get_secret_value())
    return made


WAYS: dict[Kind, Ways] = {
    "machine": Ways(VendorModule, _machine),
    "volume": Ways(Volumes, lambda _, m, name, key: m.create_volume(VolumeSpec(name=name, size_mib=1), key=key)),
    "image": Ways(ImageUpload, _image),
    "bucket": Ways(ObjectStorage, lambda _, m, name, key: m.create_bucket(name, key=key)),
    "access-key": Ways(AccessKeys, _access_key),
    "key-pair": Ways(KeyPairs, lambda _, m, name, key: m.create_key_pair(name, PUBLIC_KEY, key=key)),
    "security-group": Ways(
        SecurityGroups, lambda _, m, name, key: m.create_security_group(name, [Rule(port=80)], key=key)
    ),
    "address": Ways(Addresses, lambda _, m, name, key: m.create_address(name, key=key)),
}


@dataclass(frozen=True)
class Of:
    """One kind of resource, on a bench."""

    kind: Kind
    bench: Bench

    async def create(self, word: str = "one", *, name: str | None = None, module: VendorModule | None = None) -> Any:
        """Create one; the word makes its key, and its name unless another is given."""
        ways = WAYS[self.kind]
        return await ways.create(self.bench, module or self.bench.module, name or word, self.bench.key(word))

    async def describe(self, resource_id: str) -> Any:
        """The resource as it is now."""
        return await getattr(self.bench.module, f"describe_{self.kind.replace('-', '_')}")(resource_id)

    async def list(self) -> list[Any]:
        """All of the account's."""
        found: list[Any] = await getattr(self.bench.module, f"list_{WAYS[self.kind].many(self.kind)}")()
        return found

    async def destroy(self, resource_id: str) -> None:
        """Remove one."""
        await getattr(self.bench.module, f"destroy_{self.kind.replace('-', '_')}")(resource_id)


def each_kind(function: Callable[[Of], Awaitable[None]]) -> Callable[[Of], Awaitable[None]]:
    """Register a function as one check for each kind: ``is_listed`` becomes ``machine-is-listed`` and so on."""
    for kind in (kind for kind in reversed(RELEASE_ORDER) if kind in WAYS):

        async def one(bench: Bench, kind: Kind = kind) -> None:
            await function(Of(kind, bench))

        one.__name__ = f"{kind}_{function.__name__}"
        one.__doc__ = (function.__doc__ or "").replace("KIND", kind.replace("-", " "))
        check(WAYS[kind].needs)(one)
    return function


@each_kind
async def is_described_as_created(of: Of) -> None:
    """A new KIND has the key that it was created with, and describing it gives what creating it gave."""
    made = await of.create()
    expect(made.key == of.bench.key(), f"the key is {made.key!r}, expected {of.bench.key()!r}")
    described = await of.describe(made.id)
    expect(described == made, f"created as {made!r}, described as {described!r}")


@each_kind
async def is_listed(of: Of) -> None:
    """A new KIND is in the list of all, once, as it is described."""
    made = await of.create()
    listed = [resource for resource in await of.list() if resource.id == made.id]
    expect(len(listed) == 1, f"{made.id} is in the list {len(listed)} times")
    expect(listed[0] == await of.describe(made.id), f"listed as {listed[0]!r}")


@each_kind
async def is_gone_when_destroyed(of: Of) -> None:
    """A destroyed KIND is not found and not listed any more."""
    made = await of.create()
    await of.destroy(made.id)
    await refused(of.describe(made.id), NotFound, what=f"describe the destroyed {of.kind}")
    expect(find(await of.list(), made) is None, f"{made.id} is listed although it was destroyed")


@each_kind
async def is_destroyed_twice(of: Of) -> None:
    """Destroying a KIND that is gone, or that never was, is no error."""
    made = await of.create()
    await of.destroy(made.id)
    await of.destroy(made.id)
    await of.destroy("there-is-none")


@each_kind
async def unknown_is_not_found(of: Of) -> None:
    """Describing a KIND that never was raises NotFound."""
    await refused(of.describe("there-is-none"), NotFound, what=f"describe an unknown {of.kind}")


@each_kind
async def is_made_once_for_a_key(of: Of) -> None:
    """Creating a KIND again with the same key gives the same one, also after a restart of the module."""
    first, again = await of.create(), await of.create()
    expect(first.id == again.id, f"the same key gave {first.id} and {again.id}")
    async with of.bench.another(of.bench.subject.credentials) as restarted:
        third = await of.create(module=restarted)
    expect(first.id == third.id, f"after a restart, the same key gave {third.id} instead of {first.id}")
    expect(await _count(of) == 1, f"there are {await _count(of)} with the same key")


@each_kind
async def is_made_once_by_many(of: Of) -> None:
    """However many create a KIND with the same key at the same time, there is one."""
    made = await asyncio.gather(*(of.create() for _ in range(4)))
    expect(len({resource.id for resource in made}) == 1, f"got {sorted({resource.id for resource in made})}")
    expect(await _count(of) == 1, f"there are {await _count(of)} with the same key")


@each_kind
async def is_told_from_its_namesake(of: Of) -> None:
    """Two of a KIND with the same name and different keys are two."""
    first, second = await of.create("one", name="twin"), await of.create("two", name="twin")
    expect(first.id != second.id, f"both are {first.id}")


@each_kind
async def is_released_by_its_key(of: Of) -> None:
    """A KIND can be found and removed by its key alone, as after a crash before its id was known."""
    made, other = await of.create("one"), await of.create("two")
    expect(await release(of.bench.module, of.kind, of.bench.key("one")) == 1, "nothing was found by the key")
    await refused(of.describe(made.id), NotFound, what=f"describe the released {of.kind}")
    expect((await of.describe(other.id)).id == other.id, "another one was removed")
    expect(await release(of.bench.module, of.kind, of.bench.key("one")) == 0, "the key is still there")


@each_kind
async def is_recorded_before_and_after(of: Of) -> None:
    """A KIND is remembered as created with its id, and as destroyed once it is."""
    made = await of.create()
    record = await of.bench.persistence.resource(of.bench.subject.vendor, of.kind, of.bench.key())
    expect(record and (record.status, record.id) == ("created", made.id), f"the record is {record}")
    await of.destroy(made.id)
    record = await of.bench.persistence.resource(of.bench.subject.vendor, of.kind, of.bench.key())
    expect(record and record.status == "destroyed", f"after destroying, the record is {record}")


async def _count(of: Of) -> int:
    return sum(resource.key == of.bench.key() for resource in await of.list())
