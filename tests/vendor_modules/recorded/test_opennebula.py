"""OpenNebula's OCCI, as libcloud recorded it, through our module."""

from collections.abc import Iterator
from hashlib import sha1
from typing import Any

import httpx
import pytest
from lxml import etree

from tests.labs.libcloud_fixtures import PASSWORD, Answer, Recording, Request, examined, recorded, replay
from vendor_modules.errors import InvalidRequest, NotFound, TimedOut, Unauthorized, Unavailable, Unsupported
from vendor_modules.labels import name_for
from vendor_modules.opennebula import NiifiModule, OpenNebulaModule
from vendor_modules.resources import DiskFormat, Image, Machine, MachineSpec, Status, VolumeSpec

SETTINGS: dict[str, Any] = {
    "region": "home",
    "jurisdiction": "EU",
    "url": "https://one.example:4567",
    "prices_per_hour": {"small": "0.05"},
}
SPEC = MachineSpec(name="Gép ☎", image="15", size="small")
DATABLOCK = recorded("opennebula_3_6", "storage_5.xml")
"""The only data block that was recorded; it has the id 5."""


@pytest.fixture
def nebula() -> Iterator[Recording]:
    """The recorded service, 3.8."""
    with replay("test_opennebula", "OpenNebula_3_8_MockHttp") as recording:
        yield recording


@pytest.fixture
def nebula_36() -> Iterator[Recording]:
    """The recorded service, 3.6, which has volumes."""
    with replay("test_opennebula", "OpenNebula_3_6_MockHttp") as recording:
        yield recording


async def test_the_recorded_sizes(nebula: Recording) -> None:
    """Sizes go by their names, not by their places in the list, and have the prices of the settings."""
    async with examined(OpenNebulaModule, SETTINGS) as module:
        catalogue = await module.catalogue()
    told = [(size.name, size.cores, size.memory_mib, str(size.price_per_hour)) for size in catalogue.sizes]
    assert told == [("small", 1, 1024, "0.05"), ("medium", 4, 4096, "None"), ("large", 8, 8192, "None")]
    assert catalogue.lacks == ()


async def test_the_recorded_machines(nebula: Recording) -> None:
    """The recorded machines are told; one whose state the service does not name is pending."""
    async with examined(OpenNebulaModule, SETTINGS) as module:
        machines = await module.list_machines()
        assert machines[0] == await module.describe_machine("5")
    active = {"status": Status.ACTIVE, "size": "small"}
    assert machines == [
        Machine(id="5", name="Compute 5", image="5", host="192.168.0.1", **active),
        Machine(id="15", name="Compute 15", image="15", host="192.168.0.2", **active),
        Machine(id="25", name="Compute 25", status=Status.PENDING, size="unknown", host="192.168.0.3"),
    ]


@pytest.mark.parametrize(
    ("told", "status"),
    [("STOPPED", Status.STOPPED), ("SUSPENDED", Status.STOPPED), ("FAILED", Status.ERROR), ("HOLD", Status.PENDING)],
)
async def test_states(nebula: Recording, told: str, status: Status) -> None:
    """A machine that is stopped or has failed is still there, though libcloud's driver says that it is gone."""
    nebula.edit = lambda _, answer: _replace(answer, "ACTIVE", told)
    async with examined(OpenNebulaModule, SETTINGS) as module:
        assert (await module.describe_machine("5")).status is status


async def test_the_recorded_images(nebula: Recording) -> None:
    """The recorded images are told, and cannot be removed."""
    async with examined(OpenNebulaModule, SETTINGS) as module:
        images = await module.list_images()
        assert images[0] == await module.describe_image("5")
        with pytest.raises(Unsupported):
            await module.destroy_image("5")
    name = "Ubuntu 9.04 LAMP"
    common = {"name": name, "status": Status.ACTIVE, "format": DiskFormat.RAW, "public": True}
    assert images == [Image(id="5", **common), Image(id="15", **common)]


async def test_creating_a_machine(nebula: Recording) -> None:
    """The name is sent, which libcloud's driver forgets, and key and name are in the context; it is created once."""

    def edit(request: Request, answer: Answer) -> None:
        for sent in nebula.sent("POST"):
            if request.path == "/compute/25":
                answer.body = recorded("opennebula_2_0", "compute_5.xml").replace("<ID>5</ID>", "<ID>25</ID>")
                context = sent.body[sent.body.index("<CONTEXT>") : sent.body.index("</CONTEXT>")]
                _replace(answer, "<CONTEXT>", context)
        if request.method == "POST":
            _replace(answer, "<ID>5</ID>", "<ID>25</ID>")

    nebula.edit = edit
    async with examined(OpenNebulaModule, SETTINGS) as module:
        made = await module.create_machine(SPEC, key="key-1")
        assert await module.create_machine(SPEC, key="key-1") == made
    assert (made.id, made.name, made.key, made.status) == ("25", "Gép ☎", "key-1", Status.ACTIVE)
    (request,) = nebula.sent("POST", "/compute")
    sent = etree.fromstring(request.body)
    assert sent.findtext("NAME") == sent.findtext("CONTEXT/CLOUD_AGENCY_NAME") == "Gép ☎"
    assert sent.findtext("CONTEXT/CLOUD_AGENCY_KEY") == "key-1"
    assert sent.findtext("INSTANCE_TYPE") == "small"
    assert [dict(disk.attrib) for disk in sent.findall("DISK/STORAGE")] == [{"href": "/storage/15"}]


async def test_what_cannot_be_made_is_refused(nebula: Recording) -> None:
    """A size or image that is not there, and what the module has no words for, is refused; nothing is sent."""
    async with examined(OpenNebulaModule, SETTINGS) as module:
        with pytest.raises(InvalidRequest):
            await module.create_machine(SPEC.model_copy(update={"size": "1"}), key="k")
        with pytest.raises(NotFound):
            await module.create_machine(SPEC.model_copy(update={"image": "99"}), key="k")
        with pytest.raises(Unsupported):
            await module.create_machine(SPEC.model_copy(update={"key_pair": "k"}), key="k")
    assert nebula.sent("POST") == []


async def test_destroying_a_machine(nebula: Recording) -> None:
    """A destroyed machine is gone when its state is DONE, not because the call was answered."""
    nebula.edit = lambda request, answer: nebula.sent("DELETE") and _replace(answer, "ACTIVE", "DONE")
    async with examined(OpenNebulaModule, SETTINGS) as module:
        await module.destroy_machine("5")
        with pytest.raises(NotFound):
            await module.describe_machine("5")
    assert len(nebula.sent("DELETE", "/compute/5")) == 1
    nebula.edit = lambda request, answer: None
    async with examined(OpenNebulaModule, SETTINGS, settle_timeout=0.05) as module:
        with pytest.raises(TimedOut):
            await module.destroy_machine("5")


async def test_the_password_is_sent_as_the_server_wants_it(nebula: Recording) -> None:
    """The password's SHA-1 is sent, or the password itself where the settings say so."""
    async with examined(OpenNebulaModule, SETTINGS) as module:
        await module.list_images()
    digest = sha1(PASSWORD.encode()).hexdigest()  # noqa: S324 - the protocol's
    assert nebula.requests[-1].headers["Authorization"] == _basic("user", digest)
    async with examined(OpenNebulaModule, {**SETTINGS, "plain_auth": True}) as module:
        await module.list_images()
    assert nebula.requests[-1].headers["Authorization"] == _basic("user", PASSWORD)
    async with examined(OpenNebulaModule, SETTINGS) as module:
        await module.list_images()
    assert nebula.requests[-1].headers["Authorization"] == _basic("user", digest)


async def test_volumes(nebula_36: Recording) -> None:
    """A data block is a volume of as many MiB as the service says; the other storage is images."""
    nebula_36.edit = _with_data_block
    async with examined(OpenNebulaModule, {**SETTINGS, "api_version": "3.6"}) as module:
        (volume,) = await module.list_volumes()
        images = await module.list_images()
        machines = await module.list_machines()
    assert (volume.id, volume.name, volume.size_mib, volume.status) == ("15", "test-volume", 1000, Status.ATTACHED)
    assert (volume.machine, volume.device) == ("5", "dev/sda")
    assert [image.id for image in images] == ["5"]
    assert [(machine.id, machine.image, machine.volumes) for machine in machines] == [
        ("5", "5", ("15",)),
        ("15", "10", ()),
        ("25", None, ()),
    ]


async def test_creating_and_destroying_a_volume(nebula_36: Recording) -> None:
    """A volume is created once, by a name that holds its key, with its size in MiB, and is gone when not listed."""
    chosen = name_for("key-2", "Adatok")

    def edit(request: Request, answer: Answer) -> None:
        if request.path == "/storage" and request.method == "GET" and nebula_36.sent("DELETE"):
            _replace(answer, '<STORAGE href="http://www.opennebula.org/storage/5" name="Ubuntu 9.04 LAMP"/>', "")
        if request.path == "/storage/5" and request.method == "GET" and nebula_36.sent("POST"):
            answer.body = DATABLOCK.replace("test-volume", chosen)
        if request.path.startswith("/compute/") and request.method == "GET":
            _replace(answer, "storage/5", "storage/10")  # no machine has it

    nebula_36.edit = edit
    async with examined(OpenNebulaModule, {**SETTINGS, "api_version": "3.6"}) as module:
        made = await module.create_volume(VolumeSpec(name="Adatok", size_mib=1000), key="key-2")
        assert await module.create_volume(VolumeSpec(name="Adatok", size_mib=1000), key="key-2") == made
        await module.destroy_volume(made.id)
        with pytest.raises(NotFound):
            await module.describe_volume(made.id)
    assert (made.id, made.key, made.size_mib, made.status) == ("5", "key-2", 1000, Status.ACTIVE)
    (request,) = nebula_36.sent("POST", "/storage")
    sent = etree.fromstring(request.query["occixml"])
    assert (sent.findtext("NAME"), sent.findtext("SIZE"), sent.findtext("TYPE")) == (chosen, "1000", "DATABLOCK")
    assert len(nebula_36.sent("DELETE", "/storage/5")) == 1


async def test_attaching_and_detaching(nebula_36: Recording) -> None:
    """Attaching says which disk goes where, detaching names the machine's disk; both are seen afterwards."""

    def edit(request: Request, answer: Answer) -> None:
        _with_data_block(request, answer)
        if request.path == "/compute/5" and not attached():
            _replace(answer, "storage/15", "storage/10")

    def attached() -> bool:
        actions = [etree.fromstring(sent.body).findtext("PERFORM") for sent in nebula_36.sent("POST")]
        return actions[-1:] == ["ATTACHDISK"]

    nebula_36.edit = edit
    async with examined(OpenNebulaModule, {**SETTINGS, "api_version": "3.6"}) as module:
        assert (await module.describe_volume("15")).status is Status.ACTIVE
        with pytest.raises(InvalidRequest):
            await module.attach_volume("15", "5", "data/disk")
        volume = await module.attach_volume("15", "5", "dev/sda")
        assert (volume.status, volume.machine, volume.device) == (Status.ATTACHED, "5", "dev/sda")
        volume = await module.detach_volume("15")
        assert (volume.status, volume.machine) == (Status.ACTIVE, None)
    attach, detach = (etree.fromstring(sent.body) for sent in nebula_36.sent("POST", "/compute/5/action"))
    assert [dict(storage.attrib) for storage in attach.findall("PARAMS/STORAGE")] == [{"href": "/storage/15"}]
    assert attach.findtext("PARAMS/TARGET") == "sda"
    assert [dict(disk.attrib) for disk in detach.findall("PARAMS/DISK")] == [{"id": "2"}]


async def test_an_old_server_has_no_volumes() -> None:
    """A server before 3.6 lacks volumes, and says so; the rest is the same, with the sizes that it had built in."""
    with replay("test_opennebula", "OpenNebula_2_0_MockHttp"):
        async with examined(OpenNebulaModule, {**SETTINGS, "api_version": "2.0"}) as module:
            catalogue = await module.catalogue()
            assert catalogue.lacks == ("volumes", "attach-detach")
            assert [size.name for size in catalogue.sizes] == ["small", "medium", "large"]
            assert [machine.id for machine in await module.list_machines()] == ["5", "15", "25"]
            with pytest.raises(Unsupported):
                await module.create_volume(VolumeSpec(name="v", size_mib=1), key="k")


async def test_niifi_is_an_opennebula(nebula: Recording) -> None:
    """NIIFI's module speaks to the same service in the same way."""
    async with examined(NiifiModule, SETTINGS) as module:
        assert [machine.id for machine in await module.list_machines()] == ["5", "15", "25"]


@pytest.mark.parametrize(("status", "error"), [(401, Unauthorized), (404, NotFound), (503, Unavailable)])
async def test_refusals(nebula: Recording, status: int, error: type[Exception]) -> None:
    """What the service refuses is told in our words, and without the password."""

    def edit(_: Request, answer: Answer) -> None:
        answer.status, answer.body = status, f"wrong: {PASSWORD}"

    nebula.edit = edit
    async with examined(OpenNebulaModule, SETTINGS) as module:
        with pytest.raises(error) as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


def _replace(answer: Answer, old: str, new: str) -> None:
    answer.body = answer.body.replace(old, new)


def _with_data_block(request: Request, answer: Answer) -> None:
    """Make the storage 15, which a recorded machine has as its second disk, what it was: a data block."""
    if request.path == "/storage/15" and request.method == "GET":
        answer.body = DATABLOCK.replace("<ID>5</ID>", "<ID>15</ID>")


def _basic(username: str, password: str) -> str:
    request = next(httpx.BasicAuth(username, password).auth_flow(httpx.Request("GET", "http://any")))
    return str(request.headers["Authorization"])
