"""Azure's Resource Manager, as libcloud recorded it, through our module."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs

import pytest

from tests.labs.libcloud_fixtures import CREDENTIALS, PASSWORD, Recording, examined, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.azure import AzureModule
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    QuotaExceeded,
    Throttled,
    Unauthorized,
    Unavailable,
    VendorError,
)
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.resources import Attachment, MachineSpec, Size, Status, UserData, VolumeSpec
from vendor_modules.services.prices import CataloguePrices

ID = "99999999-9999-9999-9999-999999999999"
SETTINGS: dict[str, Any] = {
    "region": "eastus",
    "jurisdiction": "US",
    "block_gib_month": "0.05",
    "tenant": "77777777-7777-7777-7777-777777777777",
    "subscription": ID,
    "resource_group": "000000",
    "network": "home",
}
IMAGE = "OpenLogic:CentOS:7.3:latest"
SPEC = MachineSpec(name="Web ☎", image=IMAGE, size="Standard_A1")
GROUP = f"/subscriptions/{ID}/resourcegroups/000000/providers"
MACHINE = f"{GROUP}/microsoft.compute/virtualmachines/test-node-1"
VOLUME = f"{GROUP}/microsoft.compute/disks/test-disk-3"
HERE = "/subscriptions/99999999_9999_9999_9999_999999999999/".replace("_", "-")


class Subscription(Routes):
    """The recorded subscription, which remembers: what is created is what was recorded, with what was asked for."""

    def __init__(self) -> None:
        super().__init__("azure_arm")
        self.machines = {one["name"]: one for one in self._list("providers_Microsoft_Compute_virtualMachines")}
        self.disks = {one["name"]: one for one in self._list("resourceGroups_111111_providers_Microsoft_Compute_disks")}
        for disk in self.disks.values():
            disk["id"] = disk["id"].replace("111111", "000000")
        self.snapshots = {one["name"]: one for one in self._list("providers_Microsoft_Compute_snapshots")[:1]}
        self.nics = {
            "test-node-1-nic": self.told(
                "resourceGroups_000000_providers_Microsoft_Network_networkInterfaces_test_node_1_nic"
            )
        }
        self.power = dict.fromkeys(self.machines, "running")
        self.broken: dict[str, Any] | None = None
        """That of the above of which nothing can be deleted."""
        self.on("POST", "/77777777-[-7]+/oauth2/token", self._token)
        group = f"{HERE}resource[gG]roups/000000/providers/[mM]icrosoft"
        compute = rf"(?i:{group}\.Compute)"
        self.on("GET", f"{HERE}providers/Microsoft.Compute/locations/eastus/vmSizes", lambda _: (200, self._sizes()))
        for kind, held in (("virtualMachines", self.machines), ("disks", self.disks), ("snapshots", self.snapshots)):
            path = rf"{compute}/(?i:{kind})"
            self.on("GET", path, lambda _, held=held: (200, {"value": list(held.values())}))
            self.on("GET", f"{path}/([^/]+)", lambda name, _, held=held: (200, self._one(held, name)))
            self.on("DELETE", f"{path}/([^/]+)", lambda name, _, held=held: self._delete(held, name))
        machine = rf"{compute}/(?i:virtualMachines)/([^/]+)"
        self.on("GET", f"{machine}/InstanceView", self._view)
        self.on("POST", f"{machine}/(start|deallocate)", self._power)
        self.on("PUT", machine, self._machine)
        self.on("PUT", rf"{compute}/(?i:disks)/([^/]+)", self._disk)
        self.on("PUT", rf"{compute}/(?i:snapshots)/([^/]+)", self._snapshot)
        nic = rf"(?i:{group}\.Network/networkInterfaces)/([^/]+)"
        self.on("GET", nic, lambda name, _: (200, self._one(self.nics, name)))
        self.on("PUT", nic, self._nic)
        self.on("DELETE", nic, lambda name, _: self._delete(self.nics, name))

    def told(self, name: str) -> Any:
        """What was recorded of something in the subscription."""
        return self.recorded(f"_subscriptions_99999999_{name}.json")

    def _list(self, name: str) -> list[Any]:
        return list(self.told(name)["value"])

    def _sizes(self) -> Any:
        return self.told("providers_Microsoft_Compute_locations_eastus_vmSizes")

    def _token(self, form: str) -> tuple[int, Any]:
        if parse_qs(form)["client_secret"] != [PASSWORD]:
            raise Refused(401, {"error": "invalid_client", "error_description": "AADSTS7000215: Invalid client secret"})
        token = self.recorded("_77777777_7777_7777_7777_777777777777_oauth2_token.json")
        return 200, token | {"expires_on": "4102444800"}

    @staticmethod
    def _one(held: dict[str, Any], name: str) -> Any:
        for known, one in held.items():
            if known.lower() == name.lower():
                return one
        raise Refused(404, {"error": {"code": "ResourceNotFound", "message": f"The Resource '{name}' was not found."}})

    def _delete(self, held: dict[str, Any], name: str) -> tuple[int, Any]:
        if held is self.broken:
            raise Refused(503, {"error": {"code": "ServerBusy", "message": "busy"}})
        if name.lower() not in map(str.lower, held):
            return 204, None
        one = self._one(held, name)
        if held is self.nics and any(name in json.dumps(machine) for machine in self.machines.values()):
            raise Refused(400, {"error": {"code": "NicInUse", "message": "in use"}})
        del held[one["name"]]
        for disk in self.disks.values():
            if disk.get("managedBy", "").lower() == one["id"].lower():
                del disk["managedBy"]
        return 202, None

    def _view(self, name: str, _: Any) -> tuple[int, Any]:
        self._one(self.machines, name)
        view = self.told("resourceGroups_000000_providers_Microsoft_Compute_virtualMachines_test_node_1_InstanceView")
        view["statuses"][0]["code"] = "ProvisioningState/succeeded"
        view["statuses"][1]["code"] = f"PowerState/{self.power.get(name, self.power.get(name.lower(), 'running'))}"
        return 200, view

    def _power(self, name: str, action: str, _: Any) -> tuple[int, Any]:
        self._one(self.machines, name)
        self.power[name] = "running" if action == "start" else "deallocated"
        return 202, None

    def _machine(self, name: str, asked: Any) -> tuple[int, Any]:
        if name in self.machines:  # its disks change
            machine, disks = self.machines[name], asked["properties"]["storageProfile"]["dataDisks"]
            machine["properties"]["storageProfile"]["dataDisks"] = disks
            wanted = {disk["managedDisk"]["id"] for disk in disks}
            for disk in self.disks.values():
                disk.pop("managedBy", None)
                if disk["id"].lower() in wanted:
                    disk["managedBy"] = machine["id"].upper()
            return 200, machine
        if asked["properties"]["storageProfile"]["imageReference"]["publisher"] != "OpenLogic":
            raise Refused(
                404, {"error": {"code": "PlatformImageNotFound", "message": "The platform image was not found."}}
            )
        machine = json.loads(json.dumps(asked))
        machine["properties"]["storageProfile"]["dataDisks"] = []
        machine["properties"]["osProfile"].pop("adminPassword")
        own = machine["properties"]["storageProfile"]["osDisk"]
        created = {"properties": {"creationData": {"createOption": "FromImage"}, "diskSizeGB": 31}, "tags": {}}
        _, disk = self._disk(own["name"], created)
        own["managedDisk"]["id"] = disk["id"]
        self.machines[name] = machine
        return 201, machine

    def _disk(self, name: str, asked: Any) -> tuple[int, Any]:
        made = json.loads(json.dumps(self.told("resourceGroups_111111_providers_Microsoft_Compute_disks")["value"][0]))
        made |= {
            "name": name,
            "tags": asked["tags"],
            "id": f"{HERE}resourceGroups/000000/providers/Microsoft.Compute/disks/{name}",
        }
        made["properties"] |= asked["properties"]
        if source := asked["properties"]["creationData"].get("sourceResourceId"):
            least = self._one(self.snapshots, source.rsplit("/", 1)[1])["properties"]["diskSizeGB"]
            if asked["properties"]["diskSizeGB"] < least:
                raise Refused(400, {"error": {"code": "InvalidParameter", "message": "diskSizeGB is too small"}})
        self.disks[name] = made
        return 202, made

    def _snapshot(self, name: str, asked: Any) -> tuple[int, Any]:
        made = self.told("resourceGroups_000000_providers_Microsoft_Compute_snapshots_test_snap_1")
        made |= {"name": name, "tags": asked["tags"], "id": made["id"].replace("test-snap-1", name)}
        source = self._one(self.disks, asked["properties"]["creationData"]["sourceUri"].rsplit("/", 1)[1])
        size = {"diskSizeGB": source["properties"]["diskSizeGB"], "provisioningState": "Succeeded"}
        made["properties"] |= asked["properties"] | size
        self.snapshots[name] = made
        return 202, made

    def _nic(self, name: str, asked: Any) -> tuple[int, Any]:
        made = self.told("resourceGroups_000000_providers_Microsoft_Network_networkInterfaces_test_node_1_nic")
        made |= {"name": name, "id": made["id"].replace("test-node-1-nic", name)}
        self.nics[name] = made
        return 201, made


@pytest.fixture
def subscription() -> Subscription:
    """What the service remembers."""
    return Subscription()


@pytest.fixture
def service(subscription: Subscription) -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_azure_arm", "AzureMockHttp", _get_request=subscription) as recording:
        yield recording


def azure(**changes: Any) -> AzureModule:
    """The module, which does not wait between looks."""
    module = examined(AzureModule, SETTINGS, poll_seconds=0.0, **changes)
    assert isinstance(module, AzureModule)
    return module


async def test_sizes_with_prices_of_the_catalogue(service: Recording, tmp_path: Path) -> None:
    """The recorded sizes have the catalogue's prices, by their names in it, and the prices' date."""
    async with azure(prices=CataloguePrices(tmp_path)) as module:
        catalogue = await module.catalogue()
    sizes = {size.name: size for size in catalogue.sizes}
    assert sizes["Standard_A1"] == Size(name="Standard_A1", cores=1, memory_mib=1792, price_per_hour=Decimal("0.06"))
    assert sizes["Standard_A2"].cores == 2
    assert catalogue.priced is not None


async def test_the_recorded_machine(service: Recording) -> None:
    """The recorded machine is told with state, size, image and private address; its id is in small letters."""
    async with azure() as module:
        (machine,) = await module.list_machines()
        assert machine == await module.describe_machine(MACHINE)
    told = (machine.id, machine.name, machine.status, machine.size, machine.image, machine.host)
    assert told == (MACHINE, "test-node-1", Status.ACTIVE, "Standard_A1", IMAGE, "10.0.0.1")


@pytest.mark.parametrize(
    ("power", "status"),
    [("deallocated", Status.STOPPED), ("stopped", Status.STOPPED), ("deallocating", Status.PENDING)],
)
async def test_states(subscription: Subscription, service: Recording, power: str, status: Status) -> None:
    """A machine's state is read from its instance view."""
    subscription.power["test-node-1"] = power
    async with azure() as module:
        assert (await module.describe_machine(MACHINE)).status is status


async def test_creating_a_machine(service: Recording) -> None:
    """Key and name are sent as tags, the first boot's script as custom data; a second call creates nothing."""
    spec = SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"})})
    async with azure() as module:
        made = await module.create_machine(spec, key="key/1")
        assert await module.create_machine(spec, key="key/1") == made
    assert (made.name, made.key, made.size, made.image) == ("Web ☎", "key/1", "Standard_A1", IMAGE)
    nic, machine = service.sent("PUT")
    name = name_for("key/1", "Web ☎", longest=60)
    assert nic.path.endswith(f"/networkInterfaces/{name}-nic")
    assert machine.path.endswith(f"/virtualMachines/{name}")
    sent = json.loads(machine.body)
    assert (sent["tags"], sent["location"]) == ({KEY: "key/1", NAME: "Web ☎"}, "eastus")
    profile = sent["properties"]["osProfile"]
    assert base64.b64decode(profile["customData"]).startswith(b"#!/bin/sh\n")
    assert len(profile["adminPassword"]) > 40
    disk = sent["properties"]["storageProfile"]["osDisk"]
    assert disk["managedDisk"] == {"storageAccountType": "Standard_LRS"}
    subnet = json.loads(nic.body)["properties"]["ipConfigurations"][0]["properties"]["subnet"]["id"]
    assert subnet.lower() == f"{GROUP}/microsoft.network/virtualnetworks/home/subnets/default"


async def test_a_failed_creation_leaves_no_interface(subscription: Subscription, service: Recording) -> None:
    """When a machine is refused, the network interface that was made for it is removed."""
    async with azure() as module:
        with pytest.raises(NotFound, match="platform image"):
            await module.create_machine(SPEC.model_copy(update={"image": "Nobody:x:1:latest"}), key="k")
        with pytest.raises(InvalidRequest, match="PUBLISHER:OFFER"):
            await module.create_machine(SPEC.model_copy(update={"image": "centos"}), key="k")
    assert set(subscription.nics) == {"test-node-1-nic"}


async def test_destroying_a_machine(subscription: Subscription, service: Recording) -> None:
    """A machine goes with its network interface and its own disk; destroying it again is fine."""
    subscription.disks["test-node-disk-1"] = {
        "id": f"{GROUP}/Microsoft.Compute/disks/test-node-disk-1",
        "name": "test-node-disk-1",
        "properties": {"creationData": {"createOption": "FromImage"}, "diskSizeGB": 31},
    }
    async with azure() as module:
        assert [volume.name for volume in await module.list_volumes()] == ["test-disk-3"]
        await module.destroy_machine(MACHINE)
        await module.destroy_machine(MACHINE)
        assert await module.list_machines() == []
    assert subscription.nics == {}
    assert set(subscription.disks) == {"test-disk-3"}


@pytest.mark.parametrize("survivor", ["nics", "disks"])
async def test_a_destruction_that_breaks_off_is_completed(
    subscription: Subscription, service: Recording, survivor: str
) -> None:
    """When a machine goes but its interface or its own disk does not, destroying it again removes them; nothing else is
    removed, whatever id is given."""
    before = set(subscription.nics), set(subscription.disks)
    async with azure() as module:
        made = await module.create_machine(SPEC, key="k")
        subscription.broken = getattr(subscription, survivor)
        with pytest.raises(Unavailable):
            await module.destroy_machine(made.id)
        assert set(subscription.machines) == {"test-node-1"}
        subscription.broken = None
        left = set(subscription.nics), set(subscription.disks)
        assert left != before
        await module.destroy_machine(made.id.replace("virtualmachines", "others"))
        await module.destroy_machine(VOLUME.replace("/disks/", "/virtualmachines/"))
        assert (set(subscription.nics), set(subscription.disks)) == left
        await module.destroy_machine(made.id)
    assert (set(subscription.nics), set(subscription.disks)) == before


async def test_power(service: Recording) -> None:
    """Machines are deallocated and started, each once however often it is asked for."""
    async with azure() as module:
        for _ in range(2):
            assert (await module.stop_machine(MACHINE)).status is Status.STOPPED
        for _ in range(2):
            assert (await module.start_machine(MACHINE)).status is Status.ACTIVE
    actions = [r.path.rsplit("/", 1)[1] for r in service.sent("POST") if "oauth2" not in r.path]
    assert actions == ["deallocate", "start"]


async def test_volumes(service: Recording) -> None:
    """Key and name of a volume are sent as tags; it is attached and detached once, and stays while it is in use."""
    async with azure() as module:
        (known,) = await module.list_volumes()
        assert (known.id, known.status, known.size_mib) == (VOLUME, Status.ACTIVE, 10240)
        made = await module.create_volume(VolumeSpec(name="Däta", size_mib=1025), key="key-2")
        assert await module.create_volume(VolumeSpec(name="Däta", size_mib=1025), key="key-2") == made
        assert (made.name, made.key, made.size_mib) == ("Däta", "key-2", 2048)
        for _ in range(2):
            attached = await module.attach_volume(made.id, MACHINE, "dev/vdb")
            assert (attached.status, attached.machine) == (Status.ATTACHED, MACHINE)
        with pytest.raises(Conflict):
            await module.destroy_volume(made.id)
        for _ in range(2):
            assert (await module.detach_volume(made.id)).status is Status.ACTIVE
        await module.destroy_volume(made.id)
        assert await module.list_volumes() == [known]
    create, attach, detach = (json.loads(request.body) for request in service.sent("PUT"))
    assert create["tags"] == {KEY: "key-2", NAME: "Däta"}
    assert create["properties"] == {"creationData": {"createOption": "Empty"}, "diskSizeGB": 2}
    disk = {"lun": 0, "createOption": "attach", "managedDisk": {"id": made.id}}
    assert attach["properties"]["storageProfile"]["dataDisks"] == [disk]
    assert detach["properties"]["storageProfile"]["dataDisks"] == []


async def test_a_machine_with_a_volume(service: Recording) -> None:
    """A volume that a machine is made with is attached when it runs."""
    async with azure() as module:
        wanted = (Attachment(volume=VOLUME, device="dev/vdb"),)
        made = await module.create_machine(SPEC.model_copy(update={"volumes": wanted}), key="key-1")
    assert made.volumes == (VOLUME,)


async def test_snapshots(service: Recording) -> None:
    """A snapshot has key and name in its tags; a volume is a copy of it, by the name that Azure has for that."""
    async with azure() as module:
        (known,) = await module.list_snapshots()
        assert (known.name, known.status, known.size_mib) == ("test-snap-1", Status.PENDING, 1024)
        made = await module.create_snapshot(VOLUME, "before", key="key-3")
        assert await module.create_snapshot(VOLUME, "before", key="key-3") == made
        assert (made.name, made.key, made.volume) == ("before", "key-3", VOLUME)
        await module.create_volume(VolumeSpec(name="again", size_mib=10240, snapshot=made.id), key="key-4")
        await module.destroy_snapshot(made.id)
        assert await module.list_snapshots() == [known]
    snapshot, volume = (json.loads(request.body) for request in service.sent("PUT"))
    assert snapshot["properties"]["creationData"] == {"createOption": "Copy", "sourceUri": VOLUME}
    assert volume["properties"]["creationData"] == {"createOption": "Copy", "sourceResourceId": made.id}


async def test_all_pages_are_read(subscription: Subscription) -> None:
    """Machines on a second page are listed too, as recorded."""

    def pages(method: str, url: str, body: Any = None, headers: Any = None) -> Any:
        if method == "GET" and url.split("?")[0].endswith("/virtualMachines"):
            page = "_1" if "skiptoken" in url else ""
            return 200, json.dumps(subscription.told(f"providers_Microsoft_Compute_virtualMachines{page}")), {}, ""
        return subscription(method, url, body, headers)

    second = subscription.told("providers_Microsoft_Compute_virtualMachines_1")["value"][0]
    subscription.machines[second["name"]] = second
    with replay("test_azure_arm", "AzureMockHttp", _get_request=pages):
        async with azure() as module:
            assert [machine.name for machine in await module.list_machines()] == ["test-node-1", "test-node-2"]


@pytest.mark.parametrize(
    ("status", "code", "error"),
    [
        (401, "InvalidAuthenticationToken", Unauthorized),
        (403, "AuthorizationFailed", Forbidden),
        (404, "ResourceGroupNotFound", NotFound),
        (409, "Conflict", Conflict),
        (409, "QuotaExceeded", QuotaExceeded),
        (429, "TooManyRequests", Throttled),
        (503, "ServerBusy", Unavailable),
    ],
)
async def test_refusals(
    subscription: Subscription, service: Recording, status: int, code: str, error: type[VendorError]
) -> None:
    """What Azure refuses is told in our words, with its code and without the secret."""

    def refuse(headers: Any) -> tuple[int, Any] | None:
        return (status, {"error": {"code": code, "message": f"no {PASSWORD}"}}) if "Authorization" in headers else None

    subscription.refuse = refuse  # type: ignore[method-assign]
    async with azure() as module:
        with pytest.raises(error, match=code if status != 429 else "[Rr]ate limit") as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


async def test_a_wrong_secret_is_unauthorized(service: Recording) -> None:
    """An application whose secret is wrong gets no token: Unauthorized."""
    wrong = CREDENTIALS.model_copy(update={"password": type(CREDENTIALS.password)("another")})
    async with examined(AzureModule, SETTINGS, credentials=wrong) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()


# --- the conformance suite, as far as it goes with a recording ---

DEVICES = ("volume-says-where-it-is-attached", "machine-that-exists")
CHECKS = checks_for(AzureModule, DEVICES)
"""The suite knows no prices: without any, machines of every size are lacking."""


@pytest.fixture
def whole(service: Recording) -> conformance.Subject:
    """The module as the suite examines it."""
    kind = type("AzureModule", (AzureModule,), {"poll_seconds": 0.0})
    known = {"image": IMAGE, "size": "Standard_A1", "volume_mib": 1024, "unknown_id": f"{GROUP}/x/y/none"}
    return replace(subject(kind, SETTINGS), **known)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, whole: conformance.Subject) -> None:
    """The module does what the conformance suite asks; devices of volumes are among its known limits."""
    result = await conformance.run_check(check, whole)
    assert result.outcome != "failed", result.reason
