"""The OCCI module: the conformance suite on a stub of the standard, in two renderings, and what is its own."""

from __future__ import annotations

from base64 import b64decode

import pytest

from tests.labs.occi_server import IMAGE, OS, PASSWORD, USER_DATA, USERNAME, OcciServer
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import conformance
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import Conflict, InvalidRequest, Unauthorized, Unsupported
from vendor_modules.protocols.occi import OcciModule, OcciSettings
from vendor_modules.resources import Attachment, MachineSpec, Size, UserData, VolumeSpec
from vendor_modules.services.credentials import PasswordCredentials

LOGIN = PasswordCredentials(username=USERNAME, password=PASSWORD)
SIZES = (
    Size(name="small", cores=1, memory_mib=512, price_per_hour="0.01"),
    Size(name="large", cores=4, memory_mib=8192, price_per_hour="0.1"),
)


@pytest.fixture(scope="module", params=["text/plain", "application/occi+json"])
def subject(request):
    with OcciServer() as server:
        settings = OcciSettings(
            url=f"{server.url}/occi", rendering=request.param, sizes=SIZES, block_gib_month="0.1", page=5
        )
        yield conformance.Subject(
            OcciModule, settings, LOGIN, image=IMAGE, machines_run=False, volume_mib=1024, page_size=5
        )


@pytest.mark.parametrize("check", conformance.checks_for(OcciModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    """The module does what the conformance suite asks, in each rendering."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason


# --- what is this standard's own ---


@pytest.fixture
def fresh():
    with OcciServer() as server:
        yield server


@pytest.fixture(params=["text/plain", "text/occi", "application/occi+json"])
async def module(fresh, request):
    about = {"url": f"{fresh.url}/occi", "rendering": request.param, "sizes": SIZES}
    async with made(OcciModule, LOGIN, **about) as made_module:
        yield made_module


def spec(**changes):
    """An ordinary machine."""
    return MachineSpec(name="one", image=IMAGE, size="small", **changes)


async def test_machine_with_all_there_is(fresh, module):
    """In every rendering, a machine is made with user data, a volume and a network, and shows them."""
    volume = await module.create_volume(VolumeSpec(name="data", size_mib=2048), key="v")
    network = await module.create_network("net", "10.9.0.0/24", key="n")
    given = {"volumes": (Attachment(volume=volume.id, device="dev/vdc"),), "networks": (network.id,)}
    machine = await module.create_machine(spec(user_data=UserData(files={"a": b"b"}), **given), key="m")
    assert (machine.volumes, machine.host) == ((volume.id,), "192.0.2.17")
    assert (await module.describe_volume(volume.id)).device == "dev/vdc"
    there = next(entity for entity in fresh.entities.values() if entity.id == machine.id)
    assert b64decode(there.attributes["occi.compute.userdata"]).startswith(b"#!/bin/sh\n")
    with pytest.raises(Conflict):
        await module.destroy_network(network.id)
    await module.destroy_machine(machine.id)
    await module.destroy_network(network.id)
    await module.destroy_volume(volume.id)
    assert not fresh.entities


async def test_service_tells_what_it_knows(module):
    """The query interface tells kinds with their locations, and templates with what they depend on."""
    known = {category.type: category for category in await module.service.discover()}
    assert module.service.path(known["http://schemas.ogf.org/occi/infrastructure#compute"].location) == "/compute/"
    assert known[f"{OS}{IMAGE}"].related == ("http://schemas.ogf.org/occi/infrastructure#os_tpl",)


async def test_templates_tell_sizes_in_json(fresh):
    """In JSON, sizes come from the templates' default values, in GB; in text, which has none, there is no size."""
    for rendering, sizes in (("application/occi+json", {"small": (1, 512), "large": (4, 8192)}), ("text/plain", {})):
        async with made(OcciModule, LOGIN, url=f"{fresh.url}/occi", rendering=rendering) as module:
            told = (await module.catalogue()).sizes
            assert {size.name: (size.cores, size.memory_mib) for size in told} == sizes
            assert all(size.price_per_hour is None for size in told)


async def test_key_is_in_the_title_where_summaries_are_lost():
    """With a service that keeps no summaries, a machine is found again by its title."""
    with OcciServer(summaries=False) as server:
        about = {"url": f"{server.url}/occi", "sizes": SIZES, "summaries": False}
        async with made(OcciModule, LOGIN, **about) as module:
            first = await module.create_machine(spec(), key="k")
            again = await module.create_machine(spec(), key="k")
    assert (first.id, first.key) == (again.id, "k")


async def test_links_that_are_their_own_targets_are_read():
    """Where a service names a link itself as its target, as ooi does, the machine's volume is found all the same."""
    with OcciServer(own_links=True) as server:
        async with made(OcciModule, LOGIN, url=f"{server.url}/occi", sizes=SIZES) as module:
            volume = await module.create_volume(VolumeSpec(name="data", size_mib=1024), key="v")
            given = (Attachment(volume=volume.id, device="dev/vdb"),)
            assert (await module.create_machine(spec(volumes=given), key="m")).volumes == (volume.id,)


async def test_header_rendering_takes_ascii_only(fresh):
    """A name with other letters cannot go into HTTP headers: it is refused, and nothing is made."""
    async with made(OcciModule, LOGIN, url=f"{fresh.url}/occi", rendering="text/occi", sizes=SIZES) as module:
        with pytest.raises(InvalidRequest, match="letters"):
            await module.create_network("Grüße", "10.9.0.0/24", key="n")
    assert not fresh.entities


async def test_user_data_needs_its_mixin(fresh, module):
    """A service without the mixin for it is given no user data: the machine is refused as Unsupported."""
    del fresh.mixins[USER_DATA]
    with pytest.raises(Unsupported, match="user data"):
        await module.create_machine(spec(user_data=UserData()), key="k")
    assert not fresh.entities


async def test_token_is_sent_in_its_header(fresh):
    """With a token header, the password goes there; a wrong one is Unauthorized."""
    about = {"url": f"{fresh.url}/occi", "token_header": "X-Auth-Token"}
    async with made(OcciModule, LOGIN, **about) as module:
        assert await module.list_machines() == []
    assert "authorization" not in fresh.seen[-1].headers
    wrong = PasswordCredentials(username=USERNAME, password="wrong")
    async with made(OcciModule, wrong, **about) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()
