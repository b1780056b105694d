"""Resources that are made once for a whole run and lent to its checks: on a real cloud, a machine takes its time.

Checks that only need *a* resource, or that look at how one was made, are lent one, and leave it as they found it. What
a failed check had in its hands is looked at, and thrown away if it is not what it was; the next check is lent another.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from descriptors.deployment import Kind
from vendor_modules.capabilities import RELEASE_ORDER, KeyPairs, SecurityGroups, Volumes
from vendor_modules.conformance.bench import Bench
from vendor_modules.conformance.subject import GREETING, Subject
from vendor_modules.conformance.watching import RecordingLog, WatchingPersistence
from vendor_modules.conformance.ways import PUBLIC_KEY, SERVICE_RULES, Of
from vendor_modules.errors import Unsupported
from vendor_modules.resources import Attachment, KeyPair, Machine, SecurityGroup, Volume, VolumeSpec

UNICODE = 'Grüße, 世界 – ‘naïve’ & "co" 🚀'
LONG = "n" * 254 + "!"
SHORT = "x"
NAMES = {"first": UNICODE, "second": LONG, "twin": UNICODE, "late": SHORT}
"""The slots that specimens have, and the names in them. The twin is made by four calls at once; the late one has been
destroyed."""
AT_ONCE = 4


@dataclass(frozen=True)
class Specimen:
    """A resource, and how it was seen when it had just been made."""

    kind: Kind
    name: str
    key: str
    made: Any
    described: Any
    listed: tuple[Any, ...]
    """The entries of the list with its id."""
    many: tuple[str, ...]
    """The ids that calls at once with its key gave."""
    pause: float
    """For how many seconds the event loop stood still meanwhile, at most."""
    closed: bool = False
    """Of a destroyed machine: whether its service answered no more."""


@dataclass(frozen=True)
class Equipped:
    """A machine that was created with a volume, a security group and a key pair, as far as the module has these; the
    key pair has been destroyed since."""

    machine: Machine
    volume: Volume | None
    group: SecurityGroup | None
    pair: KeyPair | None


class Lender:
    """Makes, lends and in the end removes. It holds no connection, so it may be used from one event loop after another;
    ``close`` it in the end."""

    def __init__(self, subject: Subject) -> None:
        self.subject = subject
        self.persistence = WatchingPersistence()
        self.log = RecordingLog()
        self.prefix = f"conformance-lent-{secrets.token_hex(4)}"
        self._kept: dict[tuple[Kind, str], Specimen] = {}
        self._equipped: Equipped | None = None
        self._needs: dict[tuple[Kind, str], set[tuple[Kind, str]]] = {}
        self._made = 0

    @asynccontextmanager
    async def at_work(self) -> AsyncIterator[Bench]:
        """A bench where what is lent can be handled: with its keys and records, as after a restart."""
        bench = Bench(self.subject, self, prefix=self.prefix, persistence=self.persistence, log=self.log)
        async with bench.module:
            yield bench

    async def specimen(self, kind: Kind, slot: str) -> Specimen:
        """The resource in that slot, made now if there is none."""
        if (kind, slot) not in self._kept:
            async with self.at_work() as bench:
                made = await self._make(Of(kind, bench), slot)
            self._kept[kind, slot] = made
            self._needs[kind, slot] = bench.borrowed
        return self._kept[kind, slot]

    async def _make(self, of: Of, slot: str) -> Specimen:
        name, key = NAMES[slot], self._key(slot)
        async with longest_pause() as pause:
            orders = (of.order(name, key) for _ in range(AT_ONCE if slot == "twin" else 1))
            all_made = await all_at_once(orders)
            made = all_made[0]
            described: Any = await of.describe(made.id)
            listed = tuple(await of.listed(made.id))
            many, closed = tuple(one.id for one in all_made), False
            if slot == "late":
                closed = await self._destroyed(of, made)
        return Specimen(of.kind, name, key, made, described, listed, many, pause(), closed)

    async def _destroyed(self, of: Of, made: Any) -> bool:
        served = of.kind == "machine" and of.bench.answers()
        if served:
            await of.bench.get(made, GREETING)
        await of.destroy(made.id)
        return served and await of.bench.is_closed(made)

    async def equipped(self) -> Equipped:
        """The equipped machine, made now if there is none."""
        if self._equipped is None:
            async with self.at_work() as bench:
                self._equipped = await self._equip(bench)
        return self._equipped

    async def _equip(self, bench: Bench) -> Equipped:
        module, changes = bench.module, dict[str, Any]()
        volume, group, pair = None, None, None
        with suppress(Unsupported):  # this provider has no such service
            if isinstance(module, Volumes):
                spec = VolumeSpec(name="equipment", size_mib=self.subject.volume_mib)
                volume = await module.create_volume(spec, key=self._key("equipment"))
                changes["volumes"] = (Attachment(volume=volume.id, device=self.subject.device),)
        with suppress(Unsupported):
            if isinstance(module, SecurityGroups):
                group = await module.create_security_group("equipment", SERVICE_RULES, key=self._key("equipment"))
                changes["security_groups"] = (group.id,)
        with suppress(Unsupported):
            if isinstance(module, KeyPairs):
                pair = await module.create_key_pair("equipment", PUBLIC_KEY, key=self._key("equipment"))
                changes["key_pair"] = pair.id
        order = (await bench.machine_spec("equipped")).model_copy(update=changes)
        machine = await module.create_machine(order, key=self._key("equipped"))
        if pair and isinstance(module, KeyPairs):
            await module.destroy_key_pair(pair.id)
        return Equipped(machine, volume, group, pair)

    def _key(self, word: str) -> str:
        self._made += 1
        return f"{self.prefix}-{word}-{self._made}"

    def take(self, kind: Kind, slot: str) -> None:
        """Lend it no more: the check that has it will destroy it."""
        self._kept.pop((kind, slot), None)

    # --- what is broken, and the end ---

    async def look_after(self, borrowed: Iterable[tuple[Kind, str]]) -> list[str]:
        """Throw away what is not as it was when it was lent to a check that has failed; returns what cannot be removed,
        in words."""
        everything = set(borrowed).union(*(self._needs.get(one, set()) for one in borrowed))
        broken = []
        async with self.at_work() as bench:
            for kind, slot in everything & self._kept.keys():
                if not await _is_as_it_was(self._kept[kind, slot], Of(kind, bench)):
                    broken.append((kind, slot))
        if ("machine", "equipped") in everything:
            broken.append(("machine", "equipped"))
        return await self.discard(broken)

    async def discard(self, lent: Iterable[tuple[Kind, str]]) -> list[str]:
        """Throw away; returns what cannot be removed, in words."""
        ids: list[tuple[Kind, str]] = []
        for kind, slot in lent:
            if slot == "equipped" and self._equipped:
                kept, self._equipped = self._equipped, None
                ids += [("machine", kept.machine.id)]
                ids += [("volume", kept.volume.id)] if kept.volume else []
                ids += [("security-group", kept.group.id)] if kept.group else []
            elif specimen := self._kept.pop((kind, slot), None):
                ids += [(kind, specimen.made.id)]
        if not ids:
            return []
        problems = []
        async with self.at_work() as bench:
            for kind, resource_id in sorted(ids, key=lambda one: RELEASE_ORDER.index(one[0])):
                problems += await bench.remove(kind, resource_id)
        return problems

    async def close(self) -> list[str]:
        """Remove all that was lent; returns what could not be removed, in words."""
        self._kept.clear()
        self._equipped = None
        if not self.persistence.history:
            return []
        async with self.at_work() as bench:
            return await bench.clear()


async def _is_as_it_was(specimen: Specimen, of: Of) -> bool:
    try:
        return bool(await of.describe(specimen.made.id) == specimen.described)
    except Exception:  # noqa: BLE001 - a broken module's
        return False


async def all_at_once(calls: Iterable[Any]) -> list[Any]:
    """The results of calls made at the same time, when all have ended; the first error if there is one."""
    results = await asyncio.gather(*calls, return_exceptions=True)
    for result in results:
        if isinstance(result, BaseException):
            raise result
    return results


@asynccontextmanager
async def longest_pause() -> AsyncIterator[Any]:
    """Watch the event loop; the function given tells for how many seconds it stood still at most, but for the time in
    which others had the processor."""
    longest, loop = 0.0, asyncio.get_running_loop()

    async def watch() -> None:
        nonlocal longest
        while True:
            before = loop.time() - _starved()
            await asyncio.sleep(0.02)
            longest = max(longest, loop.time() - _starved() - before - 0.02)

    watcher = asyncio.ensure_future(watch())
    await asyncio.sleep(0)
    try:
        yield lambda: longest
    finally:
        watcher.cancel()


def _starved() -> float:
    """Seconds for which this thread could have run, but others did (proc(5), schedstat); 0 where no system tells."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except (OSError, IndexError, ValueError):
        return 0.0
