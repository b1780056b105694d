"""Key pairs, security groups, and public addresses: who reaches what."""

from __future__ import annotations

import asyncio

from vendor_modules.capabilities import Addresses, Endpoints, KeyPairs, SecurityGroups
from vendor_modules.conformance.bench import Bench, expect, find, refused
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT
from vendor_modules.conformance.ways import PUBLIC_KEY, SERVICE_RULES
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import Address, Machine, Rule, Status

NOBODY_HERE = (Rule(port=8080, cidr="198.51.100.0/24"),)
"""A network reserved for documentation: nobody is in it."""


@check(KeyPairs)
async def key_pair_has_its_public_key(bench: Bench) -> None:
    """A key pair has the public key that was given, and a fingerprint."""
    pair = (await bench.specimen("key-pair")).made
    expect(pair.public_key.split()[:2] == PUBLIC_KEY.split()[:2], f"its public key is {pair.public_key!r}")
    expect(pair.fingerprint.strip(), "it has no fingerprint")


@check(KeyPairs)
async def what_is_no_public_key_is_refused(bench: Bench) -> None:
    """A public key that is none is refused, and no pair is made."""
    module = bench.the(KeyPairs)
    call = module.create_key_pair("bad", "ssh-ed25519 nonsense", key=bench.key())
    await refused(call, InvalidRequest, what="make nonsense known as a public key")
    expect(not any(pair.key == bench.key() for pair in await module.list_key_pairs()), "a pair was made all the same")


@check(KeyPairs)
async def machine_takes_a_key_pair(bench: Bench) -> None:
    """A machine can be created with a key pair, and outlives it."""
    given = await bench.equipped()
    seen = await bench.module.describe_machine(given.machine.id)
    expect(seen.status is Status.ACTIVE, f"after its key pair was destroyed, it is {seen.status}")
    if bench.answers():
        expect(await bench.get(given.machine, GREETING) == GREETING_TEXT, "the machine does not answer any more")


@check(KeyPairs)
async def machine_with_an_unknown_key_pair_is_refused(bench: Bench) -> None:
    """A machine cannot be created with a key pair that is not there, and none is left of the attempt."""
    call = bench.machine("missing", key_pair=bench.unknown("key-pair"))
    await refused(call, NotFound, InvalidRequest, what="create a machine with an unknown key pair")
    left = [m.id for m in await bench.module.list_machines() if m.key == bench.key("missing")]
    expect(not left, f"{left} were made all the same")


@check(SecurityGroups)
async def security_group_keeps_its_rules(bench: Bench) -> None:
    """A security group has all the rules that it was created with, and no others."""
    module = bench.the(SecurityGroups)
    rules = (Rule(port=22, cidr="10.0.0.0/8"), Rule(port=443), Rule(port=65535, cidr="2001:db8::/32"))
    group = await module.create_security_group("rules", rules, key=bench.key("rules"))
    for seen in (
        group,
        await module.describe_security_group(group.id),
        find(await module.list_security_groups(), group),
    ):
        expect(seen and set(seen.rules) == set(rules), f"its rules are {seen and seen.rules}")


@check(SecurityGroups)
async def security_group_may_have_no_rules(bench: Bench) -> None:
    """A security group without rules has none: it lets nobody in."""
    group = await bench.the(SecurityGroups).create_security_group("empty", (), key=bench.key("empty"))
    seen = await bench.the(SecurityGroups).describe_security_group(group.id)
    expect(seen.rules == (), f"its rules are {seen.rules}")


@check(SecurityGroups)
async def security_group_may_have_many_rules(bench: Bench) -> None:
    """A security group keeps thirty rules as well as one."""
    rules = tuple(Rule(port=9000 + number, cidr=f"10.{number}.0.0/16") for number in range(30))
    group = await bench.the(SecurityGroups).create_security_group("many", rules, key=bench.key("many"))
    seen = await bench.the(SecurityGroups).describe_security_group(group.id)
    expect(set(seen.rules) == set(rules), f"it has {len(seen.rules)} rules, expected the {len(rules)} ordered")


@check(SecurityGroups)
async def rule_for_no_network_is_refused(bench: Bench) -> None:
    """A rule whose CIDR is none is refused, and no group is left."""
    module = bench.the(SecurityGroups)
    call = module.create_security_group("bad", [Rule(port=80, cidr="everybody")], key=bench.key())
    await refused(call, InvalidRequest, what="a rule for 'everybody'")
    left = [group.id for group in await module.list_security_groups() if group.key == bench.key()]
    expect(not left, f"{left} were made all the same")


@check(SecurityGroups)
async def used_security_group_cannot_be_destroyed(bench: Bench) -> None:
    """Destroying a security group that a machine has raises Conflict, and the group keeps its rules."""
    given, module = await bench.equipped(), bench.the(SecurityGroups)
    group = given.group or await module.create_security_group("group", SERVICE_RULES, key=bench.key())
    await refused(module.destroy_security_group(group.id), Conflict, what="destroy a group in use")
    seen = await module.describe_security_group(group.id)
    expect(set(seen.rules) == set(SERVICE_RULES), f"its rules are {seen.rules}")


@check(SecurityGroups)
async def machine_with_an_unknown_security_group_is_refused(bench: Bench) -> None:
    """A machine cannot be created with a security group that is not there, and none is left of the attempt."""
    call = bench.machine("missing", security_groups=(bench.unknown("security-group"),))
    await refused(call, NotFound, InvalidRequest, what="create a machine with an unknown security group")
    left = [m.id for m in await bench.module.list_machines() if m.key == bench.key("missing")]
    expect(not left, f"{left} were made all the same")


# --- addresses ---


async def _address(bench: Bench) -> Address:
    return await bench.the(Addresses).create_address("address", key=bench.key("address"))


async def _open_machine(bench: Bench, word: str, rules: tuple[Rule, ...] = SERVICE_RULES) -> Machine:
    group = await bench.the(SecurityGroups).create_security_group(word, rules, key=bench.key(f"{word}-group"))
    machine = await bench.machine(word, security_groups=(group.id,))
    await bench.get(machine, GREETING)
    await bench.put(machine, "who", word.encode())
    return machine


@check(Addresses)
async def address_is_reserved(bench: Bench) -> None:
    """A new address has a host, and perhaps a port, of its own, and leads nowhere."""
    one, two = await asyncio.gather(
        *(bench.the(Addresses).create_address(word, key=bench.key(word)) for word in ("one", "two"))
    )
    expect(one.machine is None, f"it leads to {one.machine}")
    expect((one.host, one.port) != (two.host, two.port), f"two addresses are both {one.host}:{one.port}")
    if bench.answers():
        expect(await bench.is_closed(one), "something answers there")


@check(Addresses)
async def address_says_where_it_leads(bench: Bench) -> None:
    """An address that was led to a machine says so, described and listed, keeps its host and port, and can be led to
    nowhere; repeating either is fine."""
    module, address = bench.the(Addresses), await _address(bench)
    async with bench.machine_lent() as machine:
        for target in (machine.id, machine.id, None, None):
            led = await module.associate_address(address.id, target)
            expect(led.machine == target, f"it leads to {led.machine}, expected {target}")
            expect((led.host, led.port) == (address.host, address.port), "host and port have changed")
            expect(find(await module.list_addresses(), address) == led, "it is listed otherwise")


@check(Addresses, SecurityGroups, Endpoints)
async def address_leads_to_its_machine(bench: Bench) -> None:
    """The world reaches a machine's service at the address that leads to it, and not once it leads nowhere."""
    bench.need_running_machines()
    module, address, given = bench.the(Addresses), await _address(bench), await bench.equipped()
    led = await module.associate_address(address.id, given.machine.id)
    expect(await bench.get(led, GREETING) == GREETING_TEXT, "another service answers there")
    await module.associate_address(address.id, None)
    expect(await bench.is_closed(address), "the machine still answers there")


@check(Addresses, SecurityGroups, Endpoints)
async def address_moves_to_another_machine(bench: Bench) -> None:
    """An address that is led to another machine reaches that one, and nothing when it is destroyed."""
    bench.need_running_machines()
    module, address, given = bench.the(Addresses), await _address(bench), await bench.equipped()
    await bench.get(given.machine, GREETING)
    await bench.put(given.machine, "who", b"first")
    second = await _open_machine(bench, "second")
    for machine, word in ((given.machine, b"first"), (second, b"second")):
        led = await module.associate_address(address.id, machine.id)
        who = await bench.get(led, "who")
        expect(who == word, f"{who!r} answers there, expected {word!r}")
    await bench.module.destroy_machine(second.id)
    expect(await bench.is_closed(address), "something answers there after the machine was destroyed")
    expect((await module.describe_address(address.id)).machine is None, "it leads to a machine that is gone")


@check(Addresses, SecurityGroups, Endpoints)
async def address_obeys_the_rules(bench: Bench) -> None:
    """At an address, nobody whom no rule allows reaches the machine."""
    bench.need_running_machines()
    module, address = bench.the(Addresses), await _address(bench)
    machine = await _open_machine(bench, "machine", NOBODY_HERE)
    await module.associate_address(address.id, machine.id)
    expect(await bench.is_closed(address), "the machine answers although no rule allows it")


@check(Addresses)
async def address_to_an_unknown_machine_is_not_found(bench: Bench) -> None:
    """Leading an address to a machine that is not there raises NotFound; so does leading an unknown address."""
    module, address = bench.the(Addresses), (await bench.specimen("address")).made
    call = module.associate_address(address.id, bench.unknown("machine"))
    await refused(call, NotFound, what="lead to an unknown machine")
    call = module.associate_address(bench.unknown("address"), None)
    await refused(call, NotFound, what="lead an unknown address")


@check(Addresses)
async def destroyed_address_leaves_its_machine(bench: Bench) -> None:
    """An address that leads to a machine can be destroyed, and the machine stays."""
    module, address = bench.the(Addresses), await _address(bench)
    async with bench.machine_lent() as machine:
        await module.associate_address(address.id, machine.id)
        await module.destroy_address(address.id)
        seen = await bench.module.describe_machine(machine.id)
        expect(seen.status is Status.ACTIVE, f"it is {seen.status}")
