"""VMware vCloud Director, as libcloud recorded it, through our module."""

import json
from collections.abc import Callable, Iterator
from html import escape
from typing import Any

import pytest
from lxml import etree
from pydantic import ValidationError

from tests.labs.libcloud_fixtures import PASSWORD, Answer, Recording, Request, examined, recorded, replay
from vendor_modules.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    ResourceFailed,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.resources import MachineSpec, Status
from vendor_modules.vcloud import VCloudModule

SETTINGS: dict[str, Any] = {
    "region": "home",
    "jurisdiction": "EU",
    "url": "https://vm-vcloud",
    "sizes": [{"name": "small", "cores": 2, "memory_mib": 2048}],
    "prices_per_hour": {"small": "0.10"},
}
HOST = "https://vm-vcloud/api"
TEMPLATE = f"{HOST}/vAppTemplate/vappTemplate-ac1bc027-bf8c-4050-8643-4971f691c158"
VAPP = f"{HOST}/vApp/vapp-8c57a5b6-e61b-48ca-8a78-3b70ee65ef6a"
PATH = VAPP.removeprefix("https://vm-vcloud")
SPEC = MachineSpec(name="Büro ☎", image=TEMPLATE, size="small")


@pytest.fixture
def vcloud() -> Iterator[Recording]:
    """The recorded service, 5.5."""
    with replay("test_vcloud", "VCloud_5_5_MockHttp") as recording:
        yield recording


def _vapp(vcloud: Recording, change: Callable[[str], str]) -> None:
    """Let ``change`` edit the first recorded vApp, and answer what was recorded for other machines than this one."""

    def edit(request: Request, answer: Answer) -> None:
        section = request.path.rpartition("/virtualHardwareSection/")[2]
        if request.path == PATH and request.method == "GET":
            answer.body = change(answer.body)
        elif section in ("cpu", "memory"):
            name = f"{request.method.lower()}_api_vApp_vm_test_virtualHardwareSection_{section}.xml"
            answer.give(200 if request.method == "GET" else 202, recorded("vcloud_1_5", name))
        elif request.path == f"{PATH}/action/undeploy":
            failed = "shutdown" in request.body and "no tools" in vcloud.mock.__dict__
            name = "api_task_undeploy_error.xml" if failed else "api_task_undeploy.xml"
            answer.give(202, recorded("vcloud_1_5", name))

    vcloud.edit = edit


def test_sizes_must_be_possible() -> None:
    """A size with more cores than a vCloud machine can have is refused with the settings."""
    with pytest.raises(ValidationError, match="at most 8 cores"):
        VCloudModule.Settings(**SETTINGS | {"sizes": [{"name": "big", "cores": 9, "memory_mib": 1024}]})


@pytest.mark.parametrize("version", ["1.5", "5.5"])
async def test_the_recorded_machines(vcloud: Recording, version: str) -> None:
    """The recorded vApps are told with states and addresses; one that went in the meantime is left out."""
    async with examined(VCloudModule, SETTINGS | {"api_version": version}) as module:
        machines = await module.list_machines()
        assert await module.describe_machine(VAPP) == machines[0]
        assert (await module.catalogue()).sizes[0].price_per_hour is not None
    told = [(machine.id, machine.name, machine.status, machine.host, machine.size) for machine in machines]
    assert told == [
        (VAPP, "testNode", Status.ACTIVE, "65.41.67.2", "unknown"),
        (f"{VAPP[:-1]}b", "testNode2", Status.ACTIVE, "192.168.0.100", "unknown"),
        (f"{VAPP[:-1]}b", "testNode3", Status.ACTIVE, "192.168.0.100", "unknown"),  # recorded with that id
    ]
    assert vcloud.requests[-1].headers["Accept"] == f"application/*+xml;version={version}"
    assert vcloud.requests[-1].headers["x-vcloud-authorization"] == "testtoken"


async def test_a_vapp_that_may_not_be_seen_is_left_out(vcloud: Recording) -> None:
    """What vCloud answers, over the wire, for a vApp that has just gone, does not spoil the list."""
    forbidden = recorded("vcloud_1_5", "api_vApp_vapp_access_to_resource_forbidden.xml")
    vcloud.mock._api_vApp_vapp_access_to_resource_forbidden = lambda *_: (403, forbidden, {}, "")
    async with examined(VCloudModule, SETTINGS) as module:
        assert len(await module.list_machines()) == 3


@pytest.mark.parametrize(
    ("told", "status"), [("8", Status.STOPPED), ("0", Status.PENDING), ("-1", Status.ERROR), ("9", Status.ERROR)]
)
async def test_states(vcloud: Recording, told: str, status: Status) -> None:
    """A vApp's state is read from its number."""
    _vapp(vcloud, lambda body: body.replace('status="4"', f'status="{told}"'))
    async with examined(VCloudModule, SETTINGS) as module:
        assert (await module.describe_machine(VAPP)).status is status


async def test_the_recorded_images(vcloud: Recording) -> None:
    """The recorded templates, of data centres and catalogues, are told, and cannot be removed."""
    async with examined(VCloudModule, SETTINGS) as module:
        images = await module.list_images()
        assert await module.describe_image(TEMPLATE) == images[0]
        with pytest.raises(Unsupported):
            await module.destroy_image(TEMPLATE)
    assert (images[0].id, images[0].name, images[0].public) == (TEMPLATE, "VMTemplate_Master", True)


async def test_creating_a_machine(vcloud: Recording) -> None:
    """A template is instantiated under a name and with a description that hold the key, its cores and memory are set,
    and it is deployed; the second call creates nothing."""

    def described(body: str) -> str:
        for sent in vcloud.sent("POST", "/action/instantiateVAppTemplate"):
            description = next(etree.fromstring(sent.body).iter("{*}Description")).text
            body = body.replace("<Description/>", f"<Description>{escape(description)}</Description>")
        return body

    _vapp(vcloud, described)
    settings = SETTINGS | {"vdc": "MyVdc", "network": "vCloud - Default"}
    async with examined(VCloudModule, settings) as module:
        made = await module.create_machine(SPEC, key="key-1")
        assert await module.create_machine(SPEC, key="key-1") == made
    assert (made.id, made.name, made.key, made.status) == (VAPP, "Büro ☎", "key-1", Status.ACTIVE)
    assert (made.size, made.image) == ("small", TEMPLATE)
    (request,) = vcloud.sent("POST", "/action/instantiateVAppTemplate")
    sent = etree.fromstring(request.body)
    assert sent.get("name") == name_for("key-1", "Büro ☎")
    description = json.loads(next(sent.iter("{*}Description")).text)
    assert (description[KEY], description[NAME]) == ("key-1", "Büro ☎")
    assert next(sent.iter("{*}Source")).get("href") == TEMPLATE
    network = next(sent.iter("{*}ParentNetwork")).get("href")
    assert network == f"{HOST}/network/dca8b667-6c8f-4c3e-be57-7a9425dba4f4"
    quantities = [
        next(etree.fromstring(put.body).iter("{*}VirtualQuantity")).text
        for section in ("cpu", "memory")
        for put in vcloud.sent("PUT", f"/virtualHardwareSection/{section}")
    ]
    assert quantities == ["2", "2048"]
    assert len(vcloud.sent("POST", f"{PATH}/action/deploy")) == 1


async def test_a_machine_that_was_left_stopped_is_finished(vcloud: Recording) -> None:
    """A vApp that an attempt, broken off before it was deployed, has left gets its cores and memory and is deployed."""

    def left(body: str) -> str:
        if not vcloud.sent("POST", "/action/deploy"):
            body = body.replace('status="4"', 'status="8"')
        return body.replace("<Description/>", f"<Description>{escape(json.dumps({KEY: 'key-1'}))}</Description>")

    _vapp(vcloud, left)
    async with examined(VCloudModule, SETTINGS) as module:
        made = await module.create_machine(SPEC, key="key-1")
    assert (made.id, made.status) == (VAPP, Status.ACTIVE)
    assert vcloud.sent("POST", "/action/instantiateVAppTemplate") == []
    assert [put.path.rpartition("/")[2] for put in vcloud.sent("PUT")] == ["cpu", "memory"]


async def test_what_cannot_be_made_is_refused(vcloud: Recording) -> None:
    """A size, template, data centre or network that is not there is refused before anything is created."""
    async with examined(VCloudModule, SETTINGS) as module:
        with pytest.raises(InvalidRequest):
            await module.create_machine(SPEC.model_copy(update={"size": "huge"}), key="k")
        with pytest.raises(NotFound):
            await module.create_machine(SPEC.model_copy(update={"image": "none"}), key="k")
    for wrong in ({"vdc": "Elsewhere"}, {"network": "Elsewhere"}):
        async with examined(VCloudModule, SETTINGS | wrong) as module:
            with pytest.raises(InvalidRequest, match="Elsewhere"):
                await module.create_machine(SPEC, key="k")
    assert vcloud.sent("POST", "/action/instantiateVAppTemplate") == []


async def test_stopping_and_starting(vcloud: Recording) -> None:
    """A machine is shut down, or switched off where that fails, and deployed again."""

    def state(body: str) -> str:
        stopped = len(vcloud.sent("POST", "/undeploy")) > len(vcloud.sent("POST", "/deploy"))
        return body.replace('status="4"', 'status="8"') if stopped else body

    _vapp(vcloud, state)
    async with examined(VCloudModule, SETTINGS) as module:
        assert (await module.start_machine(VAPP)).status is Status.ACTIVE
        assert (await module.stop_machine(VAPP)).status is Status.STOPPED
        assert (await module.start_machine(VAPP)).status is Status.ACTIVE
        vars(vcloud.mock)["no tools"] = True
        assert (await module.stop_machine(VAPP)).status is Status.STOPPED
    asked = [
        next(etree.fromstring(r.body).iter("{*}UndeployPowerAction")).text for r in vcloud.sent("POST", "/undeploy")
    ]
    assert asked == ["shutdown", "shutdown", "powerOff"]
    assert len(vcloud.sent("POST", "/deploy")) == 1


async def test_destroying_a_machine(vcloud: Recording) -> None:
    """A vApp is undeployed and removed, and is gone when its data centre does not have it any more."""
    _vapp(vcloud, lambda body: body)
    with_undeploy = vcloud.edit
    async with examined(VCloudModule, SETTINGS, settle_timeout=0.05) as module:
        with pytest.raises(TimedOut):  # it is still listed
            await module.destroy_machine(VAPP)

    def edit(request: Request, answer: Answer) -> None:
        if "/api/vdc/" in request.path and request.method == "GET":
            answer.body = answer.body.replace(f'name="testNode" href="{VAPP}"', 'href=""')
        with_undeploy(request, answer)

    vcloud.edit = edit
    async with examined(VCloudModule, SETTINGS) as module:
        await module.destroy_machine(VAPP)
        assert len(await module.list_machines()) == 2
    assert len(vcloud.sent("DELETE", PATH)) == 1


async def test_a_failed_task(vcloud: Recording) -> None:
    """A task that fails is told as such, in vCloud's words."""
    _vapp(vcloud, lambda body: body.replace('status="4"', 'status="8"'))
    lists = vcloud.edit

    def edit(request: Request, answer: Answer) -> None:
        if request.path == f"{PATH}/action/deploy":
            answer.give(202, recorded("vcloud_1_5", "api_task_undeploy_error.xml"))
        lists(request, answer)

    vcloud.edit = edit
    async with examined(VCloudModule, SETTINGS) as module:
        with pytest.raises(ResourceFailed, match="VMware Tools is not running"):
            await module.start_machine(VAPP)


async def test_wrong_credentials(vcloud: Recording) -> None:
    """A login that gives no token is Unauthorized."""

    def edit(request: Request, answer: Answer) -> None:
        if request.path == "/api/sessions":
            answer.give(401)
            answer.headers.clear()

    vcloud.edit = edit
    async with examined(VCloudModule, SETTINGS) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()


@pytest.mark.parametrize(
    ("status", "body", "error"),
    [
        (503, f"<html>{PASSWORD}</html>", Unavailable),
        (502, f"no gateway {PASSWORD}", Unavailable),
        (403, f'<Error message="no: {PASSWORD}" minorErrorCode="NO_RIGHT"/>', Forbidden),
        (400, f'<Error message="no: {PASSWORD}" minorErrorCode="BAD_REQUEST"/>', InvalidRequest),
    ],
)
@pytest.mark.parametrize("path", [PATH, "/api/vdc/3d9ae28c-1de9-4307-8107-9356ff8ba6d0"])
async def test_refusals(vcloud: Recording, path: str, status: int, body: str, error: type[Exception]) -> None:
    """What vCloud refuses, and what stands before it, is told in our words, wherever the driver meets it, and without
    the password."""
    vcloud.edit = lambda request, answer: request.path == path and answer.give(status, body)
    async with examined(VCloudModule, SETTINGS) as module:
        with pytest.raises(error) as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)
    assert "Element" not in str(raised.value)
