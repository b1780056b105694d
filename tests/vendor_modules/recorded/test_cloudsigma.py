"""CloudSigma, as libcloud recorded it, through our module."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import parse_qsl

import pytest
from libcloud.compute.drivers.cloudsigma import CloudSigma_2_0_NodeDriver
from pydantic import ValidationError

from tests.labs.libcloud_fixtures import PASSWORD, Answer, Recording, Request, examined, recorded, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.cloudsigma import CloudSigmaModule
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.resources import Attachment, Machine, MachineSpec, Status, UserData, VolumeSpec

SETTINGS: dict[str, Any] = {"region": "zrh", "jurisdiction": "CH", "prices_per_hour": {"small-1": "0.03"}}
IMAGE = "5236b9ee-f735-42fd-a236-17558f9e12d3"
SPEC = MachineSpec(name="Zürich ☎", image=IMAGE, size="small-1")
NO_DRIVES = "9de75ed6-fd33-45e2-963f-d405f31fd911"
TEST_1 = "9414bbeb-e908-4e55-ae3f-2eb61adc50d8"
STOPPED = "3df825cb-9c1b-470d-acbd-03e1a966c046"
NEW = "9de75ed6_fd33_45e2_963f_d405f31fd911"
DRIVE, SECOND = "9d1d2cf3-08c1-462f-8485-f4b073560809", "c9799969-0016-4298-a72c-93cabc067c6e"
CREATED_DRIVE = "b02311e2-a83c-4c12-af10-b30d51c86913"


@pytest.fixture
def sigma(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """The recorded service, whose drives are asked about at once."""
    monkeypatch.setattr(CloudSigma_2_0_NodeDriver, "DRIVE_TRANSITION_SLEEP_INTERVAL", 0)
    with replay("test_cloudsigma_v2_0", "CloudSigmaMockHttp", type=None, use_param="do") as recording:
        yield recording


def _lists(sigma: Recording, **edits: Callable[[list[Any]], object]) -> None:
    """Let functions change the objects of the recorded lists, by the word in their paths."""

    def edit(request: Request, answer: Answer) -> None:
        for word, change in edits.items():
            if request.method == "GET" and request.path in (f"/api/2.0/{word}/detail/", f"/api/2.0/{word}"):
                told = json.loads(answer.body)
                change(told["objects"])
                answer.body = json.dumps(told)

    sigma.edit = edit


def _server(**changes: Any) -> dict[str, Any]:
    """The server that was recorded alone, changed."""
    return json.loads(recorded("cloudsigma_2_0", "servers_get.json")) | changes


def test_the_regions_are_cloudsigmas() -> None:
    """A region that CloudSigma does not have is refused with the settings."""
    with pytest.raises(ValidationError, match="zrh"):
        CloudSigmaModule.Settings(**SETTINGS | {"region": "mars"})


async def test_the_sizes(sigma: Recording) -> None:
    """The sizes are CloudSigma's examples, with the prices of the settings."""
    async with examined(CloudSigmaModule, SETTINGS) as module:
        sizes = (await module.catalogue()).sizes
    assert [(s.name, s.cores, s.memory_mib, str(s.price_per_hour)) for s in sizes][:2] == [
        ("small-1", 1, 512, "0.03"),
        ("small-2", 1, 1024, "None"),
    ]
    assert sigma.requests == []  # libcloud has them built in


async def test_the_recorded_machines(sigma: Recording) -> None:
    """The recorded machines are told with their states and addresses."""
    async with examined(CloudSigmaModule, SETTINGS) as module:
        first, second = await module.list_machines()
        assert await module.describe_machine(TEST_1) == second
    assert (first.id, first.name, first.status, first.host) == (
        NO_DRIVES,
        "test no drives",
        Status.ACTIVE,
        "185.12.5.181",
    )
    assert second == Machine(id=TEST_1, name="test-1", status=Status.STOPPED, size=second.size)
    asked = {"limit": "0"}  # all of them
    assert sigma.sent("GET", "/servers/detail/")[0].query == asked


async def test_the_recorded_images(sigma: Recording) -> None:
    """The images are the library's installed drives; they cannot be removed."""
    async with examined(CloudSigmaModule, SETTINGS) as module:
        images = await module.list_images()
        assert await module.describe_image(IMAGE) == images[0]
        with pytest.raises(Unsupported):
            await module.destroy_image(IMAGE)
    assert (images[0].id, images[0].name, images[0].public) == (IMAGE, "ubuntu-10.04-toMP", True)
    assert "IPCop 2.0.2" not in {image.name for image in images}  # a CD


async def test_creating_a_machine(sigma: Recording) -> None:
    """The image's drive is cloned, key, name and user data go into the meta data, and the server is started; a clone
    that an earlier attempt left is removed; the second call creates nothing."""
    chosen = name_for("key-1", "Zürich ☎")
    created = json.loads(recorded("cloudsigma_2_0", "servers_create.json"))["objects"][0]

    def servers(held: list[Any]) -> None:
        sent = sigma.sent("POST", "/servers/")
        held += [created | {"meta": json.loads(request.body)["meta"], "status": "running"} for request in sent]

    def drives(held: list[Any]) -> None:
        held[1].update(uuid=CREATED_DRIVE, name=f"{chosen}-drive")

    _lists(sigma, servers=servers, drives=drives)
    spec = SPEC.model_copy(update={"user_data": UserData(), "key_pair": "186106ac"})
    async with examined(CloudSigmaModule, SETTINGS) as module:
        made = await module.create_machine(spec, key="key-1")
        assert await module.create_machine(spec, key="key-1") == made
    assert (made.id, made.name, made.key, made.status) == (NEW, "Zürich ☎", "key-1", Status.ACTIVE)
    assert made.image == IMAGE
    assert len(sigma.sent("DELETE", f"/drives/{CREATED_DRIVE}/")) == 1
    (clone,) = sigma.sent("POST", f"/drives/{IMAGE}/action/", do="clone")
    assert json.loads(clone.body) == {"name": f"{chosen}-drive"}
    (resize,) = sigma.sent("POST", do="resize")
    assert json.loads(resize.body)["size"] == 50 * 2**30
    (create,) = sigma.sent("POST", "/servers/")
    sent = json.loads(create.body)
    user_data = b64decode(sent["meta"].pop("cloudinit-user-data"))
    assert user_data.startswith(b"#!/bin/sh\n")
    assert sent["meta"] == {
        KEY: "key-1",
        NAME: "Zürich ☎",
        "cloud-agency-image": IMAGE,
        "base64_fields": "cloudinit-user-data",
    }
    assert (sent["name"], sent["cpu"], sent["mem"], sent["pubkeys"]) == (chosen, 2000, 512 * 2**20, ["186106ac"])
    assert len(sigma.sent("POST", f"/servers/{NEW}/action/", do="start")) == 1


async def test_stopping_and_starting(sigma: Recording) -> None:
    """Power is the actions start and stop; what is so already is not asked for."""

    def servers(held: list[Any]) -> None:
        stopped = len(sigma.sent("POST", do="stop")) > len(sigma.sent("POST", do="start"))
        held[0]["status"] = "stopped" if stopped else "running"

    _lists(sigma, servers=servers)
    async with examined(CloudSigmaModule, SETTINGS) as module:
        assert (await module.start_machine(NO_DRIVES)).status is Status.ACTIVE
        assert (await module.stop_machine(NO_DRIVES)).status is Status.STOPPED
        assert (await module.start_machine(NO_DRIVES)).status is Status.ACTIVE
    actions = [request.query["do"] for request in sigma.sent("POST", f"/servers/{NO_DRIVES}/action/")]
    assert actions == ["stop", "start"]


async def test_a_refused_start(sigma: Recording) -> None:
    """What the service answered to starting a server that runs is a Conflict, in its words."""
    _lists(sigma, servers=lambda held: held[0].update(status="stopped"))
    sigma.mock.type = "ALREADY_STARTED"
    for name in ("servers_detail", "drives_b02311e2_a83c_4c12_af10_b30d51c86913"):
        method = getattr(sigma.mock, f"_api_2_0_{name}")
        setattr(sigma.mock, f"_api_2_0_{name}_ALREADY_STARTED", method)
    async with examined(CloudSigmaModule, SETTINGS) as module:
        with pytest.raises(Conflict, match="Cannot start guest in state"):
            await module.start_machine(NO_DRIVES)


async def test_destroying_a_machine(sigma: Recording) -> None:
    """A machine is stopped, its volumes are taken off, and it goes with its own disk; it is gone when not listed."""
    boot = _server()["drives"][0]
    data = {**boot, "boot_order": None, "dev_channel": "0:1", "drive": {"uuid": SECOND}}
    server = _server(uuid=NO_DRIVES, drives=[boot, data])

    def servers(held: list[Any]) -> None:
        held[0] = server | {"status": "stopped" if sigma.sent("POST", do="stop") else "running"}
        if sigma.sent("DELETE"):
            del held[0]

    _lists(sigma, servers=servers)
    lists = sigma.edit

    def edit(request: Request, answer: Answer) -> None:
        if request.method == "GET" and request.path == f"/api/2.0/servers/{NO_DRIVES}/":
            answer.give(200, json.dumps(server | {"status": "stopped"}))
        lists(request, answer)

    sigma.edit = edit
    async with examined(CloudSigmaModule, SETTINGS) as module:
        assert (await module.describe_machine(NO_DRIVES)).volumes == (SECOND,)
        await module.destroy_machine(NO_DRIVES)
        await module.destroy_machine(NO_DRIVES)
        with pytest.raises(NotFound):
            await module.describe_machine(NO_DRIVES)
    (put,) = sigma.sent("PUT", f"/servers/{NO_DRIVES}/")
    assert [drive["drive"]["uuid"] for drive in json.loads(put.body)["drives"]] == [DRIVE]
    (delete,) = sigma.sent("DELETE")
    assert (delete.path, delete.query) == (f"/api/2.0/servers/{NO_DRIVES}/", {"recurse": "all_drives"})


async def test_the_recorded_volumes(sigma: Recording) -> None:
    """Drives are volumes, those that servers start from excepted."""
    async with examined(CloudSigmaModule, SETTINGS) as module:
        volumes = await module.list_volumes()
        assert await module.describe_volume(DRIVE) == volumes[0]
        assert (volumes[0].id, volumes[0].size_mib, volumes[0].status) == (DRIVE, 13312, Status.ACTIVE)
        assert len(volumes) == 4
        _lists(sigma, drives=lambda held: held[0].update(uuid=CREATED_DRIVE))  # which a recorded server starts from
        assert [volume.id for volume in await module.list_volumes()] == [volume.id for volume in volumes[1:]]


async def test_the_life_of_a_volume(sigma: Recording) -> None:
    """A volume is created once under a name that holds its key, attached to a stopped machine as the device that is
    wanted, detached, and removed."""
    chosen = name_for("key-2", "data")
    new = json.loads(recorded("cloudsigma_2_0", "drives_create.json"))["objects"][0]
    server = _server(status="stopped")

    def puts() -> list[Any]:
        return [json.loads(put.body)["drives"] for put in sigma.sent("PUT", f"/servers/{STOPPED}/")]

    def plugged() -> list[Any]:
        """What the last PUT told, as the service then says it."""
        told = puts()[-1] if puts() else server["drives"]
        return [{**d, "drive": d["drive"] if isinstance(d["drive"], dict) else {"uuid": d["drive"]}} for d in told]

    def drives(held: list[Any]) -> None:
        del held[1]  # the one whose id our new one has
        if sigma.sent("POST", "/drives/") and not sigma.sent("DELETE"):
            held.append(new | {"uuid": SECOND, "name": chosen, "status": "unmounted", "size": 2**30})

    _lists(sigma, drives=drives, servers=lambda held: held.append(server | {"drives": plugged()}))
    lists = sigma.edit

    def edit(request: Request, answer: Answer) -> None:
        if request.method == "GET" and request.path == f"/api/2.0/servers/{STOPPED}/":
            answer.body = json.dumps(server | {"drives": plugged()})
        if request.method == "POST" and request.path == "/api/2.0/drives/":
            answer.give(201, recorded("cloudsigma_2_0", "drives_create.json").replace(CREATED_DRIVE, SECOND))
        if request.method == "DELETE":
            answer.give(204)  # recorded for drives of other ids
        lists(request, answer)

    sigma.edit = edit
    async with examined(CloudSigmaModule, SETTINGS) as module:
        volume = await module.create_volume(VolumeSpec(name="data", size_mib=1000), key="key-2")
        assert await module.create_volume(VolumeSpec(name="data", size_mib=1000), key="key-2") == volume
        assert (volume.id, volume.key, volume.size_mib, volume.status) == (SECOND, "key-2", 1024, Status.ACTIVE)
        with pytest.raises(InvalidRequest):
            await module.attach_volume(SECOND, STOPPED, "dev/sdb")
        attached = await module.attach_volume(SECOND, STOPPED, "dev/vde")
        assert (attached.status, attached.machine, attached.device) == (Status.ATTACHED, STOPPED, "dev/vde")
        with pytest.raises(Conflict):
            await module.destroy_volume(SECOND)
        assert (await module.detach_volume(SECOND)).status is Status.ACTIVE
        server["status"] = "running"
        with pytest.raises(Conflict, match="not stopped"):
            await module.attach_volume(SECOND, STOPPED, "dev/vdb")
        await module.destroy_volume(SECOND)
    (create,) = sigma.sent("POST", "/drives/")
    assert json.loads(create.body) == {"name": chosen, "size": 2**30, "media": "disk"}
    assert puts()[0][1] == {"boot_order": None, "dev_channel": "1:0", "device": "virtio", "drive": SECOND}
    assert [drive["drive"]["uuid"] for drive in puts()[1]] == [DRIVE]
    assert len(puts()) == 2
    assert [request.path for request in sigma.sent("DELETE")] == [f"/api/2.0/drives/{SECOND}/"]


async def test_a_machine_with_volumes_is_stopped_for_them(sigma: Recording) -> None:
    """Volumes of a new machine are attached while it is stopped; then it is started again."""
    created = json.loads(recorded("cloudsigma_2_0", "servers_create.json"))["objects"][0] | {"uuid": NO_DRIVES}
    drives: list[Any] = []

    def server() -> dict[str, Any]:
        meta = json.loads(sigma.sent("POST", "/servers/")[0].body)["meta"]
        last = [request.query["do"] for request in sigma.sent("POST", f"/servers/{NO_DRIVES}/action/")][-1]
        for put in sigma.sent("PUT"):
            drives[:] = [{**drive, "drive": {"uuid": drive["drive"]}} for drive in json.loads(put.body)["drives"]]
        return created | {"meta": meta, "status": "running" if last == "start" else "stopped", "drives": drives}

    _lists(sigma, servers=lambda held: sigma.sent("POST", "/servers/") and held.__setitem__(0, server()))
    lists = sigma.edit

    def edit(request: Request, answer: Answer) -> None:
        if request.method == "POST" and request.path == "/api/2.0/servers/":
            answer.body = json.dumps({"objects": [created]})
        if request.method == "GET" and request.path == f"/api/2.0/servers/{NO_DRIVES}/":
            answer.give(200, json.dumps(server()))
        lists(request, answer)

    sigma.edit = edit
    spec = SPEC.model_copy(update={"volumes": (Attachment(volume=SECOND, device="dev/vdb"),)})
    async with examined(CloudSigmaModule, SETTINGS) as module:
        made = await module.create_machine(spec, key="key-3")
        assert await module.create_machine(spec, key="key-3") == made
    assert (made.status, made.volumes) == (Status.ACTIVE, (SECOND,))
    actions = [request.query["do"] for request in sigma.sent("POST", f"/servers/{NO_DRIVES}/action/")]
    assert actions == ["start", "stop", "start"]


async def test_key_pairs(sigma: Recording) -> None:
    """Key pairs go by their ids, and are created once; the private keys that CloudSigma tells are not told on."""
    chosen = name_for("key-4", "laptop")
    imported = json.loads(recorded("cloudsigma_2_0", "keypairs_import.json"))["objects"][0] | {"name": chosen}
    known = "186106ac-afb5-40e5-a0de-6f0feba5a3d5"

    def pairs(held: list[Any]) -> None:
        if sigma.sent("POST"):
            held.append(imported)
        if sigma.sent("DELETE"):
            del held[0]

    _lists(sigma, keypairs=pairs)
    async with examined(CloudSigmaModule, SETTINGS) as module:
        pair = await module.describe_key_pair(known)
        assert (pair.name, pair.fingerprint) == ("ala", "8c:71:a2:f0:bc:a4:45:66:a8:59:77:6d:80:d5:a0:89")
        assert "PRIVATE" not in repr(await module.list_key_pairs())
        made = await module.create_key_pair("laptop", imported["public_key"], key="key-4")
        assert await module.create_key_pair("laptop", imported["public_key"], key="key-4") == made
        assert (made.id, made.key, made.public_key) == (imported["uuid"], "key-4", imported["public_key"])
        await module.destroy_key_pair(known)
        with pytest.raises(NotFound):
            await module.describe_key_pair(known)
    (request,) = sigma.sent("POST", "/keypairs/")
    assert json.loads(request.body) == {"objects": [{"name": chosen, "public_key": imported["public_key"]}]}
    assert [request.path for request in sigma.sent("DELETE")] == [f"/api/2.0/keypairs/{known}/"]


async def test_a_machine_that_is_still_listed_is_not_destroyed(sigma: Recording) -> None:
    """When the service goes on to list a machine that it said is destroyed, it is not believed."""
    _lists(sigma, servers=lambda held: held[0].update(status="stopped"))
    async with examined(CloudSigmaModule, SETTINGS, settle_timeout=0.05) as module:
        with pytest.raises(TimedOut):
            await module.destroy_machine(NO_DRIVES)


async def test_wrong_credentials(sigma: Recording) -> None:
    """What the service answered to wrong credentials is Unauthorized."""
    sigma.mock.type = "INVALID_CREDS"
    async with examined(CloudSigmaModule, SETTINGS) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()


@pytest.mark.parametrize(
    ("status", "error"), [(402, QuotaExceeded), (404, NotFound), (429, Unavailable), (500, Unavailable)]
)
async def test_refusals(sigma: Recording, status: int, error: type[Exception]) -> None:
    """What CloudSigma refuses is told in our words, and without the password."""

    def edit(_: Request, answer: Answer) -> None:
        told = recorded("cloudsigma_2_0", "unknown_error.json").replace("unknown error", f"no: {PASSWORD}")
        answer.give(status, told)

    sigma.edit = edit
    async with examined(CloudSigmaModule, SETTINGS) as module:
        with pytest.raises(error, match="no: ") as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


class Account(Routes):
    """The recorded account, which remembers: what is created is what was recorded, with what was asked for."""

    def __init__(self) -> None:
        super().__init__("cloudsigma_2_0")
        self.servers = self.recorded("servers_detail_mixed_state.json")["objects"]
        self.servers[1]["drives"] = []  # its drive is not among those that were recorded
        self.drives = self.recorded("drives_detail.json")["objects"][:3]
        self.keys = self.recorded("keypairs_list.json")["objects"]
        api = "/api/2.0"
        self.on("GET", f"{api}/libdrives/", lambda _: (200, self.recorded("libdrives.json")))
        for word, held in (("servers/detail/", self.servers), ("drives/detail/", self.drives), ("keypairs", self.keys)):
            self.on("GET", f"{api}/{word}", lambda _, held=held: (200, {"objects": held}))
        for word, held in (("servers", self.servers), ("drives", self.drives)):
            self.on("GET", f"{api}/{word}/([^/]+)/", lambda uuid, _, held=held: (200, self.found(held, uuid)))
        self.on("POST", f"{api}/servers/", self.create)
        self.on("PUT", f"{api}/servers/([^/]+)/", self.change)
        self.on("DELETE", f"{api}/servers/([^/]+)/", self.remove)
        self.on("POST", f"{api}/servers/([^/]+)/action/start", lambda uuid, _: self.switch(uuid, "stopped", "running"))
        self.on("POST", f"{api}/servers/([^/]+)/action/stop", lambda uuid, _: self.switch(uuid, "running", "stopped"))
        self.on("POST", f"{api}/drives/", lambda sent: self.add(sent["name"], sent["size"]))
        self.on("POST", f"{api}/drives/([^/]+)/action/clone", lambda _, sent: self.add(sent["name"], 2**30))
        self.on("POST", f"{api}/drives/([^/]+)/action/resize", self.resize)
        self.on("DELETE", f"{api}/drives/([^/]+)/", self.discard)
        self.on("POST", f"{api}/keypairs/", self.add_key)
        self.on("DELETE", f"{api}/keypairs/([^/]+)/", self.remove_key)

    def __call__(self, method: str, url: str, body: Any = None, headers: Any = None) -> Any:
        path, _, query = url.partition("?")
        action = dict(parse_qsl(query)).get("do", "")
        return super().__call__(method, path + action, body, headers)

    def found(self, held: list[Any], uuid: str) -> Any:
        for one in held:
            if one["uuid"] == uuid:
                return one
        raise Refused(404, [{"error_point": None, "error_type": "notexist", "error_message": f"no {uuid}"}])

    def create(self, sent: Any) -> tuple[int, Any]:
        known = {key["uuid"] for key in self.keys}
        if not {*sent.get("pubkeys", [])} <= known:
            raise Refused(400, [{"error_point": "pubkeys", "error_type": "validation", "error_message": "unknown key"}])
        made = self.recorded("servers_create.json")["objects"][0] | {
            "uuid": f"server-{next(self.numbers)}",
            "status": "stopped",
            **{name: sent[name] for name in ("name", "meta", "cpu", "mem")},
        }
        self.servers.append(made)
        self.plug(made, sent["drives"])
        return 201, {"objects": [made]}

    def plug(self, server: Any, drives: list[Any]) -> None:
        uuids = [drive["drive"]["uuid"] if isinstance(drive["drive"], dict) else drive["drive"] for drive in drives]
        server["drives"] = [{**d, "drive": {"uuid": uuid}} for d, uuid in zip(drives, uuids, strict=True)]
        mounted = {drive["drive"]["uuid"] for one in self.servers for drive in one["drives"]}
        for drive in self.drives:
            drive["status"] = "mounted" if drive["uuid"] in mounted else "unmounted"

    def change(self, uuid: str, sent: Any) -> tuple[int, Any]:
        server = self.found(self.servers, uuid)
        if server["status"] == "stopped":  # CloudSigma ignores it otherwise
            self.plug(server, sent["drives"])
        return 200, server

    def remove(self, uuid: str, _: Any) -> tuple[int, Any]:
        server = self.found(self.servers, uuid)
        if server["status"] != "stopped":
            raise Refused(403, [{"error_point": None, "error_type": "permission", "error_message": "in state started"}])
        self.servers.remove(server)
        gone = {drive["drive"]["uuid"] for drive in server["drives"]}
        self.drives[:] = [drive for drive in self.drives if drive["uuid"] not in gone]
        return 204, None

    def switch(self, uuid: str, before: str, after: str) -> tuple[int, Any]:
        server = self.found(self.servers, uuid)
        if server["status"] != before:
            raise Refused(403, self.recorded("start_already_started.json"))
        server["status"] = after
        return 202, self.recorded("start_success.json")

    def add(self, name: str, size: int) -> tuple[int, Any]:
        made = self.recorded("drives_create.json")["objects"][0]
        made |= {"uuid": f"drive-{next(self.numbers)}", "name": name, "size": size, "status": "unmounted"}
        self.drives.append(made)
        return 201, {"objects": [made]}

    def resize(self, uuid: str, sent: Any) -> tuple[int, Any]:
        drive = self.found(self.drives, uuid)
        drive["size"] = sent["size"]
        return 202, {"objects": [drive]}

    def discard(self, uuid: str, _: Any) -> tuple[int, Any]:
        self.drives.remove(self.found(self.drives, uuid))
        return 204, None

    def add_key(self, sent: Any) -> tuple[int, Any]:
        (wanted,) = sent["objects"]
        if not wanted["public_key"].split(" ")[1].startswith("AAAA"):
            raise Refused(400, [{"error_point": "public_key", "error_type": "validation", "error_message": "bad"}])
        made = self.recorded("keypairs_import.json")["objects"][0] | wanted | {"uuid": f"key-{next(self.numbers)}"}
        self.keys.append(made)
        return 201, {"objects": [made]}

    def remove_key(self, uuid: str, _: Any) -> tuple[int, Any]:
        self.keys.remove(self.found(self.keys, uuid))
        return 204, None


CHECKS = checks_for(
    CloudSigmaModule,
    [
        *(f"{kind}-keeps-a-" for kind in ("key-pair", "volume")),
        *(f"{kind}-is-told-from-its-namesake" for kind in ("key-pair", "volume")),
    ],
)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check) -> None:
    """The module keeps the contract of the check, on a recorded account that remembers."""
    settings = SETTINGS | {"block_gib_month": "0.10"}
    more = {"image": IMAGE, "size": "small-1", "volume_mib": 1024, "credentials_checked": False}
    with replay("test_cloudsigma_v2_0", "CloudSigmaMockHttp", _get_request=Account()):
        result = await conformance.run_check(check, subject(CloudSigmaModule, settings, **more))
    assert result.outcome != "failed", result.reason


def test_enough_is_checked() -> None:
    """At least 90 checks are run: those that are left out go by parts of their names."""
    assert len(CHECKS) >= 90
