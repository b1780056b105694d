"""The GoGrid module: the conformance suite on a stub of its API 1.8, and what is this protocol's own."""

from __future__ import annotations

import asyncio
from hashlib import md5

import httpx
import pytest

from tests.labs.gogrid_server import API_KEY, IMAGE, OWN_IMAGE, SECRET, GogridServer
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import Conflict, Forbidden, NotFound, QuotaExceeded, Unauthorized
from vendor_modules.protocols.gogrid import GogridModule, GogridSettings, _machine, sign
from vendor_modules.resources import MachineSpec, Status
from vendor_modules.services.credentials import AccessKeyCredentials

LOGIN = AccessKeyCredentials(access_key=API_KEY, secret_key=SECRET)
PRICES = {"512MB": "0.095", "1GB": "0.19", "2GB": "0.38", "4GB": "0.76", "8GB": "1.52"}


@pytest.fixture(scope="module")
def cloud():
    with GogridServer(addresses=200) as server:
        yield server


@pytest.fixture(scope="module")
def subject(cloud):
    settings = GogridSettings(url=f"{cloud.url}/api", prices=PRICES)
    return conformance.Subject(
        GogridModule, settings, LOGIN, image=IMAGE, machines_run=False, unknown_id="4711", page_size=5
    )


@pytest.mark.parametrize("check", conformance.checks_for(GogridModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    """The module does what the conformance suite asks."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason


# --- what is this protocol's own ---


def test_signature_is_md5_of_key_secret_and_whole_seconds():
    """The signature is as the reference describes it: MD5 of API key, shared secret and the time in whole seconds."""
    assert sign("key", "secret", 1289119839.685) == md5(b"keysecret1289119839").hexdigest()  # noqa: S324 - the API's


def test_recorded_server_is_read():
    """A server as GoGrid answered it, somebody else's, is a machine with its image, RAM and address."""
    recorded = {
        "id": 90967,
        "image": {"friendlyName": "CentOS 5.3 (32-bit) w/ None", "id": 1531},
        "ip": {"id": 1659927, "ip": "192.168.0.202", "public": True, "state": {"id": 2, "name": "Assigned"}},
        "isSandbox": False,
        "name": "test1",
        "object": "server",
        "ram": {"description": "Server with 512MB RAM", "id": 1, "name": "512MB", "object": "option"},
        "state": {"description": "Server is in active state.", "id": 1, "name": "On", "object": "option"},
    }
    machine = _machine(recorded)
    got = (machine.id, machine.name, machine.key, machine.size, machine.image, machine.host, machine.status)
    assert got == ("90967", "test1", "", "512MB", "1531", "192.168.0.202", Status.ACTIVE)


@pytest.fixture
def fresh():
    with GogridServer(addresses=4) as server:
        yield server


@pytest.fixture
async def module(fresh):
    async with made(GogridModule, LOGIN, url=f"{fresh.url}/api") as made_module:
        yield made_module


def spec(name="one"):
    """An ordinary machine."""
    return MachineSpec(name=name, image=IMAGE, size="512MB")


async def test_names_are_short_enough(fresh, module):
    """A server's name at GoGrid has no more than 20 characters, and the machine is called as ordered all the same."""
    machine = await module.create_machine(spec("a name of more than twenty characters"), key="k")
    assert len(fresh.servers[int(machine.id)].name) <= 20
    assert machine.name == "a name of more than twenty characters"


async def test_machines_made_at_once_have_different_addresses(fresh, module):
    """Orders at the same time do not take the same free address."""
    machines = await asyncio.gather(*(module.create_machine(spec(), key=f"k{n}") for n in range(4)))
    assert len({machine.host for machine in machines}) == 4


async def test_no_address_left_is_a_quota(fresh, module):
    """Without a free public address in the data centre a machine is refused with QuotaExceeded, and none is made."""
    fresh.addresses.clear()
    with pytest.raises(QuotaExceeded):
        await module.create_machine(spec(), key="k")
    assert not fresh.servers


async def test_sandboxes_are_no_machines(fresh, module):
    """A sandbox server, which is there to make an image of, is not listed among the machines."""
    machine = await module.create_machine(spec(), key="k")
    fresh.servers[int(machine.id)].sandbox = True
    assert await module.list_machines() == []


async def test_own_images_can_be_removed_and_public_ones_not(fresh, module):
    """An image of the account's own is removed; GoGrid's own is refused with Forbidden and stays."""
    await module.destroy_image(OWN_IMAGE)
    with pytest.raises(Forbidden):
        await module.destroy_image(IMAGE)
    assert list(fresh.images) == [IMAGE]


@pytest.mark.parametrize(
    ("status", "message", "error"),
    [
        (403, "Authentication failed", Unauthorized),
        (401, "insufficient rights", Forbidden),
        (400, "No object found that matches your input criteria.", NotFound),
        (400, "Update already pending", Conflict),
    ],
)
async def test_statuses_are_gogrids_own(module, status, message, error):
    """What GoGrid's statuses and words mean, other than HTTP's, is told rightly."""
    answer = {"list": [{"errorcode": "Exception", "message": message, "object": "error"}], "status": "failure"}
    assert isinstance(await module._error_of(httpx.Response(status, json=answer)), error)
