"""OnApp, as libcloud recorded it, through our module."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.labs.libcloud_fixtures import PASSWORD, Answer, Recording, Request, examined, recorded, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, QuotaExceeded, TimedOut, Unauthorized, Unsupported
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.onapp import OnAppModule
from vendor_modules.resources import DiskFormat, Image, Machine, MachineSpec, Status

SETTINGS: dict[str, Any] = {
    "region": "home",
    "jurisdiction": "EU",
    "url": "https://onapp.example",
    "sizes": [
        {"name": "small", "cores": 1, "memory_mib": 1024},
        {"name": "large", "cores": 2, "memory_mib": 8192, "disk_gib": 40},
    ],
    "prices_per_hour": {"small": "0.02"},
}
SPEC = MachineSpec(name="Büro ☎", image="123456", size="large")
FRED = Machine(id="123456", name="onapp-fred", status=Status.ACTIVE, size="large", image="93", host="192.168.15.72")


@pytest.fixture
def onapp() -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_onapp", "OnAppMockHttp") as recording:
        yield recording


def _list(recording: Recording, path: str, change: Any) -> None:
    """Let ``change`` edit the recorded list at that path."""

    def edit(request: Request, answer: Answer) -> None:
        if request.method == "GET" and request.path == path:
            held = json.loads(answer.body)
            change(held)
            answer.body = json.dumps(held)

    recording.edit = edit


async def test_the_sizes_are_those_of_the_settings(onapp: Recording) -> None:
    """The catalogue has the sizes and prices that the settings tell; a size without a price has none."""
    async with examined(OnAppModule, SETTINGS) as module:
        sizes = (await module.catalogue()).sizes
    assert [(size.name, size.cores, size.memory_mib, str(size.price_per_hour)) for size in sizes] == [
        ("small", 1, 1024, "0.02"),
        ("large", 2, 8192, "None"),
    ]


async def test_the_recorded_machine_and_template(onapp: Recording) -> None:
    """The recorded machine and template are told with all that they have, and passwords are not among it."""
    async with examined(OnAppModule, SETTINGS) as module:
        assert await module.list_machines() == [FRED]
        assert await module.describe_machine("123456") == FRED
        images = await module.list_images()
        assert images == [await module.describe_image("123456")]
    name = "CentOS 5.11 x64"
    assert images == [Image(id="123456", name=name, status=Status.ACTIVE, format=DiskFormat.RAW, public=True)]


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ({"booted": False}, Status.STOPPED),
        ({"built": False, "booted": False}, Status.PENDING),
        ({"state": "failed"}, Status.ERROR),
    ],
)
async def test_states(onapp: Recording, told: dict[str, Any], status: Status) -> None:
    """A machine's state is read from what OnApp says of its building and booting."""
    _list(onapp, "/virtual_machines.json", lambda held: held[0]["virtual_machine"].update(told))
    async with examined(OnAppModule, SETTINGS) as module:
        assert (await module.describe_machine("123456")).status is status


async def test_creating_a_machine(onapp: Recording) -> None:
    """What is asked for goes into the request, key and name into the note; the second call creates nothing."""
    created = json.loads(recorded("onapp", "create_node.json"))

    def change(held: list[Any]) -> None:
        for sent in onapp.sent("POST"):
            created["virtual_machine"]["note"] = json.loads(sent.body)["virtual_machine"]["note"]
            held.append(created)

    _list(onapp, "/virtual_machines.json", change)
    async with examined(OnAppModule, SETTINGS) as module:
        made = await module.create_machine(SPEC, key="key-1")
        again = await module.create_machine(SPEC, key="key-1")
    assert made == again
    assert (made.id, made.name, made.key, made.status) == ("456789", "Büro ☎", "key-1", Status.ACTIVE)
    (request,) = onapp.sent("POST", "/virtual_machines.json")
    sent = json.loads(request.body)["virtual_machine"]
    assert json.loads(sent.pop("note")) == {KEY: "key-1", NAME: "Büro ☎"}
    chosen = name_for("key-1", "Büro ☎")
    assert sent == {
        "label": chosen,
        "hostname": chosen,
        "memory": 8192,
        "cpus": 2,
        "cpu_shares": 100,
        "template_id": "123456",
        "primary_disk_size": 40,
        "swap_disk_size": 0,
        "required_virtual_machine_build": 1,
        "required_ip_address_assignment": 1,
        "rate_limit": None,
    }


async def test_what_cannot_be_made_is_refused(onapp: Recording) -> None:
    """A size, image or key pair that is not there is refused before anything is created."""
    async with examined(OnAppModule, SETTINGS) as module:
        with pytest.raises(InvalidRequest):
            await module.create_machine(SPEC.model_copy(update={"size": "huge"}), key="k")
        with pytest.raises(NotFound):
            await module.create_machine(SPEC.model_copy(update={"image": "1"}), key="k")
        with pytest.raises(NotFound):
            await module.create_machine(SPEC.model_copy(update={"key_pair": "77"}), key="k")
        with pytest.raises(Unsupported):
            await module.create_machine(SPEC.model_copy(update={"networks": ("n",)}), key="k")
        with pytest.raises(Unsupported):
            await module.destroy_image("123456")
    assert onapp.sent("POST") == onapp.sent("DELETE") == []


async def test_destroying_a_machine(onapp: Recording) -> None:
    """A destroyed machine is gone when it is not listed any more, whatever the answer to the call was."""

    def change(held: list[Any]) -> None:
        held[0]["virtual_machine"]["identifier"] = "identABC"
        if onapp.sent("DELETE"):
            held.clear()

    _list(onapp, "/virtual_machines.json", change)
    async with examined(OnAppModule, SETTINGS) as module:
        await module.destroy_machine("identABC")
        assert await module.list_machines() == []
    assert len(onapp.sent("DELETE", "/virtual_machines/identABC.json")) == 1


async def test_a_machine_that_is_still_listed_is_not_destroyed(onapp: Recording) -> None:
    """When the service says that a machine is destroyed and goes on to list it, it is not believed."""
    _list(onapp, "/virtual_machines.json", lambda held: held[0]["virtual_machine"].update(identifier="identABC"))
    async with examined(OnAppModule, SETTINGS, settle_timeout=0.05) as module:
        with pytest.raises(TimedOut):
            await module.destroy_machine("identABC")


async def test_the_recorded_key_pairs(onapp: Recording) -> None:
    """The recorded SSH keys are told, with their numbers for ids; removing one that is there asks for that."""
    async with examined(OnAppModule, SETTINGS) as module:
        first, second = await module.list_key_pairs()
        assert first == await module.describe_key_pair("1")
        assert (first.id, second.id, first.key) == ("1", "2", "")
        assert first.public_key.endswith("John@Johns-MacBook-Pro")
        _list(onapp, "/users/123/ssh_keys.json", lambda held: onapp.sent("DELETE") and held.pop(0))
        await module.destroy_key_pair("1")
        with pytest.raises(NotFound):
            await module.describe_key_pair("1")
    assert len(onapp.sent("DELETE", "/settings/ssh_keys/1.json")) == 1


async def test_creating_a_key_pair(onapp: Recording) -> None:
    """Key and name go into the SSH key's comment and are found there again; the key itself comes back as it was."""
    public_key = "ssh-ed25519 AAAAC3Nz me@home"

    def change(held: list[Any]) -> None:
        for sent in onapp.sent("POST"):
            held.append({"ssh_key": json.loads(recorded("onapp", "import_key_pair.json"))["ssh_key"]})
            held[-1]["ssh_key"]["key"] = json.loads(sent.body)["key"]

    _list(onapp, "/users/123/ssh_keys.json", change)
    async with examined(OnAppModule, SETTINGS) as module:
        made = await module.create_key_pair("my key ☎", public_key, key="key-2")
        assert await module.create_key_pair("my key ☎", public_key, key="key-2") == made
    assert (made.id, made.name, made.key, made.public_key) == ("3", "my key ☎", "key-2", public_key)
    (request,) = onapp.sent("POST", "/users/123/ssh_keys.json")
    assert json.loads(request.body)["key"] == f"{public_key} {KEY}=key-2 {NAME}=my%20key%20%E2%98%8E"


@pytest.mark.parametrize(
    ("status", "error"), [(401, Unauthorized), (409, Conflict), (413, QuotaExceeded), (422, InvalidRequest)]
)
async def test_refusals(onapp: Recording, status: int, error: type[Exception]) -> None:
    """What OnApp refuses is told in our words, and without the password."""

    def edit(request: Request, answer: Answer) -> None:
        answer.status, answer.body = status, json.dumps({"errors": [f"wrong: {PASSWORD}"]})

    onapp.edit = edit
    async with examined(OnAppModule, SETTINGS) as module:
        with pytest.raises(error) as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


class Account(Routes):
    """The recorded account, which remembers: what is created is what was recorded, with what was asked for."""

    def __init__(self) -> None:
        super().__init__("onapp")
        self.machines = self.recorded("list_nodes.json")
        self.keys = self.recorded("list_key_pairs.json")
        self.on("GET", "/virtual_machines.json", lambda _: (200, self.machines))
        self.on("POST", "/virtual_machines.json", self.build)
        self.on("DELETE", "/virtual_machines/(.+).json", self.destroy)
        self.on("GET", "/templates.json", lambda _: (200, self.recorded("list_images.json")))
        self.on("GET", "/profile.json", lambda _: (200, self.recorded("profile.json")))
        self.on("GET", "/users/123/ssh_keys.json", lambda _: (200, self.keys))
        self.on("POST", "/users/123/ssh_keys.json", self.add_key)
        self.on("DELETE", "/settings/ssh_keys/(.+).json", self.remove_key)

    def build(self, sent: Any) -> tuple[int, Any]:
        wanted = sent["virtual_machine"]
        made = self.recorded("create_node.json")
        made["virtual_machine"] |= {name: wanted[name] for name in ("label", "note", "memory", "cpus", "template_id")}
        made["virtual_machine"]["identifier"] = str(next(self.numbers))
        self.machines.append(made)
        return 201, made

    def destroy(self, identifier: str, _: Any) -> tuple[int, Any]:
        self.machines[:] = [one for one in self.machines if one["virtual_machine"]["identifier"] != identifier]
        return 204, None

    def add_key(self, sent: Any) -> tuple[int, Any]:
        if not sent["key"].split(" ")[1].startswith("AAAA"):
            raise Refused(422, {"errors": {"key": ["is invalid"]}})
        made = self.recorded("import_key_pair.json")
        made["ssh_key"] |= {"id": next(self.numbers), "key": sent["key"]}
        self.keys.append(made)
        return 201, made

    def remove_key(self, number: str, _: Any) -> tuple[int, Any]:
        self.keys[:] = [one for one in self.keys if str(one["ssh_key"]["id"]) != number]
        return 204, None


CHECKS = checks_for(OnAppModule, [])


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check) -> None:
    """The module keeps the contract of the check, on a recorded account that remembers."""
    examinee = subject(OnAppModule, SETTINGS, image="123456", credentials_checked=False)
    with replay("test_onapp", "OnAppMockHttp", _get_request=Account()):
        result = await conformance.run_check(check, examinee)
    assert result.outcome != "failed", result.reason


def test_enough_is_checked() -> None:
    """At least 60 checks are run: those that apply are found by what the module can do."""
    assert len(CHECKS) >= 60
