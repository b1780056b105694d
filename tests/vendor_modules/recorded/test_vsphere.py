"""VMware vSphere's REST API, as libcloud recorded it, through our module."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import certifi
import pytest

from tests.labs.libcloud_fixtures import PASSWORD, Answer, Recording, Request, examined, recorded, replay
from vendor_modules.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from vendor_modules.labels import name_for
from vendor_modules.resources import Machine, MachineSpec, Status
from vendor_modules.vsphere import VSphereModule

SETTINGS: dict[str, Any] = {
    "region": "home",
    "jurisdiction": "EU",
    "url": "https://vcenter.example",
    "sizes": [{"name": "small", "cores": 4, "memory_mib": 19456, "disk_gib": 48}],
    "prices_per_hour": {"small": "0.50"},
    "datastore": "datastore-75",
    "folder": "group-v3",
}
VCENTER = Machine(id="vm-80", name="vCenter", status=Status.ACTIVE, size="small", host="195.196.197.198")
SPEC = MachineSpec(name="Büro ☎", image="item-1", size="small")


@pytest.fixture
def vsphere() -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_vsphere", "VSphereMockHttp") as recording:
        yield recording


def _state(answer: Answer, state: str) -> None:
    answer.body = answer.body.replace('"power_state": "POWERED_ON"', f'"power_state": "{state}"')


async def test_the_recorded_machine(vsphere: Recording) -> None:
    """The recorded machine is told, and that its size is one of the settings'."""
    async with examined(VSphereModule, SETTINGS) as module:
        assert await module.list_machines() == [VCENTER]
        assert await module.describe_machine("vm-80") == VCENTER
        with pytest.raises(NotFound):
            await module.describe_machine("vm-81")
    assert vsphere.requests[-1].headers["vmware-api-session-id"] == "48c202a15afb33000a14ca5fab43e27d"
    assert "Authorization" not in vsphere.requests[-1].headers


async def test_certificates_are_verified(vsphere: Recording, tmp_path: Path) -> None:
    """vCenter must prove who it is before it is sent the password, though libcloud's driver would not ask."""
    async with examined(VSphereModule, SETTINGS) as module:
        await module.list_machines()
    assert set(vsphere.verified) == {certifi.where()}
    own = tmp_path / "ca.pem"
    vsphere.verified.clear()
    async with examined(VSphereModule, SETTINGS | {"ca_file": own}) as module:
        await module.list_machines()
    assert set(vsphere.verified) == {str(own)}


async def test_stopping_and_starting(vsphere: Recording) -> None:
    """Power is the calls stop and start; what is so already is not asked for."""

    def edit(request: Request, answer: Answer) -> None:
        if request.path == "/rest/vcenter/vm/vm-80" and len(vsphere.sent("POST", "/stop")) > len(
            vsphere.sent("POST", "/start")
        ):
            _state(answer, "POWERED_OFF")

    vsphere.edit = edit
    async with examined(VSphereModule, SETTINGS) as module:
        assert (await module.start_machine("vm-80")).status is Status.ACTIVE
        assert (await module.stop_machine("vm-80")).status is Status.STOPPED
        assert (await module.start_machine("vm-80")).status is Status.ACTIVE
    asked = [request.path for request in vsphere.sent("POST") if "power" in request.path]
    assert asked == ["/rest/vcenter/vm/vm-80/power/stop", "/rest/vcenter/vm/vm-80/power/start"]


async def test_destroying_a_machine(vsphere: Recording) -> None:
    """A machine is switched off and removed, and is gone when it is not listed any more."""
    async with examined(VSphereModule, SETTINGS, settle_timeout=0.05) as module:
        with pytest.raises(TimedOut):
            await module.destroy_machine("vm-80")

    def edit(request: Request, answer: Answer) -> None:
        if request.path == "/rest/vcenter/vm" and len(vsphere.sent("DELETE")) > 1:
            answer.body = '{"value": []}'

    vsphere.edit = edit
    async with examined(VSphereModule, SETTINGS) as module:
        await module.destroy_machine("vm-80")
        assert await module.list_machines() == []
    calls = [request.path for request in vsphere.requests if request.method == "DELETE" or "/power/" in request.path]
    assert calls[-2:] == ["/rest/vcenter/vm/vm-80/power/stop", "/rest/vcenter/vm/vm-80"]


class Library:
    """A content library with one template, and machines from it: answers after VMware's API reference (vSphere
    Automation API 6.7), because none were recorded."""

    def __init__(self, vsphere: Recording) -> None:
        self.vsphere = vsphere
        self.name = ""
        vsphere.edit = self.edit

    def edit(self, request: Request, answer: Answer) -> None:
        library = request.path.partition("/rest/com/vmware/content/library")[2]
        told = {
            "/rest/com/vmware/content/library": ["library-1"],
            "/rest/com/vmware/content/library/item": ["item-1", "item-2"],
        }.get(request.path)
        if library.startswith("/item/id"):
            kind = "vm-template" if library.endswith("item-1") else "iso"
            told = {"id": library.partition("id:")[2].replace("id%3A", ""), "name": "debian", "type": kind, "size": 0}
        if request.path == "/rest/vcenter/vm-template/library-items/item-1":
            told = {"nics": [], "disks": [{"key": "2000", "value": {"capacity": 10 * 2**30}}]}
        if request.method == "POST" and request.path == "/rest/vcenter/vm-template/library-items/item-1/":
            self.name, told = json.loads(request.body)["spec"]["name"], "vm-81"
        if request.path == "/rest/vcenter/vm" and self.name:
            told = [{"vm": "vm-81"}] if request.query else [{"vm": "vm-80"}, {"vm": "vm-81"}]
        if request.path == "/rest/vcenter/vm/vm-81":
            told = json.loads(recorded("vsphere", "node_80.json"))["value"] | {"name": self.name, "nics": []}
            told["power_state"] = "POWERED_ON" if self.vsphere.sent("POST", "/start") else "POWERED_OFF"
        if request.path.startswith("/rest/vcenter/vm/vm-81/power"):
            answer.give(200)
        elif told is not None:
            answer.give(200, json.dumps({"value": told}))


async def test_images_and_creating_a_machine(vsphere: Recording) -> None:
    """By the API's reference: the library's templates are images, one is deployed under a name that holds the key,
    with the size that is asked for, and started, once."""
    Library(vsphere)
    async with examined(VSphereModule, SETTINGS) as module:
        (image,) = await module.list_images()
        assert await module.describe_image("item-1") == image
        with pytest.raises(Unsupported):
            await module.destroy_image("item-1")
        made = await module.create_machine(SPEC, key="key-1")
        assert await module.create_machine(SPEC, key="key-1") == made
    assert (image.id, image.name) == ("item-1", "debian")
    assert (made.id, made.key, made.status, made.size) == ("vm-81", "key-1", Status.ACTIVE, "small")
    (deploy,) = vsphere.sent("POST", "/library-items/item-1/", action="deploy")
    assert json.loads(deploy.body)["spec"] == {
        "name": name_for("key-1", "Büro ☎"),
        "disk_storage": {"datastore": "datastore-75"},
        "placement": {"folder": "group-v3", "host": "host-74"},
        "hardware_customization": {
            "memory_update": {"memory": 19456},
            "cpu_update": {"num_cpus": 4},
            "disks_to_update": [{"key": "2000", "value": {"capacity": 48 * 2**30}}],
        },
        "powered_on": False,
    }
    assert len(vsphere.sent("POST", "/power/start")) == 1


async def test_a_machine_that_was_left_stopped_is_finished(vsphere: Recording) -> None:
    """A machine that an attempt, broken off before it was started, has left is started by the next."""
    library = Library(vsphere)
    library.name = name_for("key-1", "Büro ☎")
    async with examined(VSphereModule, SETTINGS) as module:
        made = await module.create_machine(SPEC, key="key-1")
    assert (made.id, made.status) == ("vm-81", Status.ACTIVE)
    assert vsphere.sent("POST", action="deploy") == []


async def test_what_cannot_be_made_is_refused(vsphere: Recording) -> None:
    """A place, size or image that is not there is refused before anything is created."""
    Library(vsphere)
    async with examined(VSphereModule, SETTINGS | {"place": "nowhere"}) as module:
        with pytest.raises(InvalidRequest, match="nowhere"):
            await module.create_machine(SPEC, key="k")
    async with examined(VSphereModule, SETTINGS) as module:
        with pytest.raises(InvalidRequest):
            await module.create_machine(SPEC.model_copy(update={"size": "huge"}), key="k")
        with pytest.raises(NotFound):
            await module.create_machine(SPEC.model_copy(update={"image": "item-2"}), key="k")
    assert vsphere.sent("POST", action="deploy") == []


@pytest.mark.parametrize(("status", "error"), [(401, Unauthorized), (403, Forbidden), (503, Unavailable)])
@pytest.mark.parametrize("path", ["/rest/com/vmware/cis/session", "/rest/vcenter/vm"])
async def test_refusals(vsphere: Recording, path: str, status: int, error: type[Exception]) -> None:
    """What vCenter refuses, logging in among it, is told in our words, and without the password."""
    vsphere.edit = lambda request, answer: request.path == path and answer.give(status, f"no: {PASSWORD}")
    async with examined(VSphereModule, SETTINGS) as module:
        with pytest.raises(error) as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


async def test_an_outage_does_not_look_like_an_empty_library(vsphere: Recording) -> None:
    """When vCenter's library is out of order, there is an error, where libcloud's driver says that it is empty."""
    vsphere.edit = lambda request, answer: "/content/library" in request.path and answer.give(503, "out of order")
    async with examined(VSphereModule, SETTINGS) as module:
        with pytest.raises(Unavailable):
            await module.list_images()
