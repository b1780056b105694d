"""Public addresses and security groups, on a real cloud."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import httpx
import pytest

from tests.labs.testbed import RunningCloud
from tests.vendor_modules.testbed.helpers import get, machine
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import Address, Machine, Rule
from vendor_modules.testbed.module import TestbedModule

pytestmark = pytest.mark.integration


async def exposed(cloud: TestbedModule, *rules: Rule) -> tuple[Machine, Address]:
    """A machine with such a group, and an address that leads to it."""
    group = await cloud.create_security_group("web", rules, key="g")
    made = await cloud.create_machine(machine(files={"f": b"x" * 300_000}, security_groups=(group.id,)), key="m")
    address = await cloud.create_address("www", key="a")
    return made, await cloud.associate_address(address.id, made.id)


async def cut(address: Address) -> None:
    """Assert that a connection to the address gets nowhere."""
    with pytest.raises(httpx.TransportError):
        await get(address.host, address.port)


async def test_an_address_leads_to_its_machine(cloud: TestbedModule) -> None:
    """Through its address, a machine is reached as far as the rules go; stopped, destroyed or without the address,
    it is not."""
    made, address = await exposed(cloud, Rule(port=80))
    assert address.port != made.port
    assert address.machine == made.id
    assert len((await get(address.host, address.port, "/f")).content) == 300_000
    await cloud.stop_machine(made.id)
    await cut(address)
    await cloud.start_machine(made.id)
    assert (await get(address.host, address.port)).status_code == 200
    assert (await cloud.associate_address(address.id, None)).machine is None
    await cut(address)
    await cloud.associate_address(address.id, made.id)
    await cloud.destroy_machine(made.id)
    await cut(address)
    assert (await cloud.describe_address(address.id)).machine is None
    await cloud.destroy_address(address.id)
    with pytest.raises(ConnectionRefusedError):
        await asyncio.open_connection(address.host, address.port)


@pytest.mark.parametrize("rules", [[], [Rule(port=80, cidr="10.0.0.0/8")]], ids=["no rule", "another network"])
async def test_what_no_rule_allows_is_refused(cloud: TestbedModule, rules: list[Rule]) -> None:
    """Without a rule for the peer, nobody comes in by the address; the internal way stays."""
    made, address = await exposed(cloud, *rules)
    await cut(address)
    assert (await get(made.host, made.port)).status_code == 200


async def test_re_association_cuts_open_connections(cloud: TestbedModule) -> None:
    """A connection that is open when its address is led elsewhere, or its machine stops, ends at once."""
    made, address = await exposed(cloud, Rule(port=80, cidr="127.0.0.0/8"))
    for end in (lambda: cloud.associate_address(address.id, None)), (lambda: cloud.stop_machine(made.id)):
        await cloud.associate_address(address.id, made.id)
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n")
        assert await reader.read(10)
        async with asyncio.timeout(30):
            await end()
            with suppress(ConnectionResetError):
                while await reader.read(100_000):
                    pass
        writer.close()


async def test_addresses_are_made_once(cloud: TestbedModule) -> None:
    """Concurrent duplicates make one address; what it is led to must exist."""
    made = await asyncio.gather(*(cloud.create_address("a", key="a") for _ in range(5)))
    assert len({address.id for address in made}) == len(await cloud.list_addresses()) == 1
    with pytest.raises(NotFound):
        await cloud.associate_address(made[0].id, "nix")


async def test_groups_are_made_once_and_kept_while_used(cloud: TestbedModule) -> None:
    """A group keeps its rules, must make sense, and stays as long as a machine uses it."""
    rules = [Rule(port=80), Rule(port=443, cidr="10.0.0.0/8")]
    made = await asyncio.gather(*(cloud.create_security_group("g", rules, key="g") for _ in range(3)))
    assert made[0] == made[1] == made[2] == await cloud.describe_security_group(made[0].id)
    assert list(made[0].rules) == rules
    with pytest.raises(InvalidRequest, match="CIDR"):
        await cloud.create_security_group("g", [Rule(port=1, cidr="10.0.0.1/8")], key="g2")
    used_by = await cloud.create_machine(machine(None, security_groups=(made[0].id,)), key="m")
    with pytest.raises(Conflict, match=used_by.id):
        await cloud.destroy_security_group(made[0].id)
    await cloud.destroy_machine(used_by.id)
    await cloud.destroy_security_group(made[0].id)


async def test_egress_is_metered(cloud: TestbedModule, desk: RunningCloud) -> None:
    """What leaves by an address is in the usage, as GiB of egress."""
    _, address = await exposed(cloud, Rule(port=80))
    await get(address.host, address.port, "/f")
    await cloud.destroy_address(address.id)
    [record] = [record for record in await cloud.usage() if record.resource == address.id]
    assert (record.unit, record.kind) == ("GiB", "address")
    assert record.ended
    assert 300_000 < float(record.quantity) * 1024**3 < 310_000
