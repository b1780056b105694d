"""Key pairs, security groups, and public addresses: who reaches what."""

from __future__ import annotations

import asyncio

from vendor_modules.capabilities import Addresses, KeyPairs, SecurityGroups
from vendor_modules.conformance.bench import Bench, expect, find, refused
from vendor_modules.conformance.checks.kinds import PUBLIC_KEY
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import Address, Machine, Rule

EVERYBODY = (Rule(port=8080), Rule(port=8080, cidr="::/0"))
NOBODY_HERE = (Rule(port=8080, cidr="198.51.100.0/24"),)
"""A network reserved for documentation: nobody is in it."""


@check(KeyPairs)
async def key_pair_has_its_public_key(bench: Bench) -> None:
    """A key pair has its name, the public key that was given, and a fingerprint."""
    pair = await bench.the(KeyPairs).create_key_pair("Schlüssel", PUBLIC_KEY, key=bench.key())
    expect(pair.name == "Schlüssel", f"its name is {pair.name!r}")
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
    """A machine can be created with a key pair, and outlives it; with one that is not there it cannot."""
    module = bench.the(KeyPairs)
    pair = await module.create_key_pair("pair", PUBLIC_KEY, key=bench.key("pair"))
    machine = await bench.machine(key_pair=pair.id)
    await module.destroy_key_pair(pair.id)
    expect(await bench.get(machine, GREETING) == GREETING_TEXT, "the machine does not answer any more")
    call = bench.machine("second", key_pair="there-is-none")
    await refused(call, NotFound, InvalidRequest, what="create a machine with an unknown key pair")


@check(SecurityGroups)
async def security_group_keeps_its_rules(bench: Bench) -> None:
    """A security group has its name and all its rules; one without rules has none."""
    module = bench.the(SecurityGroups)
    rules = (Rule(port=22, cidr="10.0.0.0/8"), Rule(port=443), Rule(port=65535, cidr="2001:db8::/32"))
    full = await module.create_security_group("Gruppe", rules, key=bench.key("full"))
    empty = await module.create_security_group("empty", (), key=bench.key("empty"))
    seen = await module.describe_security_group(full.id)
    expect((seen.name, set(seen.rules)) == ("Gruppe", set(rules)), f"it is {seen!r}")
    expect((await module.describe_security_group(empty.id)).rules == (), "the one without rules has some")


@check(SecurityGroups)
async def rule_for_no_network_is_refused(bench: Bench) -> None:
    """A rule whose CIDR is none is refused."""
    call = bench.the(SecurityGroups).create_security_group("bad", [Rule(port=80, cidr="everybody")], key=bench.key())
    await refused(call, InvalidRequest, what="a rule for 'everybody'")


@check(SecurityGroups)
async def used_security_group_cannot_be_destroyed(bench: Bench) -> None:
    """Destroying a security group that a machine has raises Conflict; without the machine it works."""
    module = bench.the(SecurityGroups)
    group = await module.create_security_group("used", EVERYBODY, key=bench.key("group"))
    machine = await bench.machine(security_groups=(group.id,))
    await refused(module.destroy_security_group(group.id), Conflict, what="destroy a group in use")
    await bench.module.destroy_machine(machine.id)
    await module.destroy_security_group(group.id)


# --- addresses ---


async def _open_machine(bench: Bench, word: str, rules: tuple[Rule, ...] = EVERYBODY) -> Machine:
    group = await bench.the(SecurityGroups).create_security_group(word, rules, key=bench.key(f"{word}-group"))
    machine = await bench.machine(word, security_groups=(group.id,))
    await bench.get(machine, GREETING)
    await bench.put(machine, "who", word.encode())
    return machine


async def _address(bench: Bench) -> Address:
    return await bench.the(Addresses).create_address("address", key=bench.key("address"))


@check(Addresses)
async def address_is_reserved(bench: Bench) -> None:
    """A new address has a host and a port of its own, and leads nowhere."""
    one, two = await asyncio.gather(
        *(bench.the(Addresses).create_address(word, key=bench.key(word)) for word in ("one", "two"))
    )
    expect(one.machine is None, f"it leads to {one.machine}")
    expect((one.host, one.port) != (two.host, two.port), f"two addresses are both {one.host}:{one.port}")
    expect(await bench.is_closed(one), "something answers there")


@check(Addresses, SecurityGroups)
async def address_leads_to_its_machine(bench: Bench) -> None:
    """The world reaches a machine's service at the address that leads to it, and the address says so."""
    module, address, machine = bench.the(Addresses), await _address(bench), await _open_machine(bench, "machine")
    led = await module.associate_address(address.id, machine.id)
    expect(led.machine == machine.id, f"it leads to {led.machine}")
    expect((led.host, led.port) == (address.host, address.port), "host and port have changed")
    expect(await bench.get(led, GREETING) == GREETING_TEXT, "another service answers there")
    expect(find(await module.list_addresses(), address) == led, "it is listed otherwise")


@check(Addresses, SecurityGroups)
async def address_moves_to_another_machine(bench: Bench) -> None:
    """An address that is led to another machine keeps host and port, and reaches the other one; repeating is fine."""
    module, address = bench.the(Addresses), await _address(bench)
    for word in ("first", "second"):
        machine = await _open_machine(bench, word)
        for _ in range(2):
            led = await module.associate_address(address.id, machine.id)
        expect((led.host, led.port) == (address.host, address.port), "host and port have changed")
        who = await bench.get(led, "who")
        expect(who == word.encode(), f"{who!r} answers there, expected {word!r}")


@check(Addresses, SecurityGroups)
async def address_leads_nowhere_again(bench: Bench) -> None:
    """An address that is led to nowhere, or whose machine is destroyed, reaches nothing."""
    module, address, machine = bench.the(Addresses), await _address(bench), await _open_machine(bench, "machine")
    await module.associate_address(address.id, machine.id)
    await bench.get(address, GREETING)
    led = await module.associate_address(address.id, None)
    expect(led.machine is None, f"it leads to {led.machine}")
    expect(await bench.is_closed(address), "the machine still answers there")
    await module.associate_address(address.id, machine.id)
    await bench.module.destroy_machine(machine.id)
    expect(await bench.is_closed(address), "something answers there after the machine was destroyed")
    expect((await module.describe_address(address.id)).machine is None, "it leads to a machine that is gone")


@check(Addresses, SecurityGroups)
async def address_obeys_the_rules(bench: Bench) -> None:
    """At an address, nobody whom no rule allows reaches the machine."""
    module, address = bench.the(Addresses), await _address(bench)
    machine = await _open_machine(bench, "machine", NOBODY_HERE)
    await module.associate_address(address.id, machine.id)
    expect(await bench.is_closed(address), "the machine answers although no rule allows it")


@check(Addresses)
async def address_to_an_unknown_machine_is_not_found(bench: Bench) -> None:
    """Leading an address to a machine that is not there raises NotFound; so does leading an unknown address."""
    module, address = bench.the(Addresses), await _address(bench)
    await refused(module.associate_address(address.id, "there-is-none"), NotFound, what="lead to an unknown machine")
    await refused(module.associate_address("there-is-none", None), NotFound, what="lead an unknown address")
