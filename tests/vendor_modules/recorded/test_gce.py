"""Google Compute Engine, as libcloud recorded it, through our module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import pytest
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from libcloud.common.google import GoogleBaseConnection
from pydantic import SecretStr

from tests.labs.libcloud_fixtures import Recording, examined, recorded, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
)
from vendor_modules.gce import GceModule
from vendor_modules.labels import KEY, NAME, name_for, unpacked
from vendor_modules.resources import Attachment, MachineSpec, Size, Status, UserData, VolumeSpec
from vendor_modules.services.credentials import PasswordCredentials
from vendor_modules.services.prices import CataloguePrices

SETTINGS: dict[str, Any] = {
    "region": "us-central1",
    "jurisdiction": "US",
    "block_gib_month": "0.04",
    "project": "project-name",
    "zone": "us-central1-a",
}
IMAGE = "debian-7-wheezy-v20131014"
SPEC = MachineSpec(name="Web ☎", image=IMAGE, size="n1-standard-1")
_KNOWN = ("us-central1", "europe-west1")
BASE = "/compute/v1/projects/project-name"
LINK = f"https://www.googleapis.com{BASE}/zones/us-central1-a"


def _key() -> str:
    key = rsa.generate_private_key(65537, 2048)
    return key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()


CREDENTIALS = PasswordCredentials(username="agency@project.iam.gserviceaccount.com", password=SecretStr(_key()))


@cache
def _text(file: str) -> str:
    return recorded("gce", file).replace("project_name", "project-name")


class Project(Routes):
    """The recorded project, which remembers: what is created is what was recorded, with what was asked for."""

    def __init__(self) -> None:
        super().__init__("gce")
        zone = "zones/us-central1-a"
        self.instances = {"node-name": self.recorded("zones_us-central1-a_instances_node-name.json")}
        self.disks = {
            one["name"]: one
            for one in (self.recorded("zones_us-central1-a_disks_lcdisk.json"), self._boot("node-name"))
        }
        self.snapshots = {one["name"]: one for one in self.recorded("global_snapshots.json")["items"][:1]}
        self.failing: dict[str, Any] | None = None
        """What the next operation ends with, if it fails."""
        self.on(
            "POST",
            "/o/oauth2/token",
            lambda _: (200, {"access_token": "t", "token_type": "Bearer", "expires_in": 3600}),
        )
        self.on("GET", f"{BASE}/(zones|regions)", lambda kind, _: (200, self._here(kind)))
        sizes = self.recorded("zones_us-central1-a_machineTypes.json")
        self.on("GET", f"{BASE}/{zone}/machineTypes", lambda _: (200, sizes))
        self.on(
            "GET",
            f"{BASE}/{zone}/diskTypes/pd-standard",
            lambda _: (200, self.recorded("zones_us-central1-a_diskTypes_pd_standard.json")),
        )
        self.on(
            "GET", f"{BASE}/global/networks/default", lambda _: (200, self.recorded("global_networks_default.json"))
        )
        self.on("GET", f"{BASE}/global/images", lambda _: (200, self.recorded("global_images.json")))
        self.on("GET", "/compute/v1/projects/([a-z-]+)/global/images", self._images)
        self.on("GET", f"{BASE}/aggregated/disks", lambda _: (200, self._all("disks", self.disks)))
        for path, held in (
            (f"{zone}/instances", self.instances),
            (f"{zone}/disks", self.disks),
            ("global/snapshots", self.snapshots),
        ):
            self.on("GET", f"{BASE}/{path}", lambda _, held=held: (200, {"items": list(held.values())}))
            self.on("GET", f"{BASE}/{path}/([^/]+)", lambda name, _, held=held: (200, self._one(held, name)))
            self.on("DELETE", f"{BASE}/{path}/([^/]+)", lambda name, _, held=held: self._delete(held, name))
        self.on("GET", f"{BASE}/aggregated/instances", lambda _: (200, self._all("instances", self.instances)))
        self.on("POST", f"{BASE}/{zone}/instances", self._instance)
        self.on("POST", f"{BASE}/{zone}/instances/([^/]+)/(start|stop)", self._power)
        self.on("POST", f"{BASE}/{zone}/instances/([^/]+)/attachDisk", self._attach)
        self.on("POST", f"{BASE}/{zone}/instances/([^/]+)/detachDisk", self._detach)
        self.on("POST", f"{BASE}/{zone}/disks", self._disk)
        self.on("POST", f"{BASE}/{zone}/disks/([^/]+)/createSnapshot", self._snapshot)
        self.on("GET", f"{BASE}/{zone}/operations/.*", lambda _: (200, self._ended()))

    def recorded(self, file: str) -> Any:
        """The recording, in a project whose id can be one."""
        return json.loads(_text(file))

    def _here(self, kind: str) -> Any:
        return {"items": [one for one in self.recorded(f"{kind}.json")["items"] if one["name"].startswith(_KNOWN)]}

    def _boot(self, name: str) -> Any:
        boot = self.recorded("zones_us-central1-a_disks_lcdisk.json")
        image = f"https://www.googleapis.com/compute/v1/projects/debian-cloud/global/images/{IMAGE}"
        return boot | {"name": name, "sourceImage": image, "selfLink": f"{LINK}/disks/{name}"}

    def _images(self, project: str, _: Any) -> tuple[int, Any]:
        return 200, self.recorded(f"projects_{project}_global_images.json")

    def _all(self, kind: str, held: dict[str, Any]) -> Any:
        return {"items": {"zones/us-central1-a": {kind: list(held.values())}}}

    def _operation(self) -> tuple[int, Any]:
        return 200, self.recorded("zones_us-central1-a_instances_post.json")

    def _ended(self) -> Any:
        failed, self.failing = self.failing, None
        return self.recorded("operations_operation_zones_us-central1-a_instances_post.json") | (failed or {})

    @staticmethod
    def _error(code: int, reason: str, message: str) -> Refused:
        error = {"domain": "global", "reason": reason, "message": message}
        return Refused(code, {"error": {"errors": [error], "code": code, "message": message}})

    def _one(self, held: dict[str, Any], name: str) -> Any:
        if name not in held:
            raise self._error(404, "notFound", f"The resource '{name}' was not found")
        return held[name]

    def _delete(self, held: dict[str, Any], name: str) -> tuple[int, Any]:
        one = self._one(held, name)
        if held is self.disks and one.get("users"):
            raise self._error(400, "resourceInUseByAnotherResource", "in use")
        del held[name]
        if held is self.instances:
            del self.disks[name]
            for disk in self.disks.values():
                disk["users"] = [user for user in disk.get("users", []) if not user.endswith(f"/{name}")]
        return self._operation()

    def _instance(self, asked: Any) -> tuple[int, Any]:
        made = self.recorded("zones_us-central1-a_instances_node-name.json")
        name = asked["name"]
        made |= {key: asked[key] for key in ("name", "machineType", "labels", "metadata") if key in asked}
        made |= {"id": str(next(self.numbers)), "selfLink": f"{LINK}/instances/{name}"}
        made["disks"][0]["source"] = f"{LINK}/disks/{name}"
        self.instances[name], self.disks[name] = made, self._boot(name)
        return self._operation()

    def _power(self, name: str, action: str, _: Any) -> tuple[int, Any]:
        self._one(self.instances, name)["status"] = "RUNNING" if action == "start" else "TERMINATED"
        return self._operation()

    def _attach(self, name: str, asked: Any) -> tuple[int, Any]:
        self._one(self.disks, asked["source"].rsplit("/", 1)[1])["users"] = [
            self._one(self.instances, name)["selfLink"]
        ]
        return self._operation()

    def _detach(self, name: str, _: Any) -> tuple[int, Any]:
        for disk in self.disks.values():
            disk["users"] = [user for user in disk.get("users", []) if not user.endswith(f"/{name}")]
        return self._operation()

    def _disk(self, asked: Any) -> tuple[int, Any]:
        if source := asked.get("sourceSnapshot"):
            least = int(self._one(self.snapshots, source.rsplit("/", 1)[1])["diskSizeGb"])
            if int(asked["sizeGb"]) < least:
                raise self._error(400, "invalid", "Requested disk size cannot be smaller than the snapshot size")
        made = self.recorded("zones_us-central1-a_disks_lcdisk.json") | asked
        made |= {"id": str(next(self.numbers)), "selfLink": f"{LINK}/disks/{asked['name']}"}
        self.disks[asked["name"]] = made
        return self._operation()

    def _snapshot(self, disk: str, asked: Any) -> tuple[int, Any]:
        source = self._one(self.disks, disk)
        made = self.recorded("global_snapshots.json")["items"][0] | asked
        made |= {"sourceDisk": source["selfLink"], "diskSizeGb": source["sizeGb"]}
        made["selfLink"] = made["selfLink"].replace("lcsnapshot", asked["name"])
        self.snapshots[asked["name"]] = made
        return self._operation()


@pytest.fixture
def project() -> Project:
    """What the service remembers."""
    return Project()


@pytest.fixture
def service(project: Project, monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """The recorded service, whose operations are looked at again without a pause."""
    monkeypatch.setattr(GoogleBaseConnection, "poll_interval", 0)
    with replay("test_gce", "GCEMockHttp", _get_request=project) as recording:
        yield recording


def gce(**changes: Any) -> GceModule:
    """The module, with the key of a service account."""
    module = examined(GceModule, SETTINGS, credentials=CREDENTIALS, **changes)
    assert isinstance(module, GceModule)
    return module


def _sent(recording: Recording, path: str) -> list[Any]:
    return [json.loads(request.body) for request in recording.sent("POST", path)]


async def test_sizes_with_prices_of_the_catalogue(service: Recording, tmp_path: Path) -> None:
    """The recorded sizes of the zone have the catalogue's prices, and those without are told as unknown."""
    async with gce(prices=CataloguePrices(tmp_path)) as module:
        catalogue = await module.catalogue()
    sizes = {size.name: size for size in catalogue.sizes}
    price = sizes["n1-standard-1"].price_per_hour
    assert sizes["n1-standard-1"] == Size(name="n1-standard-1", cores=1, memory_mib=3840, price_per_hour=price)
    assert price is not None
    assert Decimal("0.04") < price < Decimal("0.06")
    assert catalogue.priced is not None


async def test_the_recorded_machine(service: Recording) -> None:
    """The recorded instance is told with state, size, image and private address; its id is its name."""
    async with gce() as module:
        (machine,) = await module.list_machines()
        assert machine == await module.describe_machine("node-name")
    told = (machine.id, machine.status, machine.size, machine.image, machine.host)
    assert told == ("node-name", Status.ACTIVE, "n1-standard-1", IMAGE, "10.240.72.75")


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("STAGING", Status.PENDING),
        ("STOPPING", Status.PENDING),
        ("TERMINATED", Status.STOPPED),
        ("SUSPENDED", Status.STOPPED),
    ],
)
async def test_states(project: Project, service: Recording, told: str, status: Status) -> None:
    """An instance's states are told in our words: one that is TERMINATED is only stopped."""
    project.instances["node-name"]["status"] = told
    async with gce() as module:
        assert (await module.describe_machine("node-name")).status is status


async def test_creating_a_machine(service: Recording) -> None:
    """Key and name are sent as labels, the script of the first boot runs once; a second call creates nothing."""
    spec = SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"})})
    async with gce() as module:
        made = await module.create_machine(spec, key="key/1")
        assert await module.create_machine(spec, key="key/1") == made
    assert (made.name, made.key, made.size, made.image) == ("Web ☎", "key/1", "n1-standard-1", IMAGE)
    (sent,) = _sent(service, "/instances")
    assert sent["name"] == made.id == name_for("key/1", "Web ☎")
    assert unpacked(sent["labels"]) == {KEY: "key/1", NAME: "Web ☎"}
    assert sent.get("serviceAccounts", []) == []
    assert sent["disks"][0]["autoDelete"] is True
    (script,) = sent["metadata"]["items"]
    assert script["key"] == "startup-script"
    assert script["value"].startswith("#!/bin/sh\n[ -e /var/lib/cloud-agency-booted ] && exit 0\n")


async def test_what_is_not_there_is_refused(service: Recording) -> None:
    """A size or an image that is not there is refused before anything is created."""
    async with gce() as module:
        with pytest.raises(InvalidRequest):
            await module.create_machine(SPEC.model_copy(update={"size": "huge"}), key="k")
        with pytest.raises(NotFound):
            await module.create_machine(SPEC.model_copy(update={"image": "no-such-image"}), key="k")
    assert _sent(service, "/instances") == []


async def test_an_operation_that_fails(project: Project, service: Recording) -> None:
    """A creation whose operation ends with an error raises it, in Google's words."""
    failed = {"errors": [{"code": "QUOTA_EXCEEDED", "message": "Quota 'CPUS' exceeded."}]}
    project.failing = {"error": failed, "httpErrorStatusCode": 403, "httpErrorMessage": "FORBIDDEN"}
    async with gce() as module:
        with pytest.raises(QuotaExceeded, match="CPUS"):
            await module.create_machine(SPEC, key="k")


async def test_power_and_destroying(service: Recording) -> None:
    """An instance is stopped, started and removed, each once however often it is asked for."""
    async with gce() as module:
        for _ in range(2):
            assert (await module.stop_machine("node-name")).status is Status.STOPPED
        for _ in range(2):
            assert (await module.start_machine("node-name")).status is Status.ACTIVE
        for _ in range(2):
            await module.destroy_machine("node-name")
        assert await module.list_machines() == []
    changes = [request for request in service.requests if request.method != "GET" and BASE in request.path]
    path = f"{BASE}/zones/us-central1-a/instances/node-name"
    asked = [(request.method, request.path) for request in changes]
    assert asked == [("POST", f"{path}/stop"), ("POST", f"{path}/start"), ("DELETE", path)]


async def test_volumes(service: Recording) -> None:
    """Key and name of a disk are sent as labels with its creation; it is attached and detached once."""
    async with gce() as module:
        (known,) = await module.list_volumes()
        assert (known.id, known.status, known.size_mib) == ("lcdisk", Status.ACTIVE, 10240)
        made = await module.create_volume(VolumeSpec(name="Däta", size_mib=1025), key="key-2")
        assert await module.create_volume(VolumeSpec(name="Däta", size_mib=1025), key="key-2") == made
        assert (made.name, made.key, made.size_mib) == ("Däta", "key-2", 2048)
        for _ in range(2):
            attached = await module.attach_volume(made.id, "node-name", "dev/vdb")
            assert (attached.status, attached.machine) == (Status.ATTACHED, "node-name")
        with pytest.raises(Conflict):
            await module.destroy_volume(made.id)
        for _ in range(2):
            assert (await module.detach_volume(made.id)).status is Status.ACTIVE
        await module.destroy_volume(made.id)
        assert await module.list_volumes() == [known]
    (sent,) = _sent(service, "/disks")
    assert unpacked(sent["labels"]) == {KEY: "key-2", NAME: "Däta"}
    assert (sent["name"], sent["sizeGb"]) == (made.id, "2")
    (attach,) = _sent(service, "/attachDisk")
    assert (attach["source"], attach["deviceName"], attach["boot"]) == (f"{LINK}/disks/{made.id}", made.id, False)
    assert [r.query for r in service.sent("POST", "/detachDisk")] == [{"deviceName": made.id}]


async def test_a_machine_with_a_volume(service: Recording) -> None:
    """A disk that an instance is made with is attached when it runs."""
    async with gce() as module:
        wanted = (Attachment(volume="lcdisk", device="dev/vdb"),)
        made = await module.create_machine(SPEC.model_copy(update={"volumes": wanted}), key="key-1")
    assert made.volumes == ("lcdisk",)


async def test_snapshots(service: Recording) -> None:
    """A snapshot has key and name in its labels; a disk is made from it; it can go."""
    async with gce() as module:
        (known,) = await module.list_snapshots()
        assert (known.name, known.status, known.size_mib) == ("lcsnapshot", Status.ACTIVE, 1024)
        made = await module.create_snapshot("lcdisk", "before", key="key-3")
        assert await module.create_snapshot("lcdisk", "before", key="key-3") == made
        assert (made.name, made.key, made.volume) == ("before", "key-3", "lcdisk")
        await module.create_volume(VolumeSpec(name="again", size_mib=10240, snapshot=made.id), key="key-4")
        await module.destroy_snapshot(made.id)
        assert await module.list_snapshots() == [known]
    (volume,) = _sent(service, "/disks")
    assert volume["sourceSnapshot"].endswith(f"/global/snapshots/{made.id}")


@pytest.mark.parametrize(
    ("status", "reason", "error"),
    [
        (400, "invalid", InvalidRequest),
        (401, "authError", Unauthorized),
        (403, "forbidden", Forbidden),
        (404, "notFound", NotFound),
        (409, "alreadyExists", Conflict),
        (429, "rateLimitExceeded", Throttled),
        (503, "backendError", Unavailable),
    ],
)
async def test_refusals(project: Project, service: Recording, status: int, reason: str, error: type[Exception]) -> None:
    """What Google refuses is told in our words."""
    told = {"error": {"errors": [{"reason": reason, "message": "no"}], "code": status, "message": "no"}}
    project.refuse = lambda headers: (status, told) if "Authorization" in headers else None  # type: ignore[method-assign]
    async with gce() as module:
        with pytest.raises(error):
            await module.list_machines()


async def test_no_token_is_kept_in_a_file(service: Recording, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The token that was got for the service account is not written below the home directory, as libcloud would."""
    monkeypatch.setenv("HOME", str(tmp_path))
    async with gce() as module:
        await module.list_machines()
    assert service.sent("POST", "/o/oauth2/token")
    assert list(tmp_path.iterdir()) == []


async def test_a_key_that_is_none_is_unauthorized(service: Recording) -> None:
    """Credentials whose password is no private key are Unauthorized, and nothing is sent."""
    wrong = CREDENTIALS.model_copy(update={"password": SecretStr("no key")})
    async with examined(GceModule, SETTINGS, credentials=wrong) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()
    assert service.requests == []


# --- the conformance suite, as far as it goes with a recording ---

DEVICES = ("volume-says-where-it-is-attached", "machine-that-exists")
CHECKS = checks_for(GceModule, DEVICES)
"""The suite knows no prices: without any, machines of every size are lacking."""


@pytest.fixture
def whole(service: Recording) -> conformance.Subject:
    """The module as the suite examines it."""
    known = {"image": IMAGE, "size": "n1-standard-1", "volume_mib": 1024, "credentials": CREDENTIALS}
    return replace(subject(GceModule, SETTINGS), **known)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, whole: conformance.Subject) -> None:
    """The module does what the conformance suite asks; devices of volumes are among its known limits."""
    result = await conformance.run_check(check, whole)
    assert result.outcome != "failed", result.reason
