"""What must hold for every kind of resource alike: made once, named, found, told apart, and gone when destroyed."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

from descriptors.deployment import Kind
from vendor_modules.capabilities import RELEASE_ORDER, release
from vendor_modules.conformance.bench import Bench, expect, refused
from vendor_modules.conformance.lender import Specimen, all_at_once
from vendor_modules.conformance.registry import check, words
from vendor_modules.conformance.ways import WAYS, Of
from vendor_modules.errors import NotFound
from vendor_modules.module import VendorModule
from vendor_modules.services.persistence import MemoryPersistence

KINDS: tuple[Kind, ...] = tuple(kind for kind in reversed(RELEASE_ORDER) if kind in WAYS)


OnKind = Callable[[Of], Awaitable[None]]
NAMED = tuple(kind for kind in KINDS if WAYS[kind].named)


def each_kind(
    *needs: type[VendorModule], wire: bool = False, kinds: tuple[Kind, ...] = KINDS
) -> Callable[[OnKind], OnKind]:
    """Register a function as one check for each kind, of modules that can make the kind and have the capabilities
    given: ``is_listed`` becomes ``machine-is-listed`` and so on."""

    def register(function: OnKind) -> OnKind:
        family = (f"KIND-{function.__name__.replace('_', '-')}", words(function))
        for kind in kinds:

            async def one(bench: Bench, kind: Kind = kind) -> None:
                await function(Of(kind, bench))

            one.__name__ = f"{kind}_{function.__name__}"
            one.__module__ = function.__module__
            one.__doc__ = (function.__doc__ or "").replace("KIND", kind.replace("-", " "))
            check(WAYS[kind].needs, *needs, wire=wire, family=family)(one)
        return function

    return register


@each_kind()
async def is_described_as_created(of: Of) -> None:
    """A new KIND has the key that it was created with, and describing it gives what creating it gave."""
    new = await of.bench.specimen(of.kind)
    expect(new.made.key == new.key, f"the key is {new.made.key!r}, expected {new.key!r}")
    expect(new.described == new.made, f"created as {new.made!r}, described as {new.described!r}")


@each_kind()
async def is_listed(of: Of) -> None:
    """A new KIND is in the list of all, once, as it is described."""
    new = await of.bench.specimen(of.kind)
    expect(len(new.listed) == 1, f"{new.made.id} is in the list {len(new.listed)} times")
    expect(new.listed[0] == new.described, f"listed as {new.listed[0]!r}, described as {new.described!r}")


@each_kind()
async def list_stands_what_goes_on(of: Of) -> None:
    """While one KIND is made and destroyed, listing goes on without an error, and with what stays there."""
    stays, done = (await of.bench.specimen(of.kind)).made, asyncio.Event()

    async def come_and_go() -> None:
        try:
            if of.kind == "machine":  # one of the few that the run makes
                await of.bench.specimen(of.kind, "late")
            else:
                comes = await of.create("comes")
                await asyncio.sleep(0.05)  # let it be listed
                await of.destroy(comes.id)
        finally:
            done.set()

    async def look() -> None:
        while True:
            ids = [resource.id for resource in await of.list()]
            expect(ids.count(stays.id) == 1, f"{stays.id} is in the list {ids.count(stays.id)} times")
            expect(len(set(ids)) == len(ids), f"the list has an id twice: {sorted(ids)}")
            if done.is_set():
                return
            await asyncio.sleep(0.01)

    await all_at_once([come_and_go(), look()])


async def _keeps_its_name(of: Of, slot: str) -> None:
    new = await of.bench.specimen(of.kind, slot)
    for where, seen in (("created", new.made), ("described", new.described), *(("listed", one) for one in new.listed)):
        expect(seen.name == new.name, f"{where} as {seen.name!r}, expected {new.name!r}")


@each_kind(kinds=NAMED)
async def keeps_a_unicode_name(of: Of) -> None:
    """The name of a KIND may have any letters, and is kept exactly."""
    await _keeps_its_name(of, "first")


@each_kind(kinds=NAMED)
async def keeps_a_long_name(of: Of) -> None:
    """The name of a KIND may have 255 characters, and none is lost."""
    await _keeps_its_name(of, "second")


@each_kind(kinds=NAMED)
async def keeps_a_short_name(of: Of) -> None:
    """The name of a KIND may have a single character."""
    await _keeps_its_name(of, "late")


@each_kind()
async def unknown_is_not_found(of: Of) -> None:
    """Describing a KIND that never was raises NotFound."""
    await refused(of.describe(of.bench.unknown(of.kind)), NotFound, what=f"describe an unknown {of.words}")


async def _at_rest(of: Of) -> Specimen:
    """The specimen, as it is after creating it: creating a machine again waits until it is ACTIVE."""
    if of.kind == "machine":
        async with of.bench.machine_lent():
            pass
    return await of.bench.specimen(of.kind)


@each_kind()
async def is_made_once_for_a_key(of: Of) -> None:
    """Creating a KIND again with the same key gives the same one, also after a restart of the module."""
    new = await _at_rest(of)
    async with of.bench.lender.at_work() as restarted:
        lent = Of(of.kind, restarted)
        for _ in range(2):
            again = await lent.order(new.name, new.key)
            expect(again.id == new.made.id, f"the same key gave {new.made.id} and {again.id}")
        expect(await lent.count(new.key) == 1, f"there are {await lent.count(new.key)} with the same key")


@each_kind()
async def is_found_again_after_a_crash(of: Of) -> None:
    """When nothing was remembered of the creation of a KIND, its key still gives it: a crash may lose the record."""
    new = await _at_rest(of)
    async with of.bench.another(of.bench.subject.credentials, persistence=MemoryPersistence()) as forgetful:
        again = await of.order(new.name, new.key, forgetful)
        if again.id != new.made.id:
            await getattr(forgetful, f"destroy_{of.kind.replace('-', '_')}")(again.id)
    expect(again.id == new.made.id, f"the same key gave {new.made.id} and then {again.id}")


@each_kind()
async def is_made_once_by_many(of: Of) -> None:
    """However many create a KIND with the same key at the same time, there is one."""
    twin = await of.bench.specimen(of.kind, "twin")
    expect(len(set(twin.many)) == 1, f"got {sorted(set(twin.many))}")
    async with of.bench.lender.at_work() as lent:
        expect(await Of(of.kind, lent).count(twin.key) == 1, "there are several with the same key")


@each_kind()
async def is_told_from_its_namesake(of: Of) -> None:
    """Two of a KIND with the same name and different keys are two."""
    first, second = await of.bench.specimen(of.kind), await of.bench.specimen(of.kind, "twin")
    expect(first.made.id != second.made.id, f"both are {first.made.id}")
    expect(first.made.name == second.made.name or not WAYS[of.kind].named, "their names are not the same")


@each_kind()
async def is_released_by_its_key(of: Of) -> None:
    """A KIND can be found and removed by its key alone, as after a crash before its id was known."""
    other, made = await of.bench.specimen(of.kind), await of.bench.specimen(of.kind, "twin")
    async with of.bench.lender.at_work() as lent:
        of.bench.lender.take(of.kind, "twin")
        expect(await release(lent.module, of.kind, made.key) == 1, "not one was found by the key")
        await refused(of.describe(made.made.id), NotFound, what=f"describe the released {of.words}")
        expect((await of.describe(other.made.id)).id == other.made.id, "another one was removed")
        await of.still_listed(made.made.id)
        expect(await release(lent.module, of.kind, made.key) == 0, "the key is still there")


@each_kind()
async def is_gone_when_destroyed(of: Of) -> None:
    """A destroyed KIND is not found and not listed any more."""
    late = (await of.bench.specimen(of.kind, "late")).made
    await refused(of.describe(late.id), NotFound, what=f"describe the destroyed {of.words}")
    expect(not await of.still_listed(late.id), f"{late.id} is listed although it was destroyed")


@each_kind()
async def is_destroyed_twice(of: Of) -> None:
    """Destroying a KIND that is gone, or that never was, is no error."""
    await of.destroy((await of.bench.specimen(of.kind, "late")).made.id)
    await of.destroy(of.bench.unknown(of.kind))


@each_kind()
async def is_recorded_before_and_after(of: Of) -> None:
    """A KIND is remembered as intended before it is made, as created with its id, and as destroyed once it is."""
    late, persistence = await of.bench.specimen(of.kind, "late"), of.bench.lender.persistence
    history = [(r.status, r.id) for r in persistence.history if (r.kind, r.key) == (of.kind, late.key)]
    expect(history[:1] == [("intended", None)], f"before it was made, the records were {history[:1]}")
    expect(("created", late.made.id) in history, f"the records are {history}, and none says that it was created")
    record = await persistence.resource(of.bench.subject.vendor, of.kind, late.key)
    expect(record and record.status == "destroyed", f"after destroying, the record is {record}")
