"""Apache CloudStack, as libcloud recorded it, through our module."""

import json
from base64 import b64decode
from collections.abc import Callable, Iterator
from gzip import decompress
from hashlib import sha256
from typing import Any

import pytest
from libcloud.common.cloudstack import CloudStackConnection
from pydantic import SecretStr

from tests.labs.libcloud_fixtures import PASSWORD, Answer, Recording, Request, examined, recorded, replay, subject
from tests.vendor_modules.recorded.cloudstack_account import Account
from tests.vendor_modules.recorded.routes import checks_for
from vendor_modules import conformance
from vendor_modules.cloudstack import CloudStackModule
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    ResourceFailed,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
)
from vendor_modules.labels import name_for
from vendor_modules.module import VendorModule
from vendor_modules.resources import KeyPair, Machine, MachineSpec, Quota, Rule, Status, UserData, VolumeSpec
from vendor_modules.services.credentials import AccessKeyCredentials

KEYS = AccessKeyCredentials(access_key="apikey", secret_key=SecretStr(PASSWORD))
SETTINGS: dict[str, Any] = {
    "region": "sydney",
    "jurisdiction": "AU",
    "url": "https://api.example/test/path",
    "prices_per_hour": {"105": "0.01"},
}
SPEC = MachineSpec(name="Fred ☎", image="576", size="105")
ROOT = "fe1ada16-57a0-40ae-b577-01a153690fb4"
NEW_VOLUME = "60338035-92fb-4d27-98d4-b60ad4b38b87"
Edit = Callable[[dict[str, Any]], object]


@pytest.fixture
def cloud(monkeypatch: pytest.MonkeyPatch) -> Iterator[Recording]:
    """The recorded service, whose jobs are asked about at once."""
    monkeypatch.setattr(CloudStackConnection, "poll_interval", 0)
    with replay("test_cloudstack", "CloudStackMockHttp") as recording:
        yield recording


def _module(**settings: Any) -> VendorModule:
    return examined(CloudStackModule, SETTINGS | settings, KEYS)


def _edit(cloud: Recording, **edits: Edit) -> None:
    """Let a command's function change what is in the command's recorded answer."""

    def edit(request: Request, answer: Answer) -> None:
        if change := edits.get(request.query["command"]):
            told = json.loads(answer.body)
            change(next(iter(told.values())))
            answer.body = json.dumps(told)

    cloud.edit = edit


def _calls(cloud: Recording, command: str) -> list[dict[str, str]]:
    """What a command was called with."""
    known = ("apiKey", "response", "signature", "command")
    return [{k: v for k, v in r.query.items() if k not in known} for r in cloud.sent("GET", command=command)]


def _job(number: int | str) -> dict[str, Any]:
    """The recorded result of a job."""
    told = json.loads(recorded("cloudstack", f"queryAsyncJobResult_{number}.json"))
    result: dict[str, Any] = told["queryasyncjobresultresponse"]["jobresult"]
    return result


async def test_the_recorded_sizes(cloud: Recording) -> None:
    """Sizes are the service offerings, with the prices of the settings."""
    async with _module() as module:
        sizes = (await module.catalogue()).sizes
    assert [(size.name, size.cores, size.memory_mib, str(size.price_per_hour)) for size in sizes] == [
        ("105", 1, 384, "0.01"),
        ("70", 8, 13928, "None"),
        ("69", 4, 6964, "None"),
        ("68", 2, 3484, "None"),
        ("67", 1, 1744, "None"),
    ]


async def test_the_recorded_machines(cloud: Recording) -> None:
    """The recorded machines are told with state and addresses; a state that nobody knows is pending."""
    async with _module() as module:
        machines = await module.list_machines()
        assert await module.describe_machine("2601") == machines[1]
        common = {"name": "test", "size": "105", "image": "421"}
        assert machines == [
            Machine(id="2600", status=Status.ACTIVE, host="1.1.1.116", port=8080, **common),
            Machine(id="2601", status=Status.PENDING, host="1.1.1.203", port=8080, **common),
        ]
        for told, status in (("Error", Status.ERROR), ("Stopped", Status.STOPPED), ("Dreaming", Status.PENDING)):
            _edit(cloud, listVirtualMachines=lambda held, told=told: held["virtualmachine"][0].update(state=told))
            assert (await module.describe_machine("2600")).status is status


async def test_creating_a_machine(cloud: Recording) -> None:
    """A machine is created once, started, under a name that holds its key, and known by the name that it was given."""
    chosen = name_for("key-1", "Fred ☎")
    made = _job(17164)["virtualmachine"] | {"name": chosen, "displayname": "Fred ☎"}
    _edit(
        cloud,
        listVirtualMachines=lambda held: _calls(cloud, "deployVirtualMachine") and held["virtualmachine"].append(made),
    )
    spec = SPEC.model_copy(
        update={"user_data": UserData(), "key_pair": "cs-keypair", "security_groups": ("default", "mongodb")}
    )
    async with _module(zone="Sydney") as module:
        machine = await module.create_machine(spec, key="key-1")
        assert await module.create_machine(spec, key="key-1") == machine
    assert (machine.id, machine.name, machine.key, machine.host) == ("2602", "Fred ☎", "key-1", "192.168.1.2")
    (call,) = _calls(cloud, "deployVirtualMachine")
    assert b64decode(call.pop("userdata")).startswith(b"#!/bin/sh\n")
    assert call == {
        "name": chosen,
        "displayname": "Fred ☎",
        "serviceofferingid": "105",
        "templateid": "576",
        "zoneid": "1",
        "keypair": "cs-keypair",
        "securitygroupnames": "default,mongodb",
        "startvm": "True",
    }


async def test_long_user_data_is_compressed(cloud: Recording) -> None:
    """User data that is too long for a URL is compressed, and refused where that is not enough."""
    incompressible = b"".join(sha256(bytes([number])).digest() for number in range(160))
    async with _module() as module:
        for content, error in ((b"long " * 2000, NotFound), (incompressible, InvalidRequest)):
            spec = SPEC.model_copy(update={"user_data": UserData(files={"file": content})})
            with pytest.raises(error):  # the recorded list of machines does not have the one that is made
                await module.create_machine(spec, key="k")
    (call,) = _calls(cloud, "deployVirtualMachine")
    assert decompress(b64decode(call["userdata"])).startswith(b"#!/bin/sh\n")
    assert len(call["userdata"]) < 4096


async def test_networks_of_new_machines(cloud: Recording) -> None:
    """Machines are put into the networks of the settings; a zone that is not there is refused."""
    network = "00304a04-c7ea-4e77-a786-18bc64347bf7"
    async with _module(networks=(network,)) as module:
        with pytest.raises(NotFound):  # the recorded list of machines does not have it
            await module.create_machine(SPEC, key="k")
    async with _module(zone="Perth") as module:
        with pytest.raises(InvalidRequest, match="Perth"):
            await module.create_machine(SPEC, key="k")
    assert [call["networkids"] for call in _calls(cloud, "deployVirtualMachine")] == [network]


async def test_failed_deployments(cloud: Recording) -> None:
    """A deployment that is refused, and one whose job fails, are told apart."""
    async with _module() as module:
        for scenario, error in (("deployfail2", ResourceFailed), ("deployfail", VendorError)):
            _failing(cloud, scenario)
            with pytest.raises(error):
                await module.create_machine(SPEC, key="k")


def _failing(cloud: Recording, scenario: str) -> None:
    def edit(request: Request, answer: Answer) -> None:
        if request.query["command"] == "deployVirtualMachine":
            answer.body = recorded("cloudstack", f"deployVirtualMachine_{scenario}.json")
            answer.status = 431 if "errorcode" in answer.body else 200  # as CloudStack has it; the mock says 200

    cloud.edit = edit


async def test_destroying_a_machine(cloud: Recording) -> None:
    """A machine is gone when CloudStack calls it Destroyed, or does not list it."""

    def change(held: dict[str, Any]) -> None:
        if _calls(cloud, "destroyVirtualMachine"):
            held["virtualmachine"][0]["state"] = "Destroyed"

    _edit(cloud, listVirtualMachines=change)
    async with _module() as module:
        await module.destroy_machine("2600")
        assert [machine.id for machine in await module.list_machines()] == ["2601"]
    assert _calls(cloud, "destroyVirtualMachine") == [{"id": "2600"}]


async def test_stopping_and_starting(cloud: Recording) -> None:
    """Power is startVirtualMachine and stopVirtualMachine; what is so already is not asked for."""

    def change(held: dict[str, Any]) -> None:
        stopped = len(_calls(cloud, "stopVirtualMachine")) > len(_calls(cloud, "startVirtualMachine"))
        held["virtualmachine"][0]["state"] = "Stopped" if stopped else "Running"

    _edit(cloud, listVirtualMachines=change)
    async with _module() as module:
        assert (await module.start_machine("2600")).status is Status.ACTIVE
        assert (await module.stop_machine("2600")).status is Status.STOPPED
        assert (await module.start_machine("2600")).status is Status.ACTIVE
    assert _calls(cloud, "stopVirtualMachine") == _calls(cloud, "startVirtualMachine") == [{"id": "2600"}]


async def test_volumes(cloud: Recording) -> None:
    """A machine's own disk is no volume; a volume's bytes, place and device are told."""
    async with _module() as module:
        assert await module.list_volumes() == []
        data = {"type": "DATADISK", "size": 10 * 2**30, "virtualmachineid": 2600, "deviceid": 1}
        _edit(cloud, listVolumes=lambda held: held["volume"][0].update(data))
        (volume,) = await module.list_volumes()
        assert (volume.id, volume.size_mib, volume.status) == (ROOT, 10240, Status.ATTACHED)
        assert (volume.machine, volume.device) == ("2600", "dev/vdb")
        assert (await module.describe_machine("2600")).volumes == (ROOT,)
        with pytest.raises(Conflict):
            await module.destroy_volume(ROOT)
        with pytest.raises(Conflict):
            await module.attach_volume(ROOT, "2601", "dev/vdb")


async def test_the_life_of_a_volume(cloud: Recording) -> None:
    """A volume is created once, attached as the device that is wanted, detached, and removed."""
    made = _job("createvolumejob")["volume"] | {"name": name_for("key-2", "data")}

    def change(held: dict[str, Any]) -> None:
        attached = len(_calls(cloud, "attachVolume")) > len(_calls(cloud, "detachVolume"))
        where = {"virtualmachineid": 2600, "deviceid": 2} if attached else {}
        if _calls(cloud, "createVolume") and not _calls(cloud, "deleteVolume"):
            held["volume"].append(made | where)

    _edit(cloud, listVolumes=change)
    async with _module() as module:
        volume = await module.create_volume(VolumeSpec(name="data", size_mib=10000), key="key-2")
        assert await module.create_volume(VolumeSpec(name="data", size_mib=10000), key="key-2") == volume
        assert (volume.id, volume.key, volume.size_mib, volume.status) == (NEW_VOLUME, "key-2", 10240, Status.ACTIVE)
        with pytest.raises(InvalidRequest):
            await module.attach_volume(volume.id, "2600", "dev/xvdb")
        attached = await module.attach_volume(volume.id, "2600", "dev/vdc")
        assert (attached.machine, attached.device) == ("2600", "dev/vdc")
        assert (await module.detach_volume(volume.id)).status is Status.ACTIVE
        await module.destroy_volume(volume.id)
        with pytest.raises(InvalidRequest, match="Disk offering"):  # there is one of 10 GiB only
            await module.create_volume(VolumeSpec(name="data", size_mib=5000), key="key-3")
    offering = "6345e3b7-227e-4209-8f8c-1f94219696e6"
    assert _calls(cloud, "createVolume") == [{"name": made["name"], "diskOfferingId": offering, "zoneId": "1"}]
    assert _calls(cloud, "attachVolume") == [{"id": NEW_VOLUME, "virtualMachineId": "2600", "deviceId": "2"}]
    assert _calls(cloud, "detachVolume") == _calls(cloud, "deleteVolume") == [{"id": NEW_VOLUME}]


async def test_the_recorded_snapshots(cloud: Recording) -> None:
    """The recorded snapshots are told; an account without any has an empty list, which libcloud cannot read."""
    async with _module() as module:
        snapshots = await module.list_snapshots()
        assert [(one.id, one.volume, one.status) for one in snapshots] == [
            ("188402", "89341", Status.ACTIVE),
            ("188401", "89342", Status.ACTIVE),
            ("188400", "89343", Status.ACTIVE),
        ]
        _edit(cloud, listSnapshots=lambda held: held.clear())
        assert await module.list_snapshots() == []


async def test_the_life_of_a_snapshot(cloud: Recording) -> None:
    """A snapshot's name, which libcloud drops, holds its key; a volume is made from it; it is removed."""
    made = _job(1300001)["snapshot"] | {"name": name_for("key-4", "before"), "state": "BackedUp"}
    new = _job("createvolumejob")["volume"] | {"name": name_for("key-5", "copy")}

    def snapshots(held: dict[str, Any]) -> None:
        if _calls(cloud, "createSnapshot") and not _calls(cloud, "deleteSnapshot"):
            held["snapshot"].append(made)

    def volumes(held: dict[str, Any]) -> None:
        held["volume"][0].update(type="DATADISK", size=3 * 2**30)
        if _calls(cloud, "createVolume"):
            held["volume"].append(new)

    _edit(cloud, listSnapshots=snapshots, listVolumes=volumes)
    async with _module() as module:
        snapshot = await module.create_snapshot(ROOT, "before", key="key-4")
        assert await module.create_snapshot(ROOT, "before", key="key-4") == snapshot
        assert (snapshot.id, snapshot.key, snapshot.volume, snapshot.size_mib) == ("190547", "key-4", ROOT, 3072)
        copy = await module.create_volume(VolumeSpec(name="copy", size_mib=3072, snapshot="190547"), key="key-5")
        assert (copy.id, copy.key) == (NEW_VOLUME, "key-5")
        await module.destroy_snapshot("190547")
        with pytest.raises(NotFound):
            await module.describe_snapshot("190547")
    assert _calls(cloud, "createSnapshot") == [{"volumeid": ROOT, "name": made["name"]}]
    assert _calls(cloud, "createVolume") == [{"name": new["name"], "zoneid": "1", "snapshotid": "190547"}]
    assert _calls(cloud, "deleteSnapshot") == [{"id": "190547"}]


async def test_the_recorded_images(cloud: Recording) -> None:
    """The recorded templates are told; they are not the account's own."""
    async with _module() as module:
        images = await module.list_images()
        assert images[0] == await module.describe_image("576")
    assert (images[0].id, images[0].status, images[0].public) == ("576", Status.ACTIVE, True)
    assert len({image.id for image in images}) == len(images) > 10


async def test_bundling_a_machine(cloud: Recording) -> None:
    """An image is made from a stopped machine's own disk, once for its key; removing it removes the template."""
    made = _job(1300003)["template"] | {"name": name_for("key-6", "golden")}

    def templates(held: dict[str, Any]) -> None:
        if _calls(cloud, "createTemplate") and not _calls(cloud, "deleteTemplate"):
            held["template"].append(made)

    edits: dict[str, Edit] = {"listTemplates": templates}
    _edit(cloud, **edits)
    async with _module() as module:
        with pytest.raises(Conflict, match="stopped"):
            await module.bundle_machine("2600", "golden", key="key-6")
        edits["listVirtualMachines"] = lambda held: held["virtualmachine"][0].update(state="Stopped", guestosid=12)
        _edit(cloud, **edits)
        image = await module.bundle_machine("2600", "golden", key="key-6")
        assert await module.bundle_machine("2600", "golden", key="key-6") == image
        assert (image.id, image.key, image.public) == ("10260", "key-6", False)
        inner = cloud.edit

        def edit(request: Request, answer: Answer) -> None:
            if request.query["command"] == "deleteTemplate":  # as the API's reference says; it was never recorded
                answer.give(200, json.dumps({"deletetemplateresponse": {"jobid": 1300002}}))
            inner(request, answer)

        cloud.edit = edit
        await module.destroy_image("10260")
    name = made["name"]
    asked = {"name": name, "displaytext": "golden", "ostypeid": "12", "volumeid": ROOT}
    assert _calls(cloud, "createTemplate") == [asked]
    assert _calls(cloud, "deleteTemplate") == [{"id": "10260"}]


async def test_key_pairs(cloud: Recording) -> None:
    """A key pair is registered once under a name that holds its key, and removed by it."""
    chosen = name_for("key-7", "laptop")

    def pairs(held: dict[str, Any]) -> None:
        if _calls(cloud, "registerSSHKeyPair") and not _calls(cloud, "deleteSSHKeyPair"):
            held["sshkeypair"].append({"name": chosen, "fingerprint": "c4:a1"})

    _edit(cloud, listSSHKeyPairs=pairs)
    async with _module() as module:
        zeros = ":".join(["00"] * 20)
        known = KeyPair(id="cs-keypair", name="cs-keypair", status=Status.ACTIVE, public_key="", fingerprint=zeros)
        assert await module.list_key_pairs() == [known]
        pair = await module.create_key_pair("laptop", "ssh-ed25519 AAAA me", key="key-7")
        assert await module.create_key_pair("laptop", "ssh-ed25519 AAAA me", key="key-7") == pair
        assert (pair.id, pair.key, pair.fingerprint) == (chosen, "key-7", "c4:a1")
        await module.destroy_key_pair(pair.id)
        with pytest.raises(NotFound):
            await module.describe_key_pair(pair.id)
    assert _calls(cloud, "registerSSHKeyPair") == [{"name": chosen, "publickey": "ssh-ed25519 AAAA me"}]
    assert _calls(cloud, "deleteSSHKeyPair") == [{"name": chosen}]


async def test_the_recorded_security_groups(cloud: Recording) -> None:
    """The recorded groups are told with their TCP rules for addresses and single ports."""
    async with _module() as module:
        default, mongodb = await module.list_security_groups()
        assert await module.describe_security_group("mongodb") == mongodb
        with pytest.raises(NotFound):
            await module.describe_security_group("none")
    assert (default.id, default.rules) == ("default", (Rule(port=22), Rule(port=9200), Rule(port=8080)))
    assert (mongodb.id, mongodb.rules) == ("mongodb", (Rule(port=22), Rule(port=27017)))


async def test_the_life_of_a_security_group(cloud: Recording) -> None:
    """A group is created once with its rules; one that was left without some of them gets those that are missing."""
    chosen = name_for("key-8", "web")
    held_rules = [{"protocol": "tcp", "startport": 80, "endport": 80, "cidr": "0.0.0.0/0"}]

    def groups(held: dict[str, Any]) -> None:
        if _calls(cloud, "createSecurityGroup") and not _calls(cloud, "deleteSecurityGroup"):
            rules = held_rules[: len(_calls(cloud, "authorizeSecurityGroupIngress"))]
            held["securitygroup"].append({"name": chosen, "description": "web", "ingressrule": rules})

    _edit(cloud, listSecurityGroups=groups)
    async with _module() as module:
        group = await module.create_security_group("web", [Rule(port=80)], key="key-8")
        assert (group.id, group.name, group.key, group.rules) == (chosen, "web", "key-8", (Rule(port=80),))
        await module.create_security_group("web", [Rule(port=80), Rule(port=443, cidr="10.0.0.0/8")], key="key-8")
        await module.destroy_security_group(chosen)
    assert _calls(cloud, "createSecurityGroup") == [{"name": chosen, "description": "web"}]
    asked = {"securitygroupname": chosen, "protocol": "TCP"}
    assert _calls(cloud, "authorizeSecurityGroupIngress") == [
        asked | {"cidrlist": "0.0.0.0/0", "startport": "80", "endport": "80"},
        asked | {"cidrlist": "10.0.0.0/8", "startport": "443", "endport": "443"},
    ]
    assert _calls(cloud, "deleteSecurityGroup") == [{"name": chosen}]


async def test_the_recorded_quotas(cloud: Recording) -> None:
    """The account's limits are told, and nothing of what has none."""
    async with _module() as module:
        quotas = await module.quotas()
    limits = {"machines": 20, "volumes": 20, "snapshots": 20, "images": 20, "networks": 20}
    assert quotas == [Quota(resource=name, limit=limit) for name, limit in limits.items()]


async def test_wrong_credentials(cloud: Recording) -> None:
    """What the service answered to wrong credentials is Unauthorized."""
    cloud.mock.type = "invalid_credentials"
    async with _module() as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()


async def test_a_refused_public_key(cloud: Recording) -> None:
    """What the service answered to a bad public key is InvalidRequest, in its words."""
    async with _module() as module:
        _edit(cloud)
        cloud.edit = lambda request, answer: (
            request.query["command"] == "registerSSHKeyPair"
            and vars(answer).update(status=431, body=recorded("cloudstack", "registerSSHKeyPair_error.json"))
        )
        with pytest.raises(InvalidRequest, match="Public key is invalid"):
            await module.create_key_pair("k", "no key", key="k")


@pytest.mark.parametrize(
    ("code", "error"),
    [
        (432, Unsupported),
        (530, Unavailable),
        (532, QuotaExceeded),
        (533, Unavailable),
        (535, QuotaExceeded),
        (536, Conflict),
    ],
)
async def test_refusals(cloud: Recording, code: int, error: type[VendorError]) -> None:
    """CloudStack's own error codes are told in our words, and without the secret key."""

    def edit(_: Request, answer: Answer) -> None:
        words = {"errorcode": code, "errortext": f"no: {PASSWORD}"}
        answer.status, answer.body = code, json.dumps({"listvirtualmachinesresponse": words})

    cloud.edit = edit
    async with _module() as module:
        with pytest.raises(error, match="no: ") as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


CHECKS = checks_for(
    CloudStackModule,
    [
        *(f"{kind}-keeps-a-" for kind in ("key-pair", "volume", "snapshot")),
        *(f"{kind}-is-told-from-its-namesake" for kind in ("key-pair", "volume", "snapshot")),
        "key-pair-has-its-public-key",
        "snapshot-leaves-its-volume-alone",  # compares a name's key between two memories
    ],
)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, monkeypatch: pytest.MonkeyPatch) -> None:
    """The module keeps the contract of the check, on a recorded account that remembers."""
    monkeypatch.setattr(CloudStackConnection, "poll_interval", 0)
    account = Account()
    more = {"image": "576", "size": "105", "volume_mib": 1024, "credentials_checked": False}
    with replay("test_cloudstack", "CloudStackMockHttp", _get_request=account._get_request):
        settings = SETTINGS | {"block_gib_month": "0.10"}
        result = await conformance.run_check(check, subject(CloudStackModule, settings, KEYS, **more))
    assert result.outcome != "failed", result.reason


def test_enough_is_checked() -> None:
    """At least 160 checks are run: those that are left out go by parts of their names."""
    assert len(CHECKS) >= 160
