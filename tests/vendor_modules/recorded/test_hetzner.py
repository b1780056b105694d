"""The Hetzner module: the conformance suite on a stub of the published API, and what is this provider's own."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from decimal import Decimal
from typing import Any

import pytest
from pydantic import SecretStr

from tests.labs.hetzner_server import IMAGE, TOKEN, HetznerServer
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import conformance, hetzner
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, Throttled, Unsupported
from vendor_modules.hetzner import HetznerModule, HetznerSettings
from vendor_modules.labels import KEY, NAME, name_for, packed, unpacked
from vendor_modules.resources import MachineSpec, Rule, Size, Status, UserData, VolumeSpec
from vendor_modules.services.credentials import PasswordCredentials

CREDENTIALS = PasswordCredentials(username="project", password=SecretStr(TOKEN))
SPEC = MachineSpec(name="Web ☎", image=str(IMAGE), size="cx22")
DEVICES = ("volume-says-where-it-is-attached", "volume-is-attached-to-a-machine-that-exists")
"""Checks of what the module's known limits say that it does not do: choose a device."""


@pytest.fixture(scope="module")
def cloud() -> Iterator[HetznerServer]:
    with HetznerServer(page=20) as server:
        yield server


@pytest.fixture(scope="module")
def subject(cloud: HetznerServer) -> conformance.Subject:
    settings = HetznerSettings(region="fsn1", jurisdiction="EU", url=f"{cloud.url}/v1")
    return conformance.Subject(
        HetznerModule,
        settings,
        CREDENTIALS,
        image=str(IMAGE),
        machines_run=False,
        unknown_id="4711",
        page_size=20,
        volume_mib=10 * 1024,
    )


CHECKS = [check for check in conformance.checks_for(HetznerModule) if check.name not in DEVICES]


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, subject: conformance.Subject, lender: Any) -> None:  # noqa: F811
    """The module does what the conformance suite asks."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason


@pytest.fixture
def project() -> Iterator[HetznerServer]:
    """A project of one's own."""
    with HetznerServer() as server:
        yield server


@pytest.fixture
async def module(project: HetznerServer) -> AsyncIterator[HetznerModule]:
    """The module that it is reached by."""
    settings = {"region": "fsn1", "jurisdiction": "EU", "url": f"{project.url}/v1"}
    async with made(HetznerModule, CREDENTIALS, **settings) as module:
        yield module


async def test_sizes_and_prices_are_the_providers(module: HetznerModule) -> None:
    """The catalogue has the types of the location that are still sold, with net prices in the provider's currency."""
    catalogue = await module.catalogue()
    assert catalogue.sizes == (
        Size(name="cx22", cores=2, memory_mib=4096, price_per_hour=Decimal("0.006")),
        Size(name="cx32", cores=4, memory_mib=8192, price_per_hour=Decimal("0.0113")),
    )
    assert (catalogue.currency, catalogue.priced) == ("EUR", None)
    assert catalogue.block_gib_month == Decimal("0.044")
    assert catalogue.egress_per_gib == Decimal("0.001074")


async def test_what_is_sent_for_a_machine(project: HetznerServer, module: HetznerModule) -> None:
    """Key and name are in the labels, the name is a host's, and the user data is the script of the first boot."""
    machine = await module.create_machine(SPEC.model_copy(update={"user_data": UserData(files={"a": b"b"})}), key="k/1")
    (server,) = project.held["servers"].values()
    assert unpacked(server["labels"]) == {KEY: "k/1", NAME: "Web ☎"}
    assert server["name"] == name_for("k/1", "Web ☎")
    assert server["user_data"].startswith("#!/bin/sh\n")
    assert (machine.name, machine.key, machine.status) == ("Web ☎", "k/1", Status.ACTIVE)


async def test_a_key_that_begins_another_is_another(module: HetznerModule) -> None:
    """Keys of which one begins with the other, so that their first labels are the same, make two resources."""
    short, long = "k" * 60, "k" * 60 + "and more"
    assert packed(short, "")[f"{KEY}-0"] == packed(long, "")[f"{KEY}-0"]
    second = await module.create_address("a", key=long)
    first = await module.create_address("a", key=short)
    assert first.id != second.id


async def test_a_deaf_machine_is_made_to_end(
    project: HetznerServer, module: HetznerModule, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that does not end when it is asked to is switched off."""
    monkeypatch.setattr(hetzner, "_LISTENING", 0.0)
    machine = await module.create_machine(SPEC, key="deaf")
    project.deaf = True
    assert (await module.stop_machine(machine.id)).status is Status.STOPPED
    asked = [request.parts[-1] for request in project.seen if "actions" in request.parts]
    assert asked == ["shutdown", "poweroff"]


async def test_a_running_machine_is_no_image(module: HetznerModule) -> None:
    """An image of a machine that runs is refused."""
    machine = await module.create_machine(SPEC, key="image")
    with pytest.raises(Conflict):
        await module.bundle_machine(machine.id, "mine", key="image")


async def test_a_network_with_machines_stays(project: HetznerServer, module: HetznerModule) -> None:
    """A network that a machine is in is not removed, though the provider would."""
    network = await module.create_network("private", "10.0.0.0/24", key="net")
    machine = await module.create_machine(SPEC.model_copy(update={"networks": (network.id,)}), key="in-it")
    assert machine.host is not None
    assert machine.host.startswith("10.0.0.")
    with pytest.raises(Conflict):
        await module.destroy_network(network.id)
    assert len(project.held["networks"]) == 1


async def test_rules_of_others_are_told_as_far_as_they_can_be(project: HetznerServer, module: HetznerModule) -> None:
    """Of a firewall with ranges of ports and other protocols, the rules for single TCP ports are told."""
    group = await module.create_security_group("web", [Rule(port=80)], key="web")
    rules = project.held["firewalls"][int(group.id)]["rules"]
    rules += [{**rules[0], "port": "8000-9000"}, {**rules[0], "protocol": "icmp", "port": None}]
    assert (await module.describe_security_group(group.id)).rules == (Rule(port=80),)


async def test_volumes_are_empty_and_have_a_least_size(module: HetznerModule) -> None:
    """A volume has 10 GiB at least; one with content is refused, since the provider has only empty ones."""
    volume = await module.create_volume(VolumeSpec(name="v", size_mib=1), key="small")
    assert volume.size_mib == 10240
    with pytest.raises(Unsupported):
        await module.create_volume(VolumeSpec(name="v", size_mib=1, image=str(IMAGE)), key="filled")


async def test_throttling_says_when_to_come_back(project: HetznerServer, module: HetznerModule) -> None:
    """When the project's requests are used up, the error tells for how long, from the answer's headers."""
    project.limited = 1000
    with pytest.raises(Throttled) as raised:
        await module.list_machines()
    assert 990 < raised.value.retry_after <= 1001
    assert len(project.seen) == 1


@pytest.mark.parametrize("strange", ["0x10", "٣", "9" * 30, "servers/1"])
async def test_what_is_no_number_is_not_found(module: HetznerModule, project: HetznerServer, strange: str) -> None:
    """An id that is no number is not found, and not asked for."""
    with pytest.raises(NotFound):
        await module.describe_machine(strange)
    assert project.seen == []


async def test_refused_values_are_told(module: HetznerModule) -> None:
    """What the provider finds invalid is InvalidRequest, in its words."""
    with pytest.raises(InvalidRequest, match="not private"):
        await module.create_network("public", "8.8.8.0/24", key="public")
