"""More broken modules, each caught by the check that is for it: declarations, and the services beyond machines."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, ClassVar

import pytest

from descriptors.cfp import CallForProposals
from descriptors.sla import Offer, Refusal
from tests.vendor_modules.test_conformance_catches import _check, _subject, cloud  # noqa: F401 - a fixture
from tests.vendor_modules.toy import PASSWORD, ToyCloud, ToyModule
from vendor_modules import conformance
from vendor_modules.abilities import UNSUPPORTED, Ability, Requirement, Support
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, Unsupported
from vendor_modules.module import Content, ModuleSettings
from vendor_modules.proposals import propose
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    ImageSpec,
    Key,
    KeyPair,
    Machine,
    Network,
    Quota,
    Rule,
    SecurityGroup,
    Snapshot,
    StoredObject,
    Volume,
    VolumeSpec,
)

BROKEN: list[tuple[str, str, type[ToyModule]]] = []


def caught_by(name: str, words: str) -> Any:
    """Note a broken module, the check that must fail on it, and words of the reason."""

    def note(module: type[ToyModule]) -> type[ToyModule]:
        BROKEN.append((name, words, module))
        return module

    return note


# --- what is declared ---


@caught_by("identity-is-stated", "proven_by is empty")
class SaysNotWhatProvesIt(ToyModule):
    """Claims a proof, and has none to tell of."""

    proven_by = " "


class MuteSettings(ModuleSettings):
    """Settings."""

    cloud: str


@caught_by("settings-are-explained", "without a docstring below them: cloud")
class ExplainsNothing(ToyModule):
    """Nobody knows what to fill in."""

    Settings = MuteSettings  # type: ignore[assignment]  # its settings are the fault


@caught_by("abilities-are-of-operations", "'attach_volumes' is declared, and is no operation")
class Misspells(ToyModule):
    """Declares something that nobody calls."""

    abilities: ClassVar[Mapping[str, Ability]] = {**ToyModule.abilities, "attach_volumes": UNSUPPORTED}


@caught_by("emulation-is-explained", "reboot_machine is emulated, and has no note")
class EmulatesInSilence(ToyModule):
    """Does not say what it costs."""

    abilities: ClassVar[Mapping[str, Ability]] = {**ToyModule.abilities, "reboot_machine": Ability(Support.EMULATED)}


@caught_by("operation-console-is-as-declared", "is declared native, and raises Unsupported")
class HasNoConsole(ToyModule):
    """Inherits what the provider has not."""

    async def _console(self, machine_id: str) -> str:
        raise Unsupported("no console here")


@caught_by("operation-detach-volume-is-as-declared", "is declared native, and raises Unsupported")
class NeverDetaches(ToyModule):
    """Attaches for good, and does not declare it."""

    async def _detach_volume(self, volume_id: str) -> None:
        raise Unsupported("a volume stays where it is")


@caught_by("operation-usage-is-as-declared", "is declared unsupported, and is done")
class DeniesItself(ToyModule):
    """Can do more than it says."""

    abilities: ClassVar[Mapping[str, Ability]] = {
        **ToyModule.abilities,
        "usage": Ability(Support.UNSUPPORTED, note="none is kept"),
    }


@caught_by("upload-takes-the-declared-formats", "an image in qcow2 was taken")
class TakesAnything(ToyModule):
    """Takes images that nothing can start from."""

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        if spec.format is DiskFormat.QCOW2:
            return await self._keep_image(spec.name, key, spec.format, b"".join([c async for c in content()]))
        return await super()._upload_image(spec, content, key)


@caught_by("upload-takes-the-declared-formats", "images in raw are not taken")
class PromisesAFormat(ToyModule):
    """Refuses a format that it declares."""

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        if spec.format is DiskFormat.RAW:
            raise InvalidRequest("images in raw are not taken")
        return await super()._upload_image(spec, content, key)


@caught_by("upload-takes-the-declared-formats", "no disk formats are declared")
class DeclaresNoFormats(ToyModule):
    """Leaves it to be tried out."""

    abilities: ClassVar[Mapping[str, Ability]] = {**ToyModule.abilities, "upload_image": Ability()}


@caught_by("bundling-requires-what-is-declared", "bundle while it runs: was accepted")
class BundlesWhatRuns(ToyModule):
    """Declares that a machine must be stopped, and does not mind."""

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        return await self._made("image", key) or await self._keep_image(name, key, DiskFormat.BUNDLE, b"")


@caught_by("bundling-requires-what-is-declared", "Conflict")
class NeedsItStoppedInSecret(ToyModule):
    """Refuses to bundle what runs, and does not declare it."""

    abilities: ClassVar[Mapping[str, Ability]] = {**ToyModule.abilities, "bundle_machine": Ability()}


@caught_by("attaching-requires-what-is-declared", "attach to a running machine: was accepted")
class AttachesToWhatRuns(ToyModule):
    """Declares that a machine must be stopped, and does not mind."""

    abilities: ClassVar[Mapping[str, Ability]] = {
        **ToyModule.abilities,
        "attach_volume": Ability(requires=(Requirement.STOPPED,)),
    }


# --- offers and credentials ---


@caught_by("unknown-price-is-refused", "sizes of unknown price were offered: ['toy', 'toy']")
class TakesUnknownForFree(ToyModule):
    """Knows no price, and offers at none."""

    async def _catalogue(self) -> Catalogue:
        known = await super()._catalogue()
        sizes = tuple(size.model_copy(update={"price_per_hour": None}) for size in known.sizes)
        return known.model_copy(update={"sizes": sizes})

    async def propose(self, call: CallForProposals) -> Offer | Refusal:
        return propose(self.vendor, call, await super()._catalogue())


@caught_by("every-kind-of-credentials-is-answered", "which is no VendorError")
class KnowsPasswordsOnly(ToyModule):
    """Falls over other credentials."""

    async def _cloud(self) -> ToyCloud:
        credentials: Any = await self._credentials()
        if credentials:
            credentials.password.get_secret_value()
        return await super()._cloud()


@caught_by("every-kind-of-credentials-is-answered", "is not among the credential kinds")
class HidesWhatWorks(ToyModule):
    """Does not state the kind that it takes."""

    credential_kinds = ("access-key",)


# --- what holds for every kind ---


@caught_by("volume-is-found-again-after-a-crash", "the same key gave")
class RemembersOnlyByItself(ToyModule):
    """Looks for the key in its own records, and not at the provider."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        record = await self.services.persistence.resource(self.vendor, "volume", key)
        if record and record.id:
            return await self._get(Volume, record.id)
        (await self._cloud()).keys.pop(("volume", key), None)
        return await super()._create_volume(spec, key)


@caught_by("volume-is-recorded-before-and-after", "before it was made, the records were []")
class TellsNobody(ToyModule):
    """Creates before it is remembered."""

    async def create_volume(self, spec: VolumeSpec, *, key: Key) -> Volume:
        return await self._create_volume(spec, key)


@caught_by("key-pair-is-listed", "is in the list 2 times")
class ListsTwice(ToyModule):
    """Repeats what is at the end of a page."""

    async def _list_key_pairs(self) -> list[KeyPair]:
        return 2 * await super()._list_key_pairs()


@caught_by("key-pair-list-has-all-pages", "1 of 31 are not listed")
class ReadsTheFirstPage(ToyModule):
    """Does not ask for what follows."""

    async def _list_key_pairs(self) -> list[KeyPair]:
        return (await super()._list_key_pairs())[:30]


@caught_by("network-list-stands-what-goes-on", "NotFound")
class ListsAndLooksLater(ToyModule):
    """Describes what it has listed, one after the other; meanwhile one of them goes."""

    async def _list_networks(self) -> list[Network]:
        listed = await super()._list_networks()
        for _ in range(50):
            if len(await super()._list_networks()) < len(listed):
                break
            await asyncio.sleep(0.01)
        return [await self._describe_network(network.id) for network in listed]


@caught_by("kinds-may-share-a-key", "NotFound")
class KnowsKeysNotKinds(ToyModule):
    """Takes the key of a key pair for a security group's."""

    async def _made(self, kind: Any, key: str) -> Any:
        kinds: tuple[Any, ...] = ("key-pair", "security-group") if kind == "security-group" else (kind,)
        held = await self._cloud()
        return next((held.held[held.keys[one, key]] for one in kinds if (one, key) in held.keys), None)


@caught_by("security-group-keeps-a-long-name", "created as 'nnn")
class CutsNames(ToyModule):
    """Keeps 63 characters."""

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        return await super()._create_security_group(name[:63], rules, key)


# --- volumes, snapshots, images ---


@caught_by("volume-is-never-too-small", "3 MiB were ordered, it has 2")
class RoundsDown(ToyModule):
    """Sells less than was ordered."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        even = spec.model_copy(update={"size_mib": max(1, spec.size_mib // 2 * 2)})
        return await super()._create_volume(even, key)


@caught_by("volume-too-small-for-its-image-is-refused", "were made all the same")
class RefusesTooLate(ToyModule):
    """Makes the volume, then sees that the image does not fit: a leak."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        if spec.image:
            await super()._create_volume(spec.model_copy(update={"image": None}), key)
            raise InvalidRequest("the image does not fit into the volume")
        return await super()._create_volume(spec, key)


@caught_by("snapshot-holds-the-content-of-its-moment", "its content begins with b'after!'")
class FollowsTheVolume(ToyModule):
    """Its snapshots are the volume."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        if spec.snapshot:
            store = (await self._cloud()).content
            store[spec.snapshot] = store[(await self._get(Snapshot, spec.snapshot)).volume or ""]
        return await super()._create_volume(spec, key)


@caught_by("snapshot-holds-every-byte", "other bytes came out")
class LosesTheTail(ToyModule):
    """Keeps the first MiB."""

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        snapshot = await super()._create_snapshot(volume_id, name, key)
        store = (await self._cloud()).content
        store[snapshot.id] = store[snapshot.id][: 1024 * 1024]
        return snapshot


@caught_by("volume-outlives-its-snapshot", "NotFound")
class TakesVolumesAlong(ToyModule):
    """Destroys with a snapshot what was made from it."""

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        volume = await super()._create_volume(spec, key)
        self.made_from = {**getattr(self, "made_from", {}), spec.snapshot: volume.id}
        return volume

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        await super()._destroy_snapshot(snapshot_id)
        await self._forget(Volume, self.made_from[snapshot_id])


@caught_by("upload-whose-source-breaks-leaves-nothing", "can be used although the upload failed")
class KeepsTheHalf(ToyModule):
    """Keeps what has come."""

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        received = b""
        try:
            async for chunk in content():
                received += chunk
        except Exception:
            await self._keep_image(spec.name, key, spec.format, received)
            raise
        return await super()._upload_image(spec, content, key)


# --- networks, load balancers, groups, addresses ---


@caught_by("security-group-keeps-its-rules", "its rules are")
class KnowsOneProtocol(ToyModule):
    """Leaves out the rules for IPv6."""

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        return await super()._create_security_group(name, tuple(r for r in rules if ":" not in r.cidr), key)


@caught_by("machine-takes-a-network", "destroy a network with a machine in it: was accepted")
class CutsTheWires(ToyModule):
    """Does not look who is in a network."""

    async def _destroy_network(self, network_id: str) -> None:
        await self._forget(Network, network_id)


@caught_by("load-balancer-shares-out", "[b'0'] answered")
class FavoursTheFirst(ToyModule):
    """Sends everybody to one machine."""

    async def _create_load_balancer(self, name: str, port: int, machines: tuple[str, ...], key: Key) -> Any:
        balancer = await super()._create_load_balancer(name, port, machines[:1], key)
        (await self._cloud()).change(balancer.id, machines=machines)
        held, first = await self._cloud(), machines[0]
        held.hang_up(balancer.id)
        await held.listen(balancer.id, lambda *request: self._serve(held, first, *request), port)
        return (await self._cloud()).held[balancer.id]


@caught_by("load-balancer-changes-its-machines", "expected")
class NeverLearns(ToyModule):
    """Keeps the machines that it began with."""

    async def _balance(self, balancer_id: str, machines: tuple[str, ...]) -> None:
        await self._describe_load_balancer(balancer_id)


@caught_by("address-says-where-it-leads", "it leads to")
class NeverLetsGo(ToyModule):
    """Does not lead an address to nowhere."""

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        if machine_id:
            await super()._associate_address(address_id, machine_id)


# --- objects and quotas ---


@caught_by("stored-object-comes-out-as-it-went-in", "came out as")
class UnquotesTwice(ToyModule):
    """Takes a plus for a space."""

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        await super()._put_object(bucket_id, name, content, size)
        stored = await self._stored(bucket_id)
        stored[name.replace("+", " ")] = stored.pop(name)

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        found = (await self._stored(bucket_id)).get(name, b"<no such thing>")
        yield found[offset:]


@caught_by("stored-objects-are-listed-in-order", "listed are")
class ListsAsItComes(ToyModule):
    """Does not sort."""

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        found = (await self._stored(bucket_id)).items()
        return [StoredObject(name=name, size=len(held)) for name, held in found if name.startswith(prefix)]


@caught_by("stored-objects-are-listed-by-prefix", "are listed, expected")
class IgnoresThePrefix(ToyModule):
    """Lists all."""

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        return await super()._list_objects(bucket_id, "")


@caught_by("object-list-has-all-pages", "30 are listed, expected 31")
class ListsOnePage(ToyModule):
    """Does not ask for what follows."""

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        return (await super()._list_objects(bucket_id, prefix))[:30]


@caught_by("object-is-read-from-an-offset", "from 1:")
class StartsAnew(ToyModule):
    """Always sends the whole object."""

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        async for chunk in super()._get_object(bucket_id, name, 0):
            yield chunk


@caught_by("object-whose-source-breaks-is-not-stored", "the old object is not what it was")
class WritesInPlace(ToyModule):
    """Overwrites while the content comes."""

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        stored = await self._stored(bucket_id)
        stored[name] = b""
        async for chunk in content():
            stored[name] += chunk


@caught_by("object-of-another-size-is-refused", "was accepted")
class CountsNoBytes(ToyModule):
    """Takes what comes for what was declared."""

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        (await self._stored(bucket_id))[name] = b"".join([chunk async for chunk in content()])


@caught_by("volume-counts-in-the-quota", "are used instead of")
class CountsLater(ToyModule):
    """Tells what was used some time ago."""

    async def _quotas(self) -> list[Quota]:
        return [quota.model_copy(update={"used": 5}) for quota in await super()._quotas()]


@caught_by("quotas-are-told-once", "a resource has several limits")
class LimitsTwice(ToyModule):
    """Tells a limit of each region."""

    async def _quotas(self) -> list[Quota]:
        return 2 * await super()._quotas()


# --- machines ---


@caught_by("first-boot-starts-the-service", "is not in the console")
class PrintsNothing(ToyModule):
    """Its console stays empty."""

    async def _console(self, machine_id: str) -> str:
        await self._get(Machine, machine_id)
        return ""


@caught_by("refused-machine-can-be-ordered-rightly", "Conflict")
class IsOffended(ToyModule):
    """Does not take a key again that it refused."""

    async def _create_machine(self, spec: Any, key: Key) -> Machine:
        try:
            return await super()._create_machine(spec, key)
        except InvalidRequest:
            refused = (await self._cloud()).content
            if key in refused:
                raise Conflict("this key was refused before") from None
            refused[key] = b""
            raise


@caught_by("attaching-the-unknown-is-not-found", "raised Conflict")
class FindsAnExcuse(ToyModule):
    """Calls whatever goes wrong a conflict."""

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        try:
            await super()._attach_volume(volume_id, machine_id, device)
        except NotFound as error:
            raise Conflict("cannot be attached") from error


@pytest.mark.parametrize(("name", "words", "module"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
async def test_broken_module_is_caught(
    cloud: ToyCloud,  # noqa: F811 - the fixture
    name: str,
    words: str,
    module: type[ToyModule],
) -> None:
    """The check that is for it fails on the broken module, and says what is wrong; it shows no secret."""
    result = await conformance.run_check(_check(name), _subject(module))
    assert result.outcome == "failed"
    assert words in result.reason
    assert PASSWORD not in result.reason
