"""The Flexiscale module: the conformance suite on a stub of its user API, and what is this protocol's own."""

from __future__ import annotations

import pytest

from tests.labs.flexiscale_server import (
    DISK_OFFER,
    IMAGE,
    LARGE,
    NETWORK,
    PASSWORD,
    SMALL,
    USERNAME,
    VDC,
    FlexiscaleServer,
)
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, ResourceFailed
from vendor_modules.protocols.flexiscale import FlexiscaleModule, FlexiscaleSettings, fingerprint
from vendor_modules.resources import Attachment, MachineSpec, Status, VolumeSpec
from vendor_modules.services.credentials import PasswordCredentials

LOGIN = PasswordCredentials(username=USERNAME, password=PASSWORD)
ABOUT = {"vdc": VDC, "network": NETWORK, "disk_offer": DISK_OFFER}
PRICES = {SMALL: "0.02", LARGE: "0.08"}


@pytest.fixture(scope="module")
def cloud():
    with FlexiscaleServer(page=5) as server:
        yield server


@pytest.fixture(scope="module")
def subject(cloud):
    settings = FlexiscaleSettings(url=cloud.url, prices=PRICES, block_gib_month="0.1", **ABOUT)
    return conformance.Subject(
        FlexiscaleModule,
        settings,
        LOGIN,
        image=IMAGE,
        machines_run=False,
        volume_mib=1024,
        page_size=5,
        writes=lambda request: request.method != "GET" and not request.path.endswith("/list"),
    )


@pytest.mark.parametrize("check", conformance.checks_for(FlexiscaleModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    """The module does what the conformance suite asks."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason


# --- what is this protocol's own ---


@pytest.fixture
def fresh():
    with FlexiscaleServer() as server:
        yield server


@pytest.fixture
async def module(fresh):
    async with made(FlexiscaleModule, LOGIN, url=fresh.url, **ABOUT) as made_module:
        yield made_module


def spec(**changes):
    """An ordinary machine."""
    return MachineSpec(name="one", image=IMAGE, size=SMALL, **changes)


async def test_system_disk_is_no_volume(fresh, module):
    """The disk that a server starts from is no volume: it is not listed, and goes with the server."""
    machine = await module.create_machine(spec(), key="k")
    assert machine.volumes == ()
    assert await module.list_volumes() == []
    (system,) = fresh.held["disk"]
    with pytest.raises(NotFound):
        await module.describe_volume(system)
    await module.destroy_machine(machine.id)
    assert not fresh.held["disk"]


async def test_volumes_stay_when_their_server_goes(module):
    """A server's volumes are detached before it is destroyed, which would take them along."""
    volume = await module.create_volume(VolumeSpec(name="data", size_mib=1024), key="v")
    given = (Attachment(volume=volume.id, device="dev/vdb"),)
    machine = await module.create_machine(spec(volumes=given), key="k")
    assert (machine.status, machine.volumes) == (Status.ACTIVE, (volume.id,))
    await module.destroy_machine(machine.id)
    assert (await module.describe_volume(volume.id)).status is Status.ACTIVE


async def test_disks_are_attached_to_stopped_servers_only(module):
    """Attaching to a server that runs is refused with Conflict, before the provider is asked."""
    volume = await module.create_volume(VolumeSpec(name="data", size_mib=1024), key="v")
    machine = await module.create_machine(spec(), key="k")
    with pytest.raises(Conflict, match="stopped"):
        await module.attach_volume(volume.id, machine.id, "dev/vdb")


@pytest.mark.parametrize("device", ["dev/vda", "data", "dev/vd1"])
async def test_devices_are_positions(module, device):
    """A device that is no position among a server's disks, or is the first, is refused."""
    volume = await module.create_volume(VolumeSpec(name="data", size_mib=1024), key="v")
    machine = await module.create_machine(spec(), key="k")
    with pytest.raises(InvalidRequest, match="position"):
        await module.attach_volume(volume.id, machine.id, device)


async def test_failed_job_is_told(fresh, module):
    """A job that fails makes the call fail with the provider's code."""
    fresh.failing = True
    with pytest.raises(ResourceFailed, match="INSUFFICIENT_RESOURCES"):
        await module.create_volume(VolumeSpec(name="data", size_mib=1024), key="v")


def test_fingerprint_is_openssh_s():
    """The fingerprint of a public key is the one that ssh-keygen prints."""
    key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIObJb3pMgxz3pM7Cz5NVNvnrOnvIYqyGnlFqzvGgFVlB conformance"
    assert fingerprint(key) == "SHA256:DESXZ0JakfydJ3HbtrMuQwQD+P8JEW1IzDUTPMSWc0w"
