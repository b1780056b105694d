"""The OCCI module talks to an implementation of OCCI that is not ours: pyssf."""

from __future__ import annotations

import pytest

from tests.labs.pyssf_server import NotToBeHad, install, running
from tests.vendor_modules.protocols.helpers import made
from vendor_modules.errors import NotFound
from vendor_modules.protocols.occi import COMPUTE, OcciModule
from vendor_modules.resources import Attachment, MachineSpec, Size, Status, VolumeSpec
from vendor_modules.services.credentials import PasswordCredentials

pytestmark = pytest.mark.integration
LOGIN = PasswordCredentials(username="anybody", password="pyssf asks for none")
SIZES = (Size(name="small", cores=1, memory_mib=512, price_per_hour="0.01"),)


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    try:
        with running(install(tmp_path_factory.mktemp("pyssf"))) as service:
            yield service
    except NotToBeHad as error:
        pytest.skip(str(error))


@pytest.fixture(params=["text/plain", "text/occi"])
async def module(url, request):
    async with made(OcciModule, LOGIN, url=url, rendering=request.param, sizes=SIZES) as made_module:
        yield made_module


def named(module):
    """A name that the rendering can have."""
    return "Grüße, 世界" if module.settings.rendering == "text/plain" else 'Greetings, "world"; all of it'


async def test_query_interface_is_read(module):
    """The kinds, the templates and the locations that pyssf tells are read."""
    known = {category.type: category for category in await module.service.discover()}
    assert module.service.path(known[COMPUTE].location) == "/compute/"
    assert "occi.compute.state" in known[COMPUTE].attributes
    assert [image.id for image in await module.list_images()] == ["debian"]
    assert [size.name for size in (await module.catalogue()).sizes] == ["small"]


async def test_machine_lives(module):
    """A machine is made once for its key, found with its name, stopped, started and destroyed."""
    spec, key = MachineSpec(name=named(module), image="debian", size="small"), f"m-{module.settings.rendering}"
    machine = await module.create_machine(spec, key=key)
    assert (await module.create_machine(spec, key=key)).id == machine.id
    assert (machine.name, machine.key, machine.image, machine.size) == (spec.name, key, "debian", "small")
    assert machine in await module.list_machines()
    assert (await module.stop_machine(machine.id)).status is Status.STOPPED
    assert (await module.start_machine(machine.id)).status is Status.ACTIVE
    await module.destroy_machine(machine.id)
    with pytest.raises(NotFound):
        await module.describe_machine(machine.id)


async def test_volume_is_linked(module):
    """A volume of the size ordered is made, attached to a machine at its device, detached and destroyed."""
    rendering = module.settings.rendering
    volume = await module.create_volume(VolumeSpec(name=named(module), size_mib=1536), key=f"v-{rendering}")
    assert (volume.status, volume.size_mib) == (Status.ACTIVE, 1536)
    given = (Attachment(volume=volume.id, device="dev/vdb"),)
    spec = MachineSpec(name=named(module), image="debian", size="small", volumes=given)
    machine = await module.create_machine(spec, key=f"mv-{rendering}")
    attached = await module.describe_volume(volume.id)
    assert (attached.status, attached.machine, attached.device) == (Status.ATTACHED, machine.id, "dev/vdb")
    assert machine.volumes == (volume.id,)
    assert (await module.detach_volume(volume.id)).status is Status.ACTIVE
    await module.destroy_machine(machine.id)
    await module.destroy_volume(volume.id)
