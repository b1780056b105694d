"""What the conformance suite cannot know of OpenStack, at the lab's clouds."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
import pytest_asyncio
from pydantic import AnyHttpUrl, SecretStr

from tests.labs.testbed import services
from tests.vendor_modules.openstack.subjects import FLAVOUR, GUEST, credentials_of, module_of, settings_of
from vendor_modules.capabilities import inventory
from vendor_modules.conformance.bench import digest, stream
from vendor_modules.conformance.subject import MARKER
from vendor_modules.errors import NotFound, Unauthorized, Unavailable, Unsupported
from vendor_modules.openstack.client import COMPUTE, IMAGE, Client
from vendor_modules.openstack.images import image_of
from vendor_modules.openstack.module import OpenStackModule
from vendor_modules.openstack.reports import PRICE
from vendor_modules.resources import Attachment, DiskFormat, ImageSpec, MachineSpec, Status, VolumeSpec
from vendor_modules.services.credentials import AccessKeyCredentials

pytestmark = pytest.mark.integration


@pytest.fixture
def account(openstack_clouds):
    """An ordinary account at the second cloud, and not the one that the conformance suite works with."""
    return openstack_clouds.account("cloud-b-beta")


@pytest.fixture
def administrator(openstack_clouds):
    """The second cloud's administrator."""
    return openstack_clouds.account("cloud-b-admin")


@pytest_asyncio.fixture
async def module(account):
    """A module for the ordinary account; what a test leaves is removed."""
    async with module_of(account) as module:
        before = {(kind, resource.id) for kind, resource in await inventory(module)}
        yield module
        for kind, resource in await inventory(module):
            if (kind, resource.id) not in before:
                await getattr(module, f"destroy_{kind.replace('-', '_')}")(resource.id)


async def the_guest(module: OpenStackModule) -> str:
    """The id of the image that the lab's guests start from."""
    return next(image.id for image in await module.list_images() if image.name == "guest")


async def eventually(ask: Callable[[], Awaitable[Any]]) -> Any:
    """What ``ask`` gives as soon as that is something."""
    for _ in range(240):
        if found := await ask():
            return found
        await asyncio.sleep(0.5)
    raise AssertionError("waited two minutes in vain")


async def test_a_guest_does_what_user_data_say_and_finds_its_volume(module):
    """A real guest runs its service at its first boot, has its key pair, and finds its volume under the name that the
    order gave it."""
    volume = await module.create_volume(VolumeSpec(name="data", size_mib=1), key="test-volume")
    files = {**GUEST.files, "program.sh": f"ls -l /srv/machine/dev; echo {MARKER}; sleep 1000\n".encode()}
    spec = MachineSpec(
        name="guest",
        image=await the_guest(module),
        size=FLAVOUR,
        user_data=GUEST.model_copy(update={"files": files}),
        volumes=(Attachment(volume=volume.id, device="dev/vdb"),),
    )
    machine = await module.create_machine(spec, key="test-machine")

    async def said() -> str | None:
        output = await module.console(machine.id)
        return output if MARKER in output else None

    output = await eventually(said)
    assert f"vdb -> /dev/disk/by-id/virtio-{volume.id[:20]}" in output
    assert f"vdb:{1 << 30}" in output
    assert machine.id in output


async def test_an_image_that_somebody_else_makes_of_a_machine_is_not_taken_for_ours(module, account):
    """An image of a machine inherits the properties of the image that this was made from: neither its key nor its
    digest is told of it."""
    chunks = [chunk async for chunk in module.download_image(await the_guest(module))]
    content = b"".join(chunks)
    spec = ImageSpec(name="Grüße 🚀", format=DiskFormat.QCOW2, size=len(content), digest=digest(content))
    uploaded = await module.upload_image(spec, stream(content), key="test-image")
    assert (uploaded.digest, uploaded.key) == (spec.digest, "test-image")
    machine = await module.create_machine(MachineSpec(name="m", image=uploaded.id, size=FLAVOUR), key="test-machine")

    def snapshot(client: Client) -> str:
        order = {"createImage": {"name": "of somebody else"}}
        return str(client.ask(COMPUTE, "POST", f"/servers/{machine.id}/action", order)["image_id"])

    image_id = await module._run(snapshot)

    async def made() -> Any:
        image = await module.describe_image(image_id)
        return image if image.status is Status.ACTIVE else None

    image = await eventually(made)
    assert (image.key, image.digest) == ("", None)
    assert [image.id for image in await module.list_images() if image.key == "test-image"] == [uploaded.id]
    await module.stop_machine(machine.id)
    bundle = await module.bundle_machine(machine.id, "plain", key="test-bundle")
    assert (bundle.key, bundle.name, bundle.digest) == ("test-bundle", "plain", None)


async def test_a_machine_whose_disk_is_a_volume_says_so_when_it_is_bundled(module):
    """Nova would make an empty image of it."""
    image = await the_guest(module)
    volume = await module.create_volume(VolumeSpec(name="root", size_mib=1024, image=image), key="test-volume")
    disk = {"uuid": volume.id, "source_type": "volume", "destination_type": "volume", "boot_index": 0}

    def boot(client: Client) -> str:
        (network,) = module._default_network(client)
        order = {"name": "from a volume", "flavorRef": "1", "networks": [{"uuid": network}]}
        made = client.ask(COMPUTE, "POST", "/servers", {"server": order | {"block_device_mapping_v2": [disk]}})
        return str(made["server"]["id"])

    machine_id = await module._run(boot)
    machine = await module.wait_for_machine(machine_id, Status.ACTIVE)
    assert (machine.image, machine.volumes) == (None, (volume.id,))
    await module.stop_machine(machine_id)
    with pytest.raises(Unsupported, match="a volume"):
        await module.bundle_machine(machine_id, "bundle", key="test-bundle")


async def test_an_image_of_a_format_that_we_do_not_know(module):
    """It is not listed, and describing it says what is wrong."""
    order = {"name": "installer", "disk_format": "iso", "container_format": "bare"}
    made = await module._run(lambda client: client.ask(IMAGE, "POST", "/images", order))
    try:
        assert made["id"] not in {image.id for image in await module.list_images()}
        with pytest.raises(Unsupported, match="iso"):
            await module.describe_image(made["id"])
    finally:
        await module._destroy_image(made["id"])


async def test_an_application_credential_logs_in(module, account):
    """An application credential, given as an access key, opens its project without naming one."""

    def made(client: Client) -> dict[str, Any]:
        user = client._session.get_user_id()
        order = {"application_credential": {"name": "for the agency", "roles": [{"name": "member"}]}}
        url = f"{account.auth_url}/users/{user}/application_credentials"
        return dict(client._session.post(url, json=order).json()["application_credential"])

    credential = await module._run(made)
    login = AccessKeyCredentials(access_key=credential["id"], secret_key=SecretStr(credential["secret"]))
    settings = settings_of(account).model_copy(update={"project": None})
    try:
        async with OpenStackModule("cloud", settings, services(login)) as other:
            assert {network.name for network in await other.list_networks()} == {"beta-net"}
    finally:
        await module._run(
            lambda client: client._session.delete(
                f"{account.auth_url}/users/{client._session.get_user_id()}/application_credentials/{credential['id']}"
            )
        )


async def test_a_flavour_may_tell_its_price(administrator, account):
    """A price that the settings do not give is read from the flavour; one that nobody gives is unknown."""

    def priced(client: Client) -> None:
        client.ask(COMPUTE, "POST", "/flavors/2/os-extra_specs", {"extra_specs": {PRICE: "0.025"}})

    async with module_of(administrator) as admin:
        await admin._run(priced)
    async with module_of(account) as module:
        prices = {size.name: str(size.price_per_hour) for size in (await module.catalogue()).sizes}
    assert (prices[FLAVOUR], prices["m1.tiny"], prices["m1.small"]) == ("0.01", "0.025", "None")


async def test_settings_that_name_what_is_not_there(account):
    """A region, a network or a project that the cloud does not have is told by its name."""
    async with module_of(account, region="Atlantis") as module:
        with pytest.raises(Unsupported, match="Atlantis"):
            await module.list_machines()
    async with module_of(account, project="nobodys") as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()
    async with module_of(account, external_network="nowhere") as module:
        with pytest.raises(NotFound, match="nowhere"):
            await module.create_address("address", key="test-address")
    async with module_of(account, network="nowhere") as module:
        image = await the_guest(module)
        with pytest.raises(NotFound, match="nowhere"):
            await module.create_machine(MachineSpec(name="m", image=image, size=FLAVOUR), key="test-machine")


async def test_a_cloud_that_is_not_there_is_unavailable(account):
    """Nobody at the identity service's address is an error that a retry may mend; the password is not in it."""
    settings = settings_of(account).model_copy(update={"auth_url": AnyHttpUrl("http://127.0.0.1:9/v3")})
    async with OpenStackModule("cloud", settings, services(credentials_of(account))) as module:
        with pytest.raises(Unavailable) as caught:
            await module.list_machines()
    assert account.password not in str(caught.value)


def test_an_image_in_the_making_has_no_format_yet():
    """An image that the cloud has only begun to make is listed as pending."""
    found = {"id": "i", "name": None, "status": "queued", "disk_format": None, "size": None, "owner": "us"}
    assert image_of(found, "us").status is Status.PENDING
