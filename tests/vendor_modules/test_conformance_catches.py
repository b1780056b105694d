"""The conformance suite passes a sound module, and each of many broken ones fails at the check that is for it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from typing import Any

import pytest
from pydantic import SecretStr

from tests.vendor_modules.toy import CLOUDS, PASSWORD, ToyCloud, ToyModule, ToySettings
from vendor_modules import conformance
from vendor_modules.conformance.registry import Check
from vendor_modules.errors import NotFound, Unauthorized, Unsupported
from vendor_modules.module import Content, Proof, VendorModule
from vendor_modules.resources import (
    Address,
    Bucket,
    Catalogue,
    Image,
    ImageSpec,
    Key,
    Machine,
    MachineSpec,
    Status,
    Usage,
    Volume,
    VolumeSpec,
)
from vendor_modules.services.credentials import PasswordCredentials

WIRELESS = "the module does not speak HTTP"


@pytest.fixture
async def cloud() -> AsyncIterator[ToyCloud]:
    """An empty toy cloud, known as ``toy``."""
    CLOUDS["toy"] = ToyCloud()
    yield CLOUDS["toy"]
    await CLOUDS.pop("toy").close()


def _subject(module: type[VendorModule] = ToyModule, **values: Any) -> conformance.Subject:
    login = PasswordCredentials(username="child", password=SecretStr(PASSWORD))
    return conformance.Subject(module, ToySettings(cloud="toy"), login, **{"patience": 0.2, **values})


def _check(name: str) -> Check:
    return next(check for check in conformance.checks_for(ToyModule) if check.name == name)


async def test_sound_module_passes_everything(cloud: ToyCloud) -> None:
    """The toy passes all checks but those of faults on the wire, each result is told as it comes, nothing is left."""
    told: list[conformance.Result] = []
    report = await conformance.check_vendor(_subject(), told.append)
    odd = [r for r in report.checks if r.outcome != "passed" and not r.reason.startswith(WIRELESS)]
    assert [(r.name, r.reason) for r in odd] == []
    assert report.passed
    assert tuple(told) == report.checks
    assert len(report.checks) > 450
    assert sum(result.outcome == "passed" for result in report.checks) > 380
    assert cloud.held == {}


def test_every_check_has_a_name_and_a_contract() -> None:
    """Checks have different names, and a contract of one sentence each."""
    checks = conformance.checks_for(ToyModule)
    assert len({check.name for check in checks}) == len(checks)
    assert all(check.contract.endswith(".") and "KIND" not in check.contract for check in checks)


# --- broken modules: the name of the check that must see it, and what it must say ---

BROKEN: list[tuple[str, str, type[ToyModule]]] = []


def caught_by(name: str, words: str) -> Any:
    """Note a broken module, the check that must fail on it, and words of the reason."""

    def note(module: type[ToyModule]) -> type[ToyModule]:
        BROKEN.append((name, words, module))
        return module

    return note


@caught_by("machine-is-made-once-for-a-key", "the same key gave")
class MakesAnotherEachTime(ToyModule):
    """Does not look for the key before it creates."""

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        (await self._cloud()).keys.pop(("machine", key), None)
        return await super()._create_machine(spec, key)


@caught_by("volume-is-made-once-by-many", "got [")
class LooksTooEarly(ToyModule):
    """Looks for the key, and creates some time later."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        made: Volume | None = await self._made("volume", key)
        await asyncio.sleep(0.01)
        if made is None:
            (await self._cloud()).keys.pop(("volume", key), None)
        return made or await super()._create_volume(spec, key)


@caught_by("machine-is-listed", "0 times")
class ForgetsToList(ToyModule):
    """Its list is always empty."""

    async def _list_machines(self) -> list[Machine]:
        await self._cloud()
        return []


@caught_by("volume-is-gone-when-destroyed", "still active")
class OnlySaysThatItDestroys(ToyModule):
    """Destroys nothing."""

    async def _destroy_volume(self, volume_id: str) -> None:
        await self._get(Volume, volume_id)


@caught_by("bucket-is-listed", "was left behind")
class LeaksAndLies(ToyModule):
    """Says that a bucket is gone, and goes on to list it."""

    async def destroy_bucket(self, bucket_id: str) -> None:
        await self.services.persistence.mark_destroyed(self.vendor, "bucket", bucket_id)


@caught_by("only-vendor-errors-are-raised", "KeyError, which is no VendorError")
class RaisesItsLibrarysErrors(ToyModule):
    """Lets an error of its own through."""

    async def _describe_volume(self, volume_id: str) -> Volume:
        return (await self._cloud()).held[volume_id]  # type: ignore[no-any-return]


@caught_by("volume-unknown-is-not-found", "KeyError, which is no VendorError")
class RaisesItsLibrarysErrorsToo(RaisesItsLibrarysErrors):
    """The same, seen by another check."""


@caught_by("wrong-credentials-are-unauthorized", "was accepted")
class LetsEverybodyIn(ToyModule):
    """Does not look at the password."""

    async def _cloud(self) -> ToyCloud:
        return CLOUDS["toy"]


@caught_by("secrets-are-not-in-errors", "the secret is in the error")
class TellsThePassword(ToyModule):
    """Says in the error what was wrong."""

    async def _cloud(self) -> ToyCloud:
        try:
            return await super()._cloud()
        except Unauthorized as error:
            credentials: Any = await self._credentials()
            raise Unauthorized("login failed") from ValueError(f"{credentials.password.get_secret_value()}: {error}")


@caught_by("machine-is-as-ordered", "a secret was logged")
class LogsThePassword(ToyModule):
    """Notes what it logs in with."""

    async def _cloud(self) -> ToyCloud:
        credentials: Any = await self._credentials()
        self.services.log.debug("logging in", data={"password": credentials.password.get_secret_value()})
        return await super()._cloud()


@caught_by("secrets-are-not-in-representations", "a secret is shown")
class ShowsThePassword(ToyModule):
    """Keeps the password as plain text."""

    async def _cloud(self) -> ToyCloud:
        credentials: Any = await self._credentials()
        self.password = credentials.password.get_secret_value()
        return await super()._cloud()


@caught_by("event-loop-stays-free", "stand still for")
class Blocks(ToyModule):
    """Calls a library that waits, the first time."""

    blocked = False

    async def _list_machines(self) -> list[Machine]:
        if not self.blocked:
            time.sleep(1.1)  # noqa: ASYNC251 - that is the fault
        self.blocked = True
        return await super()._list_machines()


@caught_by("upload-with-a-wrong-digest-is-refused", "was accepted")
class BelievesTheDigest(ToyModule):
    """Takes any content."""

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        received = b"".join([chunk async for chunk in content()])
        return await self._keep_image(spec.name, key, spec.format, received)


@caught_by("download-goes-on-from-an-offset", "from 1:")
class IgnoresTheOffset(ToyModule):
    """Always sends the whole image."""

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        async for chunk in super()._download_image(image_id, 0):
            yield chunk


@caught_by("machine-keeps-a-unicode-name", "created as 'Gre")
class ManglesNames(ToyModule):
    """Drops what is not ASCII."""

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        plain = spec.name.encode("ascii", "ignore").decode()
        return await super()._create_machine(spec.model_copy(update={"name": plain}), key)


@caught_by("machine-keeps-a-long-name", "created as 'nnn")
class CutsNames(ToyModule):
    """Keeps 64 characters."""

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await super()._create_machine(spec.model_copy(update={"name": spec.name[:64]}), key)


@caught_by("revoked-key-stops-working", "it answers 200")
class RevokesLater(ToyModule):
    """Forgets that it revoked a key."""

    async def _store(self, cloud: ToyCloud, internal: bool, *request: Any) -> tuple[int, bytes]:
        method, path, body, _ = request
        objects = cloud.objects[path.partition("/")[0]]
        if method == "PUT":
            objects[path.partition("/")[2]] = body
        return 200, objects[path.partition("/")[2]]


@caught_by("internal-and-public-keys-have-their-endpoints", "an internal key answers 200")
class HasOneDoor(ToyModule):
    """Takes every key at every endpoint."""

    async def _store(self, cloud: ToyCloud, internal: bool, *request: Any) -> tuple[int, bytes]:
        store = super()._store
        inside, outside = [await store(cloud, side, *request) for side in (True, False)]
        return min(inside, outside)


@caught_by("attached-volume-cannot-be-destroyed", "was accepted")
class DestroysWhatIsInUse(ToyModule):
    """Does not look whether a volume is attached."""

    async def _destroy_volume(self, volume_id: str) -> None:
        cloud = await self._cloud()
        volume = await self._get(Volume, volume_id)
        if volume.machine:
            cloud.change(volume.machine, volumes=())
        await self._forget(Volume, volume_id)


@caught_by("volume-outlives-its-machine", "does not find what was written")
class WipesVolumes(ToyModule):
    """Empties a machine's volumes with it."""

    async def _destroy_machine(self, machine_id: str) -> None:
        cloud = await self._cloud()
        for volume in (await self._get(Machine, machine_id)).volumes:
            cloud.content[volume] = bytes(len(cloud.content[volume]))
        await super()._destroy_machine(machine_id)


@caught_by("address-moves-to-another-machine", "answers there, expected b'second'")
class KeepsTheFirst(ToyModule):
    """Says that an address leads elsewhere, and lets it lead where it did."""

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        if (await self._get(Address, address_id)).machine and machine_id:
            (await self._cloud()).change(address_id, machine=machine_id)
            return
        await super()._associate_address(address_id, machine_id)


@caught_by("address-obeys-the-rules", "although no rule allows it")
class KnowsNoRules(ToyModule):
    """Opens every machine to everybody."""

    def _is_open(self, cloud: ToyCloud, machine_id: str) -> bool:
        return True


@caught_by("bundled-machine-starts-elsewhere", "404")
class LosesFiles(ToyModule):
    """Bundles what a machine began with only."""

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        (await self._cloud()).guts[machine_id].files.pop("bundle-note", None)
        return await super()._bundle_machine(machine_id, name, key)


@caught_by("running-machine-is-in-the-usage", "no record")
class CountsNothing(ToyModule):
    """Reports no usage."""

    async def _usage(self, since: Any) -> list[Usage]:
        return []


@caught_by("catalogue-agrees-with-capabilities", "and cannot be created")
class SellsWhatItLacks(ToyModule):
    """Has a price for volumes, and does not make them."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        raise Unsupported("no volumes here")


@caught_by("offer-is-for-some-time", "expires")
class OffersForAMoment(ToyModule):
    """Its offers expire before anybody can accept them."""

    async def _catalogue(self) -> Catalogue:
        return (await super()._catalogue()).model_copy(update={"offer_validity_seconds": 1})


@caught_by("stopped-machine-does-not-answer", "still answers")
class StopsOnPaper(ToyModule):
    """Marks a machine as stopped, and lets it run."""

    async def _halt(self, machine_id: str) -> None:
        """Nothing."""


@caught_by("deleted-object-is-gone", "it is still there")
class KeepsObjects(ToyModule):
    """Does not delete."""

    async def _store(self, cloud: ToyCloud, internal: bool, *request: Any) -> tuple[int, bytes]:
        return (204, b"") if request[0] == "DELETE" else await super()._store(cloud, internal, *request)


@caught_by("bucket-counts-its-objects", "it tells 0 objects")
class CountsNoObjects(ToyModule):
    """Does not count."""

    async def _describe_bucket(self, bucket_id: str) -> Bucket:
        return await self._get(Bucket, bucket_id)


@pytest.mark.parametrize(("name", "words", "module"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
async def test_broken_module_is_caught(cloud: ToyCloud, name: str, words: str, module: type[ToyModule]) -> None:
    """The check that is for it fails on the broken module, says what is wrong, and passes on the sound one."""
    result = await conformance.run_check(_check(name), _subject(module))
    assert result.outcome == "failed"
    assert words in result.reason
    assert PASSWORD not in result.reason
    CLOUDS["toy"] = ToyCloud()
    sound = await conformance.run_check(_check(name), _subject())
    await CLOUDS["toy"].close()
    CLOUDS["toy"] = cloud
    assert (sound.outcome, sound.reason) == ("passed", "")


# --- what the suite itself must hold ---


class OnlyMachines(VendorModule):
    """Has the core and nothing else, and even that does not work."""

    title = "Broken"
    proof = Proof.PROTOCOL_ONLY
    credential_kinds = ()

    async def _catalogue(self) -> Catalogue:
        raise RuntimeError("broken")

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        raise RuntimeError("broken")

    async def _describe_machine(self, machine_id: str) -> Machine:
        raise RuntimeError("broken")

    async def _list_machines(self) -> list[Machine]:
        raise RuntimeError("broken")

    async def _destroy_machine(self, machine_id: str) -> None:
        raise RuntimeError("broken")

    async def _close(self) -> None:
        """Nothing is open."""


async def test_one_failure_stops_no_other_check() -> None:
    """On a module where nothing works, every check ends: with a failure, or skipped for a capability that it names."""
    report = await conformance.check_vendor(_subject(OnlyMachines))
    assert not report.passed
    outcomes = {result.name: result for result in report.checks}
    assert len(outcomes) == len(report.checks) > 450
    assert outcomes["machine-is-listed"].outcome == "failed"
    assert outcomes["volume-is-listed"].outcome == "skipped"
    assert outcomes["volume-is-listed"].reason == "the module has no volumes"
    assert outcomes["nothing-is-left-behind"].outcome == "failed"
    assert report.to_json()["checks"][0].keys() == {"name", "contract", "outcome", "reason", "seconds"}


async def test_service_that_the_provider_lacks_is_skipped(cloud: ToyCloud) -> None:
    """Where the module can do something and the provider cannot, the checks of that are skipped, and no others."""

    async def refuse(*_: object) -> None:
        raise Unsupported("no volumes here")

    absent: Any = refuse

    class WithoutVolumes(ToyModule):
        _create_volume = _describe_volume = _list_volumes = _destroy_volume = absent
        _attach_volume = _detach_volume = _bundle_volume = absent

        async def _catalogue(self) -> Catalogue:
            return (await super()._catalogue()).model_copy(update={"block_gib_month": None})

    report = await conformance.check_vendor(_subject(WithoutVolumes))
    assert [(r.name, r.reason) for r in report.checks if r.outcome == "failed"] == []
    skipped = [result for result in report.checks if result.outcome == "skipped"]
    skipped = [result for result in skipped if not result.reason.startswith("the module ")]
    assert {result.reason for result in skipped} == {"the provider: no volumes here"}
    assert all(any(word in result.name for word in ("volume", "attach", "snapshot")) for result in skipped)
    assert len(skipped) > 20


@pytest.fixture
def leaky() -> type[ToyModule]:
    """A module that makes a machine more than it was asked for."""

    class MakesOneMore(ToyModule):
        async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
            cloud = await self._cloud()
            extra = Machine(id=f"extra-{key}", name="extra", key="", status=Status.STOPPED, size="toy")
            cloud.held[extra.id] = extra
            return await super()._create_machine(spec, key)

    return MakesOneMore


async def test_leaks_are_seen_without_a_key(cloud: ToyCloud, leaky: type[ToyModule]) -> None:
    """What is left in the account fails the run, even when it cannot be told which check made it."""
    report = await conformance.check_vendor(_subject(leaky))
    result = report.checks[-1]
    assert (result.name, result.outcome) == ("nothing-is-left-behind", "failed")
    assert "machine extra-conformance-" in result.reason


async def test_failing_check_cleans_up(cloud: ToyCloud) -> None:
    """What a check created is removed also when it fails in the middle, or takes too long."""

    async def fails(bench: Any) -> None:
        await bench.machine()
        raise NotFound("in the middle")

    async def hangs(bench: Any) -> None:
        await bench.machine()
        await asyncio.sleep(60)

    for function in (fails, hangs):
        check = Check("name", "contract.", (VendorModule,), function)
        result = await conformance.run_check(check, _subject(check_timeout=0.3))
        assert result.outcome == "failed"
        assert cloud.held == {}


async def test_cancelled_check_cleans_up(cloud: ToyCloud) -> None:
    """What a check created is removed also when the run is cancelled."""
    waiting = asyncio.Event()

    async def hangs(bench: Any) -> None:
        await bench.machine()
        waiting.set()
        await asyncio.sleep(60)

    run = asyncio.ensure_future(conformance.run_check(Check("n", "c.", (VendorModule,), hangs), _subject()))
    await waiting.wait()
    run.cancel()
    with pytest.raises(asyncio.CancelledError):
        await run
    assert cloud.held == {}


async def test_what_cannot_be_removed_is_told(cloud: ToyCloud) -> None:
    """A check whose machine cannot be removed fails, and says which it is."""

    class Clings(ToyModule):
        async def _destroy_machine(self, machine_id: str) -> None:
            raise NotImplementedError("cannot")

    result = await conformance.run_check(_check("machine-is-as-ordered"), _subject(Clings))
    assert result.outcome == "failed"
    assert "cannot be removed: NotImplementedError" in result.reason
