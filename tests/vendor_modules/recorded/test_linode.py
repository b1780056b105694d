"""Linode, as libcloud recorded it, through our module."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.labs.libcloud_fixtures import PASSWORD, Recording, examined, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, Throttled, Unauthorized, Unavailable
from vendor_modules.labels import name_for
from vendor_modules.linode import LinodeModule
from vendor_modules.resources import (
    Attachment,
    DiskFormat,
    Image,
    KeyPair,
    Machine,
    MachineSpec,
    Size,
    Status,
    UserData,
    Volume,
    VolumeSpec,
)

SETTINGS: dict[str, Any] = {"region": "eu-west", "jurisdiction": "GB", "block_gib_month": "0.10"}
IMAGE = "linode/debian10"
SPEC = MachineSpec(name="Web ☎", image=IMAGE, size="g6-nanode-1")
TEST_2 = Machine(
    id="22344420",
    name="test_2",
    status=Status.ACTIVE,
    size="g6-nanode-1",
    image="linode/centos7",
    host="192.168.1.230",
    port=8080,
)


class Account(Routes):
    """The recorded account, which remembers: what is created is what was recorded, with what was asked for."""

    def __init__(self) -> None:
        super().__init__("linode_v4")
        self.nodes = self.recorded("list_nodes.json")["data"]
        self.volumes = self.recorded("list_volumes.json")["data"]
        self.keys = self.recorded("list_key_pairs.json")["data"]
        self.images = self.recorded("list_images.json")["data"]
        self.images.append(self.recorded("create_image.json"))
        for path, held in (
            ("linode/instances", self.nodes),
            ("volumes", self.volumes),
            ("profile/sshkeys", self.keys),
            ("images", self.images),
            ("linode/types", self.recorded("list_types.json")["data"]),
        ):
            self.on("GET", f"/v4/{path}", lambda _, held=held: (200, {"data": held, "page": 1, "pages": 1}))
            self.on("GET", f"/v4/{path}/([^/]+)", lambda id_, _, held=held: (200, self._one(held, id_)))
            self.on("DELETE", f"/v4/{path}/(.+)", lambda id_, _, held=held: self._deleted(held, id_))
        self.on("POST", "/v4/linode/instances", self._node)
        self.on("POST", "/v4/linode/instances/([0-9]+)/(boot|shutdown)", self._power)
        self.on("POST", "/v4/volumes", self._volume)
        self.on("POST", "/v4/volumes/([0-9]+)/(attach|detach)", self._attachment)
        self.on("POST", "/v4/profile/sshkeys", self._key)

    def refuse(self, headers: Any) -> tuple[int, Any] | None:
        right = headers["Authorization"] == f"Bearer {PASSWORD}"
        return None if right else (401, {"errors": [{"reason": "Invalid Token"}]})

    @staticmethod
    def _one(held: list[Any], id_: str) -> Any:
        for one in held:
            if str(one["id"]) == id_:
                return one
        raise Refused(404, {"errors": [{"reason": "Not found"}]})

    def _deleted(self, held: list[Any], id_: str) -> tuple[int, Any]:
        held.remove(self._one(held, id_))
        for volume in self.volumes:
            if str(volume["linode_id"]) == id_:
                volume |= {"linode_id": None, "linode_label": None}
        return 200, {}

    def _node(self, asked: Any) -> tuple[int, Any]:
        made = self.recorded("create_node.json") | {key: asked[key] for key in ("label", "region", "type", "image")}
        self._one(self.images, asked["image"])
        made |= {"id": next(self.numbers), "tags": []}
        self.nodes.append(made | {"status": "running"})
        return 200, made

    def _power(self, node: str, action: str, _: Any) -> tuple[int, Any]:
        self._one(self.nodes, node)["status"] = "running" if action == "boot" else "offline"
        return 200, {}

    def _volume(self, asked: Any) -> tuple[int, Any]:
        made = self.recorded("create_volume_unattached.json") | asked | {"id": next(self.numbers)}
        self.volumes.append(made | {"status": "active"})
        return 200, made

    def _attachment(self, volume: str, action: str, asked: Any) -> tuple[int, Any]:
        found = self._one(self.volumes, volume)
        found["linode_id"] = asked["linode_id"] if action == "attach" else None
        return 200, found

    def _key(self, asked: Any) -> tuple[int, Any]:
        if "nonsense" in asked["ssh_key"]:
            raise Refused(400, {"errors": [{"reason": "SSH Key must be valid", "field": "ssh_key"}]})
        made = self.recorded("create_key_pair.json") | asked | {"id": next(self.numbers)}
        self.keys.append(made)
        return 200, made


@pytest.fixture
def account() -> Account:
    """What the service remembers."""
    return Account()


@pytest.fixture
def service(account: Account) -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_linode_v4", "LinodeMockHttpV4", _get_request=account) as recording:
        yield recording


def _sent(recording: Recording, method: str, path: str) -> list[Any]:
    return [json.loads(request.body) if request.body else None for request in recording.sent(method, path)]


async def test_sizes_with_live_prices(service: Recording) -> None:
    """The catalogue has all the types that are sold, with cores, memory and the price that the service tells."""
    async with examined(LinodeModule, SETTINGS) as module:
        catalogue = await module.catalogue()
    sizes = {size.name: size for size in catalogue.sizes}
    assert len(sizes) == 28
    assert sizes["g6-nanode-1"] == Size(name="g6-nanode-1", cores=1, memory_mib=1024, price_per_hour=Decimal("0.0075"))
    assert sizes["g6-standard-8"] == Size(
        name="g6-standard-8", cores=8, memory_mib=32768, price_per_hour=Decimal("0.24")
    )
    assert catalogue.priced is None


async def test_the_recorded_machines(service: Recording) -> None:
    """The recorded machines are told with state, size, image and private address."""
    async with examined(LinodeModule, SETTINGS) as module:
        first, second = await module.list_machines()
        assert first == TEST_2 == await module.describe_machine("22344420")
    assert second.id == "22344421"


@pytest.mark.parametrize(
    ("told", "status"),
    [
        ("provisioning", Status.PENDING),
        ("booting", Status.PENDING),
        ("shutting_down", Status.PENDING),
        ("offline", Status.STOPPED),
        ("stopped", Status.STOPPED),
    ],
)
async def test_states(account: Account, service: Recording, told: str, status: Status) -> None:
    """A machine on its way from one state to another is PENDING; one that is off is STOPPED."""
    account.nodes[0]["status"] = told
    async with examined(LinodeModule, SETTINGS) as module:
        assert (await module.describe_machine("22344420")).status is status


async def test_creating_a_machine(service: Recording) -> None:
    """What is asked for is sent, the key in the name; a second call with the key creates nothing."""
    spec = SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"}), "key_pair": "42"})
    async with examined(LinodeModule, SETTINGS) as module:
        made = await module.create_machine(spec, key="key-1")
        assert await module.create_machine(spec, key="key-1") == made
    assert (made.key, made.status, made.host, made.image) == ("key-1", Status.ACTIVE, "192.168.206.100", IMAGE)
    (sent,) = _sent(service, "POST", "/v4/linode/instances")
    assert len(sent.pop("root_pass")) > 32
    assert base64.b64decode(sent.pop("metadata")["user_data"]).startswith(b"#!/bin/sh\n")
    assert sent == {
        "region": "eu-west",
        "type": "g6-nanode-1",
        "private_ip": False,
        "backups_enabled": False,
        "image": IMAGE,
        "label": name_for("key-1", "Web ☎", longest=32),
        "authorized_keys": ["ssh-rsa AAAA_valid_public_ssh_key_123456785== user@their-computer"],
    }


async def test_root_passwords_are_never_the_same(service: Recording) -> None:
    """Each machine has a root password of its own."""
    async with examined(LinodeModule, SETTINGS) as module:
        for key in ("key-1", "key-2"):
            await module.create_machine(SPEC, key=key)
    first, second = _sent(service, "POST", "/v4/linode/instances")
    assert first["root_pass"] != second["root_pass"]


async def test_destroying_and_power(service: Recording) -> None:
    """A machine is shut down, booted and removed, each once however often it is asked for."""
    async with examined(LinodeModule, SETTINGS) as module:
        for _ in range(2):
            assert (await module.stop_machine("22344420")).status is Status.STOPPED
        for _ in range(2):
            assert (await module.start_machine("22344420")).status is Status.ACTIVE
        for _ in range(2):
            await module.destroy_machine("22344420")
        with pytest.raises(NotFound):
            await module.describe_machine("22344420")
    path = "/v4/linode/instances/22344420"
    asked = [(request.method, request.path) for request in service.requests if request.method != "GET"]
    assert asked == [("POST", f"{path}/shutdown"), ("POST", f"{path}/boot"), ("DELETE", path)]


async def test_images(service: Recording) -> None:
    """The recorded images are told, the account's own apart from the public ones; one's own can be removed."""
    async with examined(LinodeModule, SETTINGS) as module:
        images = {image.id: image for image in await module.list_images()}
        assert len(images) == 35
        assert images[IMAGE] == await module.describe_image(IMAGE)
        await module.destroy_image("private/12345")
        with pytest.raises(NotFound):
            await module.describe_image("private/12345")
    raw = {"status": Status.ACTIVE, "format": DiskFormat.RAW}
    assert images[IMAGE] == Image(id=IMAGE, name="Debian 10", public=True, **raw)
    assert images["private/12345"] == Image(id="private/12345", name="Test", public=False, **raw)


async def test_key_pairs(service: Recording) -> None:
    """The recorded key is told; a new one is sent once, found by its key and removed by its number."""
    async with examined(LinodeModule, SETTINGS) as module:
        (known,) = await module.list_key_pairs()
        made = await module.create_key_pair("mine", "ssh-ed25519 AAAA me", key="key-2")
        assert await module.create_key_pair("mine", "ssh-ed25519 AAAA me", key="key-2") == made
        await module.destroy_key_pair("42")
        with pytest.raises(NotFound):
            await module.describe_key_pair("42")
    assert known == KeyPair(
        id="42",
        name="My SSH Key",
        status=Status.ACTIVE,
        public_key="ssh-rsa AAAA_valid_public_ssh_key_123456785== user@their-computer",
        fingerprint="",
    )
    sent = {"label": name_for("key-2", "mine", longest=32), "ssh_key": "ssh-ed25519 AAAA me"}
    assert _sent(service, "POST", "/v4/profile/sshkeys") == [sent]
    assert len(service.sent("DELETE", "/v4/profile/sshkeys/42")) == 1


async def test_volumes(service: Recording) -> None:
    """The recorded volumes are told; a new one is sent once in whole GiB; one in use stays."""
    async with examined(LinodeModule, SETTINGS) as module:
        first, second = await module.list_volumes()
        assert second == await module.describe_volume("123456")
        spec = VolumeSpec(name="data", size_mib=1025)
        made = await module.create_volume(spec, key="key-3")
        assert await module.create_volume(spec, key="key-3") == made
        assert (made.key, made.size_mib) == ("key-3", 2048)
        with pytest.raises(Conflict):
            await module.destroy_volume("12345")
        await module.destroy_volume("123456")
    sizes = {"name": "Testvolume1", "size_mib": 100 * 1024}
    assert first == Volume(id="12345", status=Status.ATTACHED, machine="456353688", **sizes)
    assert second.status is Status.ACTIVE
    label = name_for("key-3", "data", longest=32)
    assert _sent(service, "POST", "/v4/volumes") == [{"label": label, "size": 2, "region": "eu-west"}]
    assert [request.path for request in service.sent("DELETE")] == ["/v4/volumes/123456"]


async def test_attaching_and_detaching(service: Recording) -> None:
    """A volume is attached and detached once, however often it is asked for, and its machine tells that it has it."""
    async with examined(LinodeModule, SETTINGS) as module:
        for _ in range(2):
            attached = await module.attach_volume("123456", "22344420", "dev/vdb")
            assert (attached.status, attached.machine) == (Status.ATTACHED, "22344420")
        assert (await module.describe_machine("22344420")).volumes == ("123456",)
        for _ in range(2):
            assert (await module.detach_volume("123456")).status is Status.ACTIVE
        wanted = (Attachment(volume="123456", device="dev/vdb"),)
        made = await module.create_machine(SPEC.model_copy(update={"volumes": wanted}), key="key-1")
        assert made.volumes == ("123456",)
    asked = _sent(service, "POST", "/v4/volumes/123456/attach")
    assert asked == [{"linode_id": int(id_), "persist_across_boots": True} for id_ in ("22344420", made.id)]
    assert len(service.sent("POST", "/v4/volumes/123456/detach")) == 1


async def test_all_pages_are_read() -> None:
    """Images on a second page are listed too."""
    with replay("test_linode_v4", "LinodeMockHttpV4", type="PAGINATED") as service:
        async with examined(LinodeModule, SETTINGS) as module:
            assert len(await module.list_images()) == 34
    assert [request.query.get("page") for request in service.requests] == [None, "2"]


async def test_a_recorded_refusal() -> None:
    """The recorded answer to a wrong token is Unauthorized, in the service's words."""
    with replay("test_linode_v4", "LinodeMockHttpV4", type="UNAUTHORIZED"):
        async with examined(LinodeModule, SETTINGS) as module:
            with pytest.raises(Unauthorized, match="Invalid Token"):
                await module.list_machines()


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (404, NotFound),
        (429, Throttled),
        (500, Unavailable),
        (403, Unauthorized),
    ],
)
async def test_statuses(account: Account, service: Recording, status: int, error: type[Exception]) -> None:
    """The service's other answers are told in our words: libcloud keeps the status in the error's text alone."""
    account.refuse = lambda headers: (status, {"errors": [{"reason": "no", "field": "label"}]})  # type: ignore[method-assign]
    async with examined(LinodeModule, SETTINGS) as module:
        with pytest.raises(error, match="no-label"):
            await module.list_machines()


# --- the conformance suite, as far as it goes with a recording ---

CHECKS = checks_for(LinodeModule, ["-name", "namesake", "volume-says-where-it-is-attached", "machine-that-exists"])


@pytest.fixture
def whole(service: Recording) -> conformance.Subject:
    """The module as the suite examines it."""
    return replace(subject(LinodeModule, SETTINGS), image=IMAGE, unknown_id="4711", volume_mib=1024)


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, whole: conformance.Subject) -> None:
    """The module does what the conformance suite asks; names, and devices of volumes, are among its known limits."""
    result = await conformance.run_check(check, whole)
    assert result.outcome != "failed", result.reason
