"""The Deltacloud module: the conformance suite on a stub of its REST API, and what is this protocol's own."""

from __future__ import annotations

import pytest

from tests.labs.deltacloud_server import IMAGE, PASSWORD, USERNAME, DeltacloudServer
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import InvalidRequest, ProtocolError, Unsupported
from vendor_modules.http import xml_of
from vendor_modules.protocols.deltacloud import DeltacloudModule, DeltacloudSettings, _machine, _size, _volume
from vendor_modules.resources import Attachment, MachineSpec, Rule, Status, UserData, VolumeSpec
from vendor_modules.services.credentials import PasswordCredentials

LOGIN = PasswordCredentials(username=USERNAME, password=PASSWORD)


@pytest.fixture(scope="module")
def cloud():
    with DeltacloudServer() as server:
        yield server


@pytest.fixture(scope="module")
def subject(cloud):
    prices = {"m1-small": "0.05", "m1-large": "0.2"}
    settings = DeltacloudSettings(url=f"{cloud.url}/api", free_names=True, prices=prices, block_gib_month="0.1")
    return conformance.Subject(
        DeltacloudModule, settings, LOGIN, image=IMAGE, machines_run=False, volume_mib=1024, page_size=5
    )


@pytest.mark.parametrize("check", conformance.checks_for(DeltacloudModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    """The module does what the conformance suite asks."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason


# --- the representations of the published documentation ---

INSTANCE = b"""<?xml version='1.0' encoding='utf-8' ?>
<instance href='http://localhost:3001/api/instances/inst1' id='inst1'>
  <name>Production JBoss Instance</name>
  <owner_id>mockuser</owner_id>
  <image href='http://localhost:3001/api/images/img3' id='img3'></image>
  <realm href='http://localhost:3001/api/realms/us' id='us'></realm>
  <state>RUNNING</state>
  <hardware_profile href='http://localhost:3001/api/hardware_profiles/m1-small' id='m1-small'></hardware_profile>
  <actions>
    <link href='http://localhost:3001/api/instances/inst1/reboot' method='post' rel='reboot' />
    <link href='http://localhost:3001/api/instances/inst1/stop' method='post' rel='stop' />
  </actions>
  <public_addresses><address type='hostname'>img3.inst1.public.com</address></public_addresses>
  <private_addresses><address type='hostname'>img3.inst1.private.com</address></private_addresses>
</instance>"""
VOLUME = b"""<storage_volume href='http://localhost:3001/api/storage_volumes/vol2' id='vol2'>
  <created>Thu Jul 30 14:35:11 UTC 2009</created><capacity unit='GB'>1</capacity><device>/dev/sda1</device>
  <state>IN-USE</state>
  <mount><instance href='http://localhost:3001/api/instances/inst1' id='inst1'/><device name='/dev/sda1'/></mount>
</storage_volume>"""
OPAQUE = b"<hardware_profile href='' id='opaque'><id>opaque</id><name>opaque</name></hardware_profile>"


def test_documented_instance_is_read():
    """An instance as the documentation prints it is a machine with its image, size and public address."""
    machine = _machine(xml_of(INSTANCE), ("", "Production JBoss Instance"), {})
    got = (machine.id, machine.status, machine.image, machine.size, machine.host)
    assert got == ("inst1", Status.ACTIVE, "img3", "m1-small", "img3.inst1.public.com")


def test_documented_volume_is_read():
    """A mounted volume as the documentation prints it is attached, and its device has no leading slash."""
    volume = _volume(xml_of(VOLUME), ("", "vol2"))
    assert (volume.status, volume.size_mib, volume.machine, volume.device) == (
        Status.ATTACHED,
        1024,
        "inst1",
        "dev/sda1",
    )


def test_profile_that_tells_nothing_is_not_sold():
    """A hardware profile without cores and memory is left out of the catalogue."""
    assert _size(xml_of(OPAQUE), {}) is None


def test_capacity_in_other_units_is_no_answer():
    """A volume whose capacity is not in GB is refused, rather than read wrongly."""
    with pytest.raises(ProtocolError, match="GB"):
        _volume(xml_of(VOLUME.replace(b"'GB'", b"'TB'")), ("", "vol2"))


# --- what is this protocol's own ---


@pytest.fixture
def fresh():
    with DeltacloudServer() as server:
        yield server


@pytest.fixture
async def module(fresh):
    async with made(DeltacloudModule, LOGIN, url=f"{fresh.url}/api") as made_module:
        yield made_module


async def test_names_carry_the_key_where_they_must_be_plain():
    """Without free names, an instance's name is plain and as short as the driver demands, and its key is found."""
    with DeltacloudServer(max_length=20) as small:
        async with made(DeltacloudModule, LOGIN, url=f"{small.url}/api") as limited:
            spec = MachineSpec(name="Grüße 世界", image=IMAGE, size="m1-small")
            first = await limited.create_machine(spec, key="k")
            assert (await limited.create_machine(spec, key="k")).id == first.id
            assert first.key == "k"
            assert len(small.instances[first.id].name) <= 20


async def test_feature_that_the_driver_lacks_is_unsupported():
    """User data for a driver without the feature is refused as Unsupported, and nothing is made."""
    with DeltacloudServer() as plain:
        plain.features["instances"].remove("user_data")
        async with made(DeltacloudModule, LOGIN, url=f"{plain.url}/api") as limited:
            spec = MachineSpec(name="one", image=IMAGE, size="m1-small", user_data=UserData())
            with pytest.raises(Unsupported, match="user_data"):
                await limited.create_machine(spec, key="k")
        assert not plain.instances


async def test_user_data_arrives_decoded(fresh, module):
    """The first boot's script arrives as it is once its Base64 is taken off."""
    spec = MachineSpec(name="one", image=IMAGE, size="m1-small", user_data=UserData(files={"a": b"b"}))
    machine = await module.create_machine(spec, key="user-data")
    assert fresh.instances[machine.id].user_data.startswith(b"#!/bin/sh\n")
    await module.destroy_machine(machine.id)


async def test_driver_and_provider_are_named_in_every_request(fresh):
    """The driver and the provider of the settings go along as headers."""
    about = {"url": f"{fresh.url}/api", "driver": "rhevm", "provider": "https://rhevm.example.com/api"}
    async with made(DeltacloudModule, LOGIN, **about) as module:
        fresh.drivers.clear()
        await module.list_machines()
    assert set(fresh.drivers) == {("rhevm", "https://rhevm.example.com/api")}


async def test_running_machine_is_stopped_to_be_destroyed(fresh, module):
    """Where the driver destroys stopped instances only, a running one is stopped first."""
    machine = await module.create_machine(MachineSpec(name="one", image=IMAGE, size="m1-small"), key="running")
    before = len(fresh.seen)
    await module.destroy_machine(machine.id)
    asked = [(r.method, r.parts[-1]) for r in fresh.seen[before:] if r.method != "GET"]
    assert asked == [("POST", "stop"), ("DELETE", machine.id)]


async def test_machine_is_made_with_its_volumes(module):
    """A machine created with a volume has it at the device named once it is there."""
    volume = await module.create_volume(VolumeSpec(name="data", size_mib=1500), key="data")
    assert volume.size_mib == 2048
    attachment = (Attachment(volume=volume.id, device="dev/sdc"),)
    spec = MachineSpec(name="one", image=IMAGE, size="m1-small", volumes=attachment)
    machine = await module.create_machine(spec, key="with-volume")
    assert machine.volumes == (volume.id,)
    assert (await module.describe_volume(volume.id)).device == "dev/sdc"
    await module.destroy_machine(machine.id)
    await module.destroy_volume(volume.id)


async def test_wrong_rule_leaves_no_group(fresh, module):
    """A group with a rule for no network is refused before anything is made."""
    with pytest.raises(InvalidRequest):
        await module.create_security_group("bad", [Rule(port=80), Rule(port=81, cidr="everybody")], key="bad")
    assert not fresh.firewalls
