"""DigitalOcean, as libcloud recorded it, through our module."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.labs.libcloud_fixtures import PASSWORD, Recording, examined, recorded, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.digitalocean import DigitalOceanModule
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, TimedOut, Unauthorized, Unsupported
from vendor_modules.labels import name_for
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

SETTINGS: dict[str, Any] = {"region": "nyc1", "jurisdiction": "US", "block_gib_month": "0.10"}
SPEC = MachineSpec(name="Web ☎", image="119192817", size="1gb")
VOLUME = "62766883-2c28-11e6-b8e6-000f53306ae1"


class Account(Routes):
    """The recorded account, which remembers: what is created is what was recorded, with the name that was asked for."""

    def __init__(self) -> None:
        super().__init__("digitalocean_v2")
        self.droplets = self.recorded("list_nodes.json")["droplets"]
        self.volumes = self.recorded("list_volumes.json")["volumes"]
        self.snapshots = self.recorded("list_volume_snapshots.json")["snapshots"]
        self.keys = self.recorded("list_key_pairs.json")["ssh_keys"]
        self.images = self.recorded("list_images.json")["images"]
        self.listening = True
        """Whether droplets end when they are asked to."""
        for name, held in (
            ("droplets", self.droplets),
            ("volumes", self.volumes),
            ("snapshots", self.snapshots),
            ("images", self.images),
        ):
            self.on("GET", f"/v2/{name}", lambda _, name=name, held=held: (200, {name: held, "links": {}}))
            self.on("DELETE", f"/?v2/{name}/([^/]+)", lambda id_, _, held=held: self._deleted(held, id_))
        self.on("GET", "/v2/sizes", lambda _: (200, self.recorded("list_sizes.json")))
        self.on("GET", "/v2/account/keys", lambda _: (200, {"ssh_keys": self.keys}))
        self.on("DELETE", "/v2/account/keys/([^/]+)", lambda id_, _: self._deleted(self.keys, id_))
        self.on("POST", "/v2/droplets", self._droplet)
        self.on("POST", "/v2/droplets/([0-9]+)/actions", self._action)
        self.on("POST", "/v2/volumes", self._volume)
        self.on("POST", "/v2/volumes/actions", self._attachment)
        self.on("POST", "/v2/volumes/([^/]+)/snapshots", self._snapshot)
        self.on("POST", "/v2/account/keys", self._key)

    def refuse(self, headers: Any) -> tuple[int, Any] | None:
        right = headers["Authorization"] == f"Bearer {PASSWORD}"
        return None if right else (401, self.recorded("error.json"))

    def _deleted(self, held: list[Any], id_: str) -> tuple[int, Any]:
        held[:] = [one for one in held if str(one["id"]) != id_]
        for volume in self.volumes:
            volume["droplet_ids"] = [one for one in volume["droplet_ids"] if str(one) != id_]
        return 204, None

    def _droplet(self, asked: Any) -> tuple[int, Any]:
        made = self.recorded("list_node.json")["droplet"] | {"id": next(self.numbers), "name": asked["name"]}
        (made["size"],) = [s for s in self.recorded("list_sizes.json")["sizes"] if s["slug"] == asked["size"]]
        (made["image"],) = [image for image in self.images if str(image["id"]) == asked["image"]]
        self.droplets.append(made)
        return 202, {"droplet": made | {"status": "new", "networks": {"v4": [], "v6": []}}}

    def _action(self, droplet: str, asked: Any) -> tuple[int, Any]:
        (found,) = [one for one in self.droplets if str(one["id"]) == droplet]
        if self.listening or asked["type"] == "power_on":
            found["status"] = {"power_on": "active", "shutdown": "off"}[asked["type"]]
        return 201, self.recorded("ex_power_on_node.json")

    def _volume(self, asked: Any) -> tuple[int, Any]:
        made = self.recorded("create_volume.json")["volume"]
        source = [one for one in self.snapshots if one["id"] == asked.get("snapshot_id")]
        if source and asked["size_gigabytes"] < source[0]["min_disk_size"]:
            raise Refused(422, {"id": "unprocessable_entity", "message": "size is smaller than the snapshot's"})
        made |= {"id": f"v-{next(self.numbers)}", "name": asked["name"], "size_gigabytes": asked["size_gigabytes"]}
        self.volumes.append(made)
        return 201, {"volume": made}

    def _attachment(self, asked: Any) -> tuple[int, Any]:
        (found,) = [one for one in self.volumes if one["name"] == asked["volume_name"]]
        found["droplet_ids"] = [int(asked["droplet_id"])] if asked["type"] == "attach" else []
        return 202, self.recorded(f"{asked['type']}_volume.json")

    def _snapshot(self, volume: str, asked: Any) -> tuple[int, Any]:
        made = self.recorded("create_volume_snapshot.json")["snapshot"]
        made |= {"id": f"s-{next(self.numbers)}", "name": asked["name"], "resource_id": volume}
        made["min_disk_size"] = next(one["size_gigabytes"] for one in self.volumes if one["id"] == volume)
        self.snapshots.append(made)
        return 201, {"snapshot": made}

    def _key(self, asked: Any) -> tuple[int, Any]:
        if "nonsense" in asked["public_key"]:
            raise Refused(422, {"id": "unprocessable_entity", "message": "Key invalid"})
        made = self.recorded("create_key_pair.json")["ssh_key"] | asked | {"id": next(self.numbers)}
        self.keys.append(made)
        return 201, {"ssh_key": made}


@pytest.fixture
def account() -> Account:
    """What the service remembers."""
    return Account()


@pytest.fixture
def service(account: Account) -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_digitalocean_v2", "DigitalOceanComputeMockHttp", _get_request=account) as recording:
        yield recording


def _sent(recording: Recording, method: str, path: str) -> list[Any]:
    return [json.loads(request.body) for request in recording.sent(method, path)]


async def test_sizes_are_those_of_the_region_with_live_prices(service: Recording) -> None:
    """The catalogue has the sizes of its region, cores and memory and the price that the service tells for an hour."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        catalogue = await module.catalogue()
    assert catalogue.sizes == (
        Size(name="512mb", cores=1, memory_mib=512, price_per_hour=Decimal("0.00744")),
        Size(name="1gb", cores=2, memory_mib=1024, price_per_hour=Decimal("0.01488")),
    )
    assert (catalogue.region, catalogue.currency, catalogue.priced) == ("nyc1", "USD", None)
    assert catalogue.block_gib_month == Decimal("0.10")
    async with examined(DigitalOceanModule, SETTINGS | {"region": "fra1"}) as elsewhere:
        assert (await elsewhere.catalogue()).sizes == ()


async def test_the_recorded_machine(service: Recording) -> None:
    """The recorded droplet is told with its state, size, image and address."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        (machine,) = await module.list_machines()
        assert machine == await module.describe_machine("3164444")
    assert machine == Machine(
        id="3164444",
        name="ubuntu-s-1vcpu-1gb-sfo3-01",
        status=Status.ACTIVE,
        size="s-1vcpu-1gb",
        image="69463186",
        host="10.124.0.2",
        port=8080,
    )


@pytest.mark.parametrize(("told", "status"), [("new", Status.PENDING), ("off", Status.STOPPED)])
async def test_states(account: Account, service: Recording, told: str, status: Status) -> None:
    """A droplet that is being made is PENDING, one that is off is STOPPED."""
    account.droplets[0]["status"] = told
    async with examined(DigitalOceanModule, SETTINGS) as module:
        assert (await module.describe_machine("3164444")).status is status


async def test_an_archived_machine_is_no_more(account: Account, service: Recording) -> None:
    """A droplet in the state "archive" is gone."""
    account.droplets[0]["status"] = "archive"
    async with examined(DigitalOceanModule, SETTINGS) as module:
        assert await module.list_machines() == []
        with pytest.raises(NotFound):
            await module.describe_machine("3164444")


async def test_creating_a_machine(account: Account, service: Recording) -> None:
    """What is asked for is sent, the key in the name; a second call with the key creates nothing."""
    spec = SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"}), "key_pair": "7717"})
    async with examined(DigitalOceanModule, SETTINGS) as module:
        made = await module.create_machine(spec, key="key-1")
        assert await module.create_machine(spec, key="key-1") == made
    assert (made.key, made.status, made.host, made.size) == ("key-1", Status.ACTIVE, "36.123.0.123", "1gb")
    (sent,) = _sent(service, "POST", "/v2/droplets")
    assert base64.encodebytes(b"b").decode() in sent.pop("user_data")
    assert sent == {
        "name": name_for("key-1", "Web ☎"),
        "size": "1gb",
        "image": "119192817",
        "region": "nyc1",
        "ssh_keys": [7717],
    }


async def test_what_cannot_be_made_is_refused(service: Recording) -> None:
    """A size, an image or a key pair that is not there, and networks, are refused before anything is created."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        for change, error in (
            ({"size": "huge"}, InvalidRequest),
            ({"image": "1"}, NotFound),
            ({"key_pair": "none"}, NotFound),
            ({"networks": ("n",)}, Unsupported),
        ):
            with pytest.raises(error):
                await module.create_machine(SPEC.model_copy(update=change), key="k")
    assert service.sent("POST") == []


async def test_destroying_a_machine(service: Recording) -> None:
    """A droplet that is destroyed is asked to go and then is gone; destroying it again is fine."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        await module.destroy_machine("3164444")
        await module.destroy_machine("3164444")
        assert await module.list_machines() == []
    assert len(service.sent("DELETE", "/v2/droplets/3164444")) == 1


async def test_power(service: Recording) -> None:
    """Droplets are asked to end and switched on again, each once however often it is asked for."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        assert (await module.stop_machine("3164444")).status is Status.STOPPED
        assert (await module.stop_machine("3164444")).status is Status.STOPPED
        assert (await module.start_machine("3164444")).status is Status.ACTIVE
        assert (await module.start_machine("3164444")).status is Status.ACTIVE
    assert _sent(service, "POST", "/v2/droplets/3164444/actions") == [{"type": "shutdown"}, {"type": "power_on"}]


async def test_a_droplet_that_does_not_listen(account: Account, service: Recording) -> None:
    """A droplet that goes on running when it is asked to end is not said to be stopped."""
    account.listening = False
    async with examined(DigitalOceanModule, SETTINGS, settle_timeout=0.05) as module:
        with pytest.raises(TimedOut):
            await module.stop_machine("3164444")


async def test_images(service: Recording) -> None:
    """The recorded images are told, the account's own apart from the public ones; one's own can be removed."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        first, _, last = await module.list_images()
        assert first == await module.describe_image("119192817")
        await module.destroy_image(last.id)
        with pytest.raises(NotFound):
            await module.describe_image(last.id)
    raw = {"status": Status.ACTIVE, "format": DiskFormat.RAW}
    assert first == Image(id="119192817", name="14.04 x64", public=True, **raw)
    assert last == Image(id="449676856", name="My Snapshot", public=False, **raw)
    assert len(service.sent("DELETE", "/v2/images/449676856")) == 1


async def test_key_pairs(service: Recording) -> None:
    """The recorded key is told; a new one is sent once, found by its key and removed by its number."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        assert await module.list_key_pairs() == [
            KeyPair(
                id="7717",
                name="test1",
                status=Status.ACTIVE,
                public_key="ssh-rsa AAAAB3NzaC1yc2EAAAADAQABAAAAQQDGk5 example",
                fingerprint="f5:d1:78:ed:28:72:5f:e1:ac:94:fd:1f:e0:a3:48:6d",
            )
        ]
        made = await module.create_key_pair("mine", "ssh-ed25519 AAAA me", key="key-2")
        assert await module.create_key_pair("mine", "ssh-ed25519 AAAA me", key="key-2") == made
        assert (made.name, made.key) == (name_for("key-2", "mine"), "key-2")
        await module.destroy_key_pair(made.id)
        with pytest.raises(NotFound):
            await module.describe_key_pair(made.id)
    assert _sent(service, "POST", "/v2/account/keys") == [{"name": made.name, "public_key": "ssh-ed25519 AAAA me"}]
    assert len(service.sent("DELETE", f"/v2/account/keys/{made.id}")) == 1


async def test_volumes(account: Account, service: Recording) -> None:
    """The recorded volume is told; a new one is sent once in whole GiB, its key in its name; one in use stays."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        assert await module.list_volumes() == [Volume(id=VOLUME, name="example", status=Status.ACTIVE, size_mib=4096)]
        spec = VolumeSpec(name="data", size_mib=1025)
        made = await module.create_volume(spec, key="key-3")
        assert await module.create_volume(spec, key="key-3") == made
        assert (made.key, made.size_mib) == ("key-3", 2048)
        account.volumes[0]["droplet_ids"] = [3164444]
        with pytest.raises(Conflict):
            await module.destroy_volume(VOLUME)
        await module.destroy_volume(made.id)
    name = name_for("key-3", "data")
    assert _sent(service, "POST", "/v2/volumes") == [{"name": name, "size_gigabytes": 2, "region": "nyc1"}]
    assert [request.path for request in service.sent("DELETE")] == [f"/v2/volumes/{made.id}"]


async def test_attaching_and_detaching(service: Recording) -> None:
    """A volume is attached and detached once, however often it is asked for, and its machine tells that it has it."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        attached = await module.attach_volume(VOLUME, "3164444", "dev/vdb")
        assert await module.attach_volume(VOLUME, "3164444", "dev/vdb") == attached
        assert (attached.status, attached.machine, attached.device) == (Status.ATTACHED, "3164444", None)
        assert (await module.describe_machine("3164444")).volumes == (VOLUME,)
        with pytest.raises(Conflict):
            await module.create_machine(SPEC.model_copy(update={"volumes": (ATTACHMENT,)}), key="other")
        for _ in range(2):
            assert (await module.detach_volume(VOLUME)).machine is None
    first, second = _sent(service, "POST", "/v2/volumes/actions")
    assert first == {"type": "attach", "droplet_id": "3164444", "volume_name": "example", "region": "nyc1"}
    assert (second["type"], second["volume_name"]) == ("detach", "example")


ATTACHMENT = Attachment(volume=VOLUME, device="dev/vdb")


async def test_a_machine_with_a_volume(service: Recording) -> None:
    """A volume that a machine is made with is attached when it runs."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        made = await module.create_machine(SPEC.model_copy(update={"volumes": (ATTACHMENT,)}), key="key-1")
    assert made.volumes == (VOLUME,)
    assert len(service.sent("POST", "/v2/volumes/actions")) == 1


async def test_snapshots(service: Recording) -> None:
    """The recorded snapshots are told; a new one is made once; a volume is made from it, not empty; it can go."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        assert [s.name for s in await module.list_snapshots()] == [f"test-snapshot{n}" for n in ("", "-2", "-3")]
        made = await module.create_snapshot(VOLUME, "before", key="key-4")
        assert await module.create_snapshot(VOLUME, "before", key="key-4") == made
        assert (made.key, made.volume, made.size_mib) == ("key-4", VOLUME, 4096)
        await module.create_volume(VolumeSpec(name="again", size_mib=4096, snapshot=made.id), key="key-5")
        await module.destroy_snapshot(made.id)
        with pytest.raises(NotFound):
            await module.describe_snapshot(made.id)
    assert _sent(service, "POST", f"/v2/volumes/{VOLUME}/snapshots") == [{"name": name_for("key-4", "before")}]
    name = name_for("key-5", "again")
    assert _sent(service, "POST", "/v2/volumes") == [{"name": name, "size_gigabytes": 4, "snapshot_id": made.id}]


async def test_all_pages_are_read() -> None:
    """Droplets on a second page are listed too."""

    def pages(method: str, url: str, body: Any = None, headers: Any = None) -> Any:
        file = "list_nodes.json" if "?page=2" in url else "list_nodes_page_1.json"
        file = "list_volumes_empty.json" if url.startswith("/v2/volumes") else file
        return 200, recorded("digitalocean_v2", file), {}, ""

    with replay("test_digitalocean_v2", "DigitalOceanComputeMockHttp", _get_request=pages) as service:
        async with examined(DigitalOceanModule, SETTINGS) as module:
            assert [machine.name for machine in await module.list_machines()] == [
                "example.com",
                "ubuntu-s-1vcpu-1gb-sfo3-01",
            ]
    assert len(service.sent("GET", "/v2/droplets")) == 2


async def test_the_token_is_sent_and_not_told(service: Recording) -> None:
    """The password goes along as the token."""
    async with examined(DigitalOceanModule, SETTINGS) as module:
        await module.list_machines()
    assert service.requests[0].headers["Authorization"] == f"Bearer {PASSWORD}"


@pytest.mark.parametrize(
    ("recording", "error", "words"),
    [
        ("UNAUTHORIZED", Unauthorized, "Unable to authenticate you."),
        ("INVALID_IMAGE", NotFound, "You specified an invalid image"),
    ],
)
async def test_recorded_errors(recording: str, error: type[Exception], words: str) -> None:
    """Errors that were recorded are told in our words, and the service's."""
    with replay("test_digitalocean_v2", "DigitalOceanComputeMockHttp", type=recording):
        async with examined(DigitalOceanModule, SETTINGS) as module:
            with pytest.raises(error, match=words):
                await module.list_machines()


# --- the conformance suite, as far as it goes with a recording ---

# a name holds its key as a digest, which only the module that made it can read
CHECKS = checks_for(
    DigitalOceanModule,
    ["-name", "namesake", "volume-says-where-it-is-attached", "machine-that-exists", "leaves-its-volume-alone"],
)


@pytest.fixture
def whole(service: Recording) -> conformance.Subject:
    """The module as the suite examines it."""
    return replace(
        subject(DigitalOceanModule, SETTINGS), image="119192817", size="1gb", unknown_id="4711", volume_mib=1024
    )


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, whole: conformance.Subject) -> None:
    """The module does what the conformance suite asks; names, and devices of volumes, are among its known limits."""
    result = await conformance.run_check(check, whole)
    assert result.outcome != "failed", result.reason
