"""The machinery that all Vendor Modules share: retries, limits, records, errors, waiting."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator
from decimal import Decimal
from functools import partial
from typing import Any

import pytest
import stamina

from descriptors.deployment import Kind
from vendor_modules.capabilities import ImageDownload, Power, Volumes, capabilities, destroy, inventory, release
from vendor_modules.conformance.bench import FixedCredentials, RecordingLog
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ResourceFailed,
    Throttled,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import (
    Catalogue,
    Image,
    Key,
    Machine,
    MachineSpec,
    Size,
    Status,
    UserData,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import (
    AccessKeyCredentials,
    ExternalCredentials,
    PasswordCredentials,
    resolve,
)
from vendor_modules.services.persistence import MemoryPersistence, ResourceRecord
from vendor_modules.services.serialization import JsonSerialization

SPEC = MachineSpec(name="web", image="base", size="small")


def _machine(status: Status = Status.ACTIVE, **values: Any) -> Machine:
    return Machine.model_validate({"id": "m-1", "name": "web", "key": "k", "status": status, "size": "small", **values})


class Scripted(Power, Volumes, ImageDownload):
    """A module whose provider answers from a script: for each call a list of answers, the last one for ever."""

    title = "Scripted"
    proof = Proof.EMULATOR
    credential_kinds = ()

    def __init__(self, **script: list[Any]) -> None:
        self.log = RecordingLog()
        self.persistence = MemoryPersistence()
        services = Services(FixedCredentials(None), self.persistence, self.log, JsonSerialization())
        super().__init__("alpha", ModuleSettings(), services)
        self.script = script
        self.calls: list[str] = []

    async def _say(self, call: str) -> Any:
        self.calls.append(call)
        answers = self.script.get(call, [_machine()])
        answer = answers.pop(0) if len(answers) > 1 else answers[0]
        if isinstance(answer, Callable):  # type: ignore[arg-type]
            return await answer()
        if isinstance(answer, Exception):
            raise answer
        return answer

    async def _catalogue(self) -> Catalogue:
        size = Size(name="small", cores=1, memory_mib=512, price_per_hour=Decimal("0.01"))
        return Catalogue(region="desk-1", jurisdiction="EU", currency="EUR", sizes=(size,))

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await self._say("create")  # type: ignore[no-any-return]

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._say("describe")  # type: ignore[no-any-return]

    async def _list_machines(self) -> list[Machine]:
        return await self._say("list")  # type: ignore[no-any-return]

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._say("destroy")

    async def _start_machine(self, machine_id: str) -> None:
        await self._say("start")

    async def _stop_machine(self, machine_id: str) -> None:
        await self._say("stop")

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        return await self._say("create volume")  # type: ignore[no-any-return]

    async def _describe_volume(self, volume_id: str) -> Volume:
        return await self._say("describe volume")  # type: ignore[no-any-return]

    async def _list_volumes(self) -> list[Volume]:
        return await self._say("list volumes")  # type: ignore[no-any-return]

    async def _destroy_volume(self, volume_id: str) -> None:
        await self._say("destroy volume")

    async def _describe_image(self, image_id: str) -> Image:
        return await self._say("describe image")  # type: ignore[no-any-return]

    async def _list_images(self) -> list[Image]:
        return await self._say("list images")  # type: ignore[no-any-return]

    async def _destroy_image(self, image_id: str) -> None:
        await self._say("destroy image")

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        yield b"first"
        raise ConnectionResetError("cut")

    async def _close(self) -> None:
        self.calls.append("close")

    def _translate(self, error: Exception) -> VendorError | None:
        return InvalidRequest(str(error)) if isinstance(error, ZeroDivisionError) else super()._translate(error)


@pytest.fixture(autouse=True)
def _no_waiting() -> Iterator[None]:
    """Retries come at once, as many as the module says."""
    with stamina.set_testing(True, attempts=Scripted.attempts):
        yield


# --- retries, limits, errors ---


@pytest.mark.parametrize("error", [Unavailable("down"), TimedOut("slow"), Throttled("busy", retry_after=0.01)])
async def test_retryable_errors_are_retried(error: VendorError) -> None:
    """A call is repeated while its errors say that this can help, and its answer given."""
    module = Scripted(list=[error, error, []])
    assert await module.list_machines() == []
    assert module.calls == ["list"] * 3


@pytest.mark.parametrize("error", [Unauthorized("no"), NotFound("none"), Conflict("in use"), ResourceFailed("broken")])
async def test_other_errors_are_not_retried(error: VendorError) -> None:
    """A call whose error says that no repetition helps is made once."""
    module = Scripted(list=[error])
    with pytest.raises(type(error)):
        await module.list_machines()
    assert module.calls == ["list"]


async def test_retries_end() -> None:
    """After as many attempts as the module allows, the last error comes out."""
    module = Scripted(list=[Unavailable("down")])
    with pytest.raises(Unavailable, match="down"):
        await module.list_machines()
    assert module.calls == ["list"] * Scripted.attempts


async def test_slow_call_times_out() -> None:
    """A call that takes longer than the limit ends in TimedOut, which can be retried."""
    module = Scripted(list=[lambda: asyncio.sleep(60)])
    module.attempts = 2  # type: ignore[misc]
    module.call_timeout = 0.02  # type: ignore[misc]
    with pytest.raises(TimedOut, match=r"no answer within 0\.02 s"):
        await module.list_machines()


@pytest.mark.parametrize(
    ("raised", "mapped"),
    [
        (ConnectionRefusedError("refused"), Unavailable),
        (OSError("unreachable"), Unavailable),
        (TimeoutError(), TimedOut),
        (ZeroDivisionError("the library's own"), InvalidRequest),
    ],
)
async def test_errors_of_lower_layers_are_mapped(raised: Exception, mapped: type[VendorError]) -> None:
    """What a library or the network raises becomes an error of the tree, with vendor, operation and cause."""
    module = Scripted(list=[raised])
    with pytest.raises(mapped) as caught:
        await module.list_machines()
    assert (caught.value.vendor, caught.value.operation) == ("alpha", "list machines")
    assert str(caught.value).startswith("alpha: list machines: ")
    assert isinstance(caught.value.__cause__, type(raised))


async def test_faults_of_ours_are_not_dressed_up() -> None:
    """An error that is a fault of our own comes out as it is, at once."""
    module = Scripted(list=[KeyError("typo")])
    with pytest.raises(KeyError, match="typo"):
        await module.list_machines()
    assert module.calls == ["list"]


async def test_cause_of_a_vendor_error_is_kept() -> None:
    """The cause that a module gave its error is still there when the error comes out, and never the error itself."""

    async def fail() -> None:
        raise Conflict("in use") from ZeroDivisionError("the library's words")

    with pytest.raises(Conflict) as caught:
        await Scripted(list=[fail]).list_machines()
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


async def test_broken_stream_is_unavailable() -> None:
    """A download that breaks gives what came, and then Unavailable: the caller goes on from there."""
    stream = Scripted().download_image("image")
    assert await anext(stream) == b"first"
    with pytest.raises(Unavailable, match="alpha: download image: cut"):
        await anext(stream)


# --- records ---


async def _record(module: Scripted, kind: Kind = "machine") -> ResourceRecord | None:
    return await module.persistence.resource("alpha", kind, "key-1")


async def test_intent_is_recorded_before_the_call() -> None:
    """When the provider is asked to create, the intent is on record already."""
    seen: list[ResourceRecord | None] = []

    async def create() -> Machine:
        seen.append(await _record(module))
        return _machine()

    module = Scripted(create=[create])
    await module.create_machine(SPEC, key="key-1")
    assert seen == [ResourceRecord("alpha", "machine", "key-1", "intended")]
    assert await _record(module) == ResourceRecord("alpha", "machine", "key-1", "created", "m-1")


@pytest.mark.parametrize("failure", [Unavailable("down"), Conflict("no"), KeyError("ours")])
async def test_intent_stays_when_the_call_fails(failure: Exception) -> None:
    """A creating call that fails leaves the intent on record: it may have happened all the same."""
    module = Scripted(create=[failure])
    with pytest.raises(type(failure)):
        await module.create_machine(SPEC, key="key-1")
    assert await _record(module) == ResourceRecord("alpha", "machine", "key-1", "intended")


async def test_intent_stays_when_the_call_is_cancelled() -> None:
    """A creating call that is cancelled leaves the intent on record."""
    module = Scripted(create=[lambda: asyncio.sleep(60)])
    call = asyncio.ensure_future(module.create_machine(SPEC, key="key-1"))
    await asyncio.sleep(0.01)
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    assert await _record(module) == ResourceRecord("alpha", "machine", "key-1", "intended")


async def test_nothing_is_created_without_a_record() -> None:
    """When the intent cannot be recorded, the provider is not asked."""
    module = Scripted()

    async def broken(record: ResourceRecord) -> None:
        raise OSError("disk full")

    module.persistence.save_resource = broken  # type: ignore[method-assign]
    with pytest.raises(OSError, match="disk full"):
        await module.create_machine(SPEC, key="key-1")
    assert module.calls == []


async def test_destroyed_is_recorded_once_it_is_gone() -> None:
    """A resource is recorded as destroyed when describing it raises NotFound, not when the provider says so."""
    module = Scripted(describe=[_machine(), _machine(), NotFound("gone")])
    await module.persistence.save_resource(ResourceRecord("alpha", "machine", "key-1", "created", "m-1"))
    await module.destroy_machine("m-1")
    assert module.calls == ["destroy", "describe", "describe", "describe"]
    record = await _record(module)
    assert record is not None
    assert record.status == "destroyed"


async def test_destroying_what_is_gone_is_fine() -> None:
    """NotFound from the destroying call is success."""
    module = Scripted(destroy=[NotFound("gone")])
    await module.destroy_machine("m-1")
    assert module.calls == ["destroy"]


async def test_resource_that_does_not_go_away_times_out() -> None:
    """A resource that is still there after the time limit is TimedOut, and not recorded as destroyed."""
    module = Scripted()
    module.settle_timeout = 0.2  # type: ignore[misc]
    await module.persistence.save_resource(ResourceRecord("alpha", "machine", "key-1", "created", "m-1"))
    with pytest.raises(TimedOut, match=r"machine m-1 is still active after 0\.2 s, expected gone"):
        await module.destroy_machine("m-1")
    record = await _record(module)
    assert record is not None
    assert record.status == "created"


# --- waiting ---


async def test_creation_waits_until_active() -> None:
    """Creating returns the machine as it is once it is ACTIVE."""
    pending = _machine(Status.PENDING)
    module = Scripted(create=[pending], describe=[pending, pending, _machine(port=8080)])
    assert (await module.create_machine(SPEC, key="key-1")).port == 8080
    assert module.calls == ["create", "describe", "describe", "describe"]


async def test_what_is_made_may_be_found_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A new machine that the provider does not find yet is waited for as long as its lists may lag, and no longer."""
    module = Scripted(describe=[NotFound("where?"), NotFound("where?"), _machine()])
    with pytest.raises(NotFound):
        await module.create_machine(SPEC, key="key-1")
    monkeypatch.setattr(Scripted, "visible_within", 60)
    module = Scripted(describe=[NotFound("where?"), NotFound("where?"), _machine()])
    assert (await module.create_machine(SPEC, key="key-1")).id == "m-1"
    monkeypatch.setattr(Scripted, "visible_within", 0.1)
    with pytest.raises(NotFound):
        await Scripted(describe=[NotFound("where?")]).create_machine(SPEC, key="key-1")


async def test_an_answer_that_comes_late_was_asked_for_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """What was asked before a new machine had to be found, or to be ready, is no proof that it is not: it is asked
    again when it must."""

    async def late(answer: Any) -> Any:
        await asyncio.sleep(0.3)
        if isinstance(answer, Exception):
            raise answer
        return answer

    monkeypatch.setattr(Scripted, "visible_within", 0.2)
    module = Scripted(describe=[partial(late, NotFound("where?")), _machine()])
    assert (await module.create_machine(SPEC, key="key-1")).id == "m-1"
    module = Scripted(describe=[partial(late, _machine(Status.PENDING)), _machine()])
    module.settle_timeout = 0.2  # type: ignore[misc]
    assert (await module.create_machine(SPEC, key="key-1")).id == "m-1"


async def test_machine_that_fails_says_why() -> None:
    """A machine that ends in ERROR raises ResourceFailed with the provider's reason."""
    module = Scripted(describe=[_machine(Status.PENDING), _machine(Status.ERROR, problem="no such image")])
    with pytest.raises(ResourceFailed, match="m-1 failed: no such image"):
        await module.create_machine(SPEC, key="key-1")


async def test_machine_that_stays_pending_times_out() -> None:
    """A machine that does not get ready in time raises TimedOut with what it is and what was expected."""
    module = Scripted(describe=[_machine(Status.PENDING)])
    module.settle_timeout = 0.2  # type: ignore[misc]
    with pytest.raises(TimedOut, match=r"still pending after 0\.2 s, expected active"):
        await module.create_machine(SPEC, key="key-1")


async def test_reboot_stops_and_starts() -> None:
    """A reboot is a stop, seen to be done, and a start."""
    module = Scripted(describe=[_machine(Status.STOPPED), _machine()])
    assert (await module.reboot_machine("m-1")).status is Status.ACTIVE
    assert module.calls == ["stop", "describe", "start", "describe"]


async def test_module_is_closed() -> None:
    """Leaving the module's block closes it, also after an error."""
    module = Scripted(list=[Conflict("no")])

    async def use() -> None:
        async with module:
            await module.list_machines()

    with pytest.raises(Conflict):
        await use()
    assert module.calls == ["list", "close"]


# --- capabilities ---


def test_capabilities_are_what_is_inherited() -> None:
    """A module's capabilities are those whose classes it inherits, no more and no less."""
    assert capabilities(Scripted) == ["machines", "power", "volumes", "image-list", "image-download"]


async def test_inventory_leaves_out_public_images_and_absent_services() -> None:
    """The inventory has what the account holds, in the order of release; no public image, no absent service."""
    volume = Volume(id="v-1", name="v", status=Status.ACTIVE, size_mib=1)
    base = {"name": "i", "status": "active", "format": "raw"}
    images = [Image.model_validate({"id": name, "public": name == "base", **base}) for name in ("base", "own")]
    script: dict[str, list[Any]] = {"list": [[_machine()]], "list images": [images]}
    held = await inventory(Scripted(**script, **{"list volumes": [[volume]]}))
    assert [(kind, resource.id) for kind, resource in held] == [("machine", "m-1"), ("volume", "v-1"), ("image", "own")]
    held = await inventory(Scripted(**script, **{"list volumes": [Unsupported("none")]}))
    assert [kind for kind, _ in held] == ["machine", "image"]


async def test_release_destroys_by_key() -> None:
    """All that has the key is destroyed and counted; nothing else is touched."""
    machines = [_machine(id="m-1"), _machine(id="m-2", key="other")]
    module = Scripted(list=[machines], describe=[NotFound("gone")])
    assert await release(module, "machine", "k") == 1
    assert module.calls == ["list", "destroy", "describe"]
    assert await release(module, "machine", "unknown") == 0


async def test_kind_that_the_module_does_not_have() -> None:
    """Destroying a kind that the module cannot hold raises Unsupported with the vendor's name."""
    with pytest.raises(Unsupported, match="alpha: handle bucket: has no object-storage"):
        await destroy(Scripted(), "bucket", "b-1")


# --- the credentials' helper ---


def test_password_is_resolved_at_the_moment_of_use(monkeypatch: pytest.MonkeyPatch) -> None:
    """External credentials are read from the environment each time; a password is taken as it is."""
    external = ExternalCredentials(username="ada", variable="ADAS_PASSWORD")
    for word in ("one", "two"):
        monkeypatch.setenv("ADAS_PASSWORD", word)
        assert resolve(external).password.get_secret_value() == word
    given = PasswordCredentials.model_validate({"username": "ada", "password": "three"})
    assert resolve(given) is given


def test_credentials_that_cannot_log_in_are_explained(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unset variable is named; credentials of another kind, or none, are Unauthorized in words."""
    monkeypatch.delenv("ADAS_PASSWORD", raising=False)
    with pytest.raises(Unauthorized, match="ADAS_PASSWORD, which is not set"):
        resolve(ExternalCredentials(username="ada", variable="ADAS_PASSWORD"))
    with pytest.raises(Unauthorized, match="given are: none"):
        resolve(None)
    with pytest.raises(Unauthorized, match="given are: access-key"):
        resolve(AccessKeyCredentials.model_validate({"access_key": "a", "secret_key": "b"}))


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("user_data", UserData()),
        ("key_pair", "pair"),
        ("security_groups", ("group",)),
        ("networks", ("network",)),
    ],
)
async def test_what_is_not_honoured_is_refused(field: str, value: object) -> None:
    """A machine is not made without what was ordered with it: the module has no capability for that."""
    module = Scripted()
    with pytest.raises(Unsupported, match=field.replace("_", " ")) as error:
        await module.create_machine(SPEC.model_copy(update={field: value}), key="k")
    assert (error.value.vendor, error.value.operation) == ("alpha", "create machine")
    assert module.calls == []


@pytest.mark.parametrize("field", ["image", "snapshot"])
async def test_a_volume_is_not_made_empty_instead(field: str) -> None:
    """A volume from an image or a snapshot is refused where the module cannot make one: an empty one is no answer."""
    module = Scripted()
    with pytest.raises(Unsupported, match=f"from {field}s"):
        await module.create_volume(VolumeSpec(name="v", size_mib=1, **{field: "source"}), key="k")
    assert module.calls == []
