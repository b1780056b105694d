"""cloudscale.ch, as libcloud recorded it, through our module."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from tests.labs.libcloud_fixtures import PASSWORD, Recording, examined, replay, subject
from tests.vendor_modules.recorded.routes import Refused, Routes, checks_for
from vendor_modules import conformance
from vendor_modules.cloudscale import CloudscaleModule
from vendor_modules.errors import (
    Forbidden,
    InvalidRequest,
    NotFound,
    Throttled,
    Unauthorized,
    Unavailable,
    Unsupported,
)
from vendor_modules.labels import name_for
from vendor_modules.resources import DiskFormat, Image, Machine, MachineSpec, Size, Status, UserData

PUBLIC_KEY = "ssh-ed25519 AAAA me"
SETTINGS: dict[str, Any] = {
    "region": "rma1",
    "jurisdiction": "CH",
    "currency": "CHF",
    "prices_per_hour": {"flex-2": "0.03"},
    "ssh_keys": [PUBLIC_KEY],
}
SERVER = "47cec963-fcd2-482f-bdb6-24461b2d47b1"
SPEC = MachineSpec(name="Web ☎", image="ubuntu-16.10", size="flex-2")
MASTER = Machine(
    id=SERVER,
    name="db-master",
    status=Status.ACTIVE,
    size="flex-4",
    image="debian-8",
    host="185.98.122.176",
    port=8080,
)


class Account(Routes):
    """The recorded account, which remembers: what is created is what was recorded, with what was asked for."""

    def __init__(self) -> None:
        super().__init__("cloudscale")
        self.servers = self.recorded("list_nodes.json")
        self.flavors = self.recorded("list_sizes.json")
        self.images = self.recorded("list_images.json")
        for name in ("servers", "flavors", "images"):
            self.on("GET", f"/v1/{name}", lambda _, name=name: (200, getattr(self, name)))
        self.on("POST", "/v1/servers", self._created)
        self.on("POST", "/v1/servers/([^/]+)/(start|stop)", self._switched)
        self.on("DELETE", "/v1/servers/([^/]+)", self._deleted)

    def refuse(self, headers: Any) -> tuple[int, Any] | None:
        right = headers["Authorization"] == f"Bearer {PASSWORD}"
        return None if right else (401, {"detail": "Invalid token."})

    @staticmethod
    def _found(held: list[Any], name: str, value: str) -> Any:
        for one in held:
            if one[name] == value:
                return one
        raise Refused(404, {"detail": "Not found."})

    def _created(self, asked: Any) -> tuple[int, Any]:
        made = self.recorded("create_node.json") | {
            "uuid": str(next(self.numbers)),
            "name": asked["name"],
            "flavor": self._found(self.flavors, "slug", asked["flavor"]),
            "image": self._found(self.images, "slug", asked["image"]),
        }
        self.servers.append(made | {"status": "running"})
        return 201, made

    def _switched(self, server: str, action: str, _: Any) -> tuple[int, Any]:
        self._found(self.servers, "uuid", server)["status"] = "running" if action == "start" else "stopped"
        return 200, None

    def _deleted(self, server: str, _: Any) -> tuple[int, Any]:
        self.servers.remove(self._found(self.servers, "uuid", server))
        return 204, None


@pytest.fixture
def account() -> Account:
    """What the service remembers."""
    return Account()


@pytest.fixture
def service(account: Account) -> Iterator[Recording]:
    """The recorded service."""
    with replay("test_cloudscale", "CloudscaleMockHttp", _get_request=account) as recording:
        yield recording


def _module(**settings: Any) -> Any:
    return examined(CloudscaleModule, SETTINGS | settings)


async def test_the_recorded_sizes(service: Recording) -> None:
    """The catalogue has the recorded flavors with cores and memory, priced by the settings or not at all."""
    async with _module() as module:
        catalogue = await module.catalogue()
    assert (catalogue.region, catalogue.jurisdiction, catalogue.currency) == ("rma1", "CH", "CHF")
    assert catalogue.sizes == (
        Size(name="flex-2", cores=1, memory_mib=2048, price_per_hour=Decimal("0.03")),
        Size(name="flex-4", cores=2, memory_mib=4096, price_per_hour=None),
    )


async def test_the_recorded_machine_and_image() -> None:
    """What libcloud's own mock class answers is told with state, size, image and address."""
    with replay("test_cloudscale", "CloudscaleMockHttp"):
        async with _module() as module:
            assert await module.list_machines() == [MASTER] == [await module.describe_machine(SERVER)]
            (image,) = await module.list_images()
    told = {"status": Status.ACTIVE, "format": DiskFormat.RAW, "public": True}
    assert image == Image(id="ubuntu-16.10", name="Ubuntu 16.10 (2016-10-17)", **told)


@pytest.mark.parametrize(
    ("told", "status"),
    [("changing", Status.PENDING), ("stopped", Status.STOPPED), ("paused", Status.STOPPED), ("new", Status.PENDING)],
)
async def test_states(account: Account, service: Recording, told: str, status: Status) -> None:
    """A machine that changes, or is in a state that nobody knows, is PENDING; one that does not run is STOPPED."""
    account.servers[0]["status"] = told
    async with _module() as module:
        assert (await module.describe_machine(SERVER)).status is status


async def test_creating_a_machine(service: Recording) -> None:
    """What is asked for is sent, the key in the name; a second call with the key creates nothing."""
    spec = SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"})})
    async with _module() as module:
        made = await module.create_machine(spec, key="key-1")
        assert await module.create_machine(spec, key="key-1") == made
    assert (made.key, made.status, made.size, made.image) == ("key-1", Status.ACTIVE, "flex-2", "ubuntu-16.10")
    (request,) = service.sent("POST", "/v1/servers")
    sent = json.loads(request.body)
    assert sent.pop("user_data").startswith("#!/bin/sh\n")
    assert sent == {
        "name": name_for("key-1", "Web ☎"),
        "image": "ubuntu-16.10",
        "flavor": "flex-2",
        "zone": "rma1",
        "ssh_keys": [PUBLIC_KEY],
    }
    assert request.headers["Authorization"] == f"Bearer {PASSWORD}"


async def test_without_user_data_none_is_sent(service: Recording) -> None:
    """A machine without user data is asked for without any."""
    async with _module(ssh_keys=[]) as module:
        await module.create_machine(SPEC, key="key-1")
    (request,) = service.sent("POST", "/v1/servers")
    sent = json.loads(request.body)
    assert "user_data" not in sent
    assert sent["ssh_keys"] == []


async def test_power_and_destroying(service: Recording) -> None:
    """A machine is stopped, started and removed, each once however often it is asked for."""
    async with _module() as module:
        for _ in range(2):
            assert (await module.stop_machine(SERVER)).status is Status.STOPPED
        for _ in range(2):
            assert (await module.start_machine(SERVER)).status is Status.ACTIVE
        for _ in range(2):
            await module.destroy_machine(SERVER)
        with pytest.raises(NotFound):
            await module.describe_machine(SERVER)
    path = f"/v1/servers/{SERVER}"
    asked = [(request.method, request.path) for request in service.requests if request.method != "GET"]
    assert asked == [("POST", f"{path}/stop"), ("POST", f"{path}/start"), ("DELETE", path)]


async def test_images_stay(service: Recording) -> None:
    """The provider's images cannot be removed, and the module says so without asking."""
    async with _module() as module:
        with pytest.raises(Unsupported):
            await module.destroy_image("ubuntu-16.10")
    assert service.sent("DELETE") == []


@pytest.mark.parametrize(
    ("status", "error"),
    [
        (400, InvalidRequest),
        (401, Unauthorized),
        (403, Forbidden),
        (429, Throttled),
        (503, Unavailable),
    ],
)
async def test_refusals(account: Account, service: Recording, status: int, error: type[Exception]) -> None:
    """The service's refusals are told in our words, and its own where libcloud hands them on, without the token."""
    account.refuse = lambda headers: (status, {"detail": f"no: {PASSWORD}"})  # type: ignore[method-assign]
    async with _module() as module:
        with pytest.raises(error, match=r"no: |429 Rate limit exceeded") as raised:
            await module.list_machines()
    assert PASSWORD not in repr(raised.value)


# names: see the known limits
CHECKS = checks_for(CloudscaleModule, ["machine-keeps-a-", "machine-is-told-from-its-namesake"])


@pytest.fixture
def whole(service: Recording) -> conformance.Subject:
    """The module as the suite examines it."""
    return replace(subject(CloudscaleModule, SETTINGS), image="ubuntu-16.10", size="flex-2", unknown_id="4711")


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, whole: conformance.Subject) -> None:
    """The module keeps the contract of the check, on a recorded account that remembers."""
    result = await conformance.run_check(check, whole)
    assert result.outcome != "failed", result.reason


def test_enough_is_checked() -> None:
    """At least 60 checks are run: those that are left out go by parts of their names."""
    assert len(CHECKS) >= 60
