"""Private networks, and load balancers."""

from __future__ import annotations

import asyncio

from vendor_modules.capabilities import Endpoints, LoadBalancers, Networks
from vendor_modules.conformance.bench import Bench, expect, find, refused
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT
from vendor_modules.conformance.ways import cidr_for, port_for
from vendor_modules.errors import Conflict, InvalidRequest, NotFound
from vendor_modules.resources import LoadBalancer, Machine, Status

TRIES = 60
"""How often a load balancer is asked until it has shown all its machines."""


@check(Networks)
async def network_is_as_ordered(bench: Bench) -> None:
    """A new network is ACTIVE and has the range that was ordered."""
    specimen = await bench.specimen("network")
    got, wanted = (specimen.made.status, specimen.made.cidr), (Status.ACTIVE, cidr_for(specimen.key))
    expect(got == wanted, f"it is {got}, expected {wanted}")


@check(Networks)
async def network_without_a_range_is_refused(bench: Bench) -> None:
    """A network whose range is none is refused, and none is left."""
    module = bench.the(Networks)
    for word, cidr in (("word", "everywhere"), ("host", "10.1.2.3/24/5"), ("large", "10.0.0.0/33")):
        call = module.create_network("bad", cidr, key=bench.key(word))
        await refused(call, InvalidRequest, what=f"create a network with the range {cidr!r}")
    left = [network.id for network in await module.list_networks() if network.key.startswith(bench.prefix)]
    expect(not left, f"{left} were made all the same")


@check(Networks)
async def machine_takes_a_network(bench: Bench) -> None:
    """A machine can be created in a network, which cannot be destroyed while the machine is in it."""
    module, key = bench.the(Networks), bench.key("network")
    network = await module.create_network("network", cidr_for(key), key=key)
    machine = await bench.machine(networks=(network.id,))
    expect(machine.status is Status.ACTIVE, f"it is {machine.status}")
    await refused(module.destroy_network(network.id), Conflict, what="destroy a network with a machine in it")
    await bench.module.destroy_machine(machine.id)
    await module.destroy_network(network.id)


@check(Networks)
async def machine_with_an_unknown_network_is_refused(bench: Bench) -> None:
    """A machine cannot be created in a network that is not there, and none is left of the attempt."""
    call = bench.machine("missing", networks=(bench.unknown("network"),))
    await refused(call, NotFound, InvalidRequest, what="create a machine in an unknown network")
    left = [m.id for m in await bench.module.list_machines() if m.key == bench.key("missing")]
    expect(not left, f"{left} were made all the same")


# --- load balancers ---


async def _balancer(bench: Bench, *machines: Machine) -> LoadBalancer:
    key = bench.key("balancer")
    ids = [machine.id for machine in machines]
    return await bench.the(LoadBalancers).create_load_balancer("balancer", port_for(key), ids, key=key)


async def _told_apart(bench: Bench, *machines: Machine) -> None:
    for number, machine in enumerate(machines):
        await bench.get(machine, GREETING)
        await bench.put(machine, "balanced", b"%d" % number)


@check(LoadBalancers)
async def load_balancer_is_as_ordered(bench: Bench) -> None:
    """A new load balancer is ACTIVE, has a host, the port and the machines that were ordered."""
    specimen, machine = await bench.specimen("load-balancer"), (await bench.specimen("machine")).made
    balancer = specimen.made
    got, wanted = (
        (balancer.status, balancer.port, balancer.machines),
        (
            Status.ACTIVE,
            port_for(specimen.key),
            (machine.id,),
        ),
    )
    expect(got == wanted, f"it is {got}, expected {wanted}")
    expect(balancer.host.strip(), "it has no host")


@check(LoadBalancers)
async def load_balancer_changes_its_machines(bench: Bench) -> None:
    """A load balancer has the machines that it was told last, described and listed; it may have none."""
    module = bench.the(LoadBalancers)
    async with bench.machine_lent() as one, bench.machine_lent("second") as two:
        balancer = await _balancer(bench, one)
        for machines in ([one.id, two.id], [two.id], [two.id], [], [one.id]):
            told = await module.balance(balancer.id, machines)
            expect(set(told.machines) == set(machines), f"it has {told.machines}, expected {machines}")
            expect((told.host, told.port) == (balancer.host, balancer.port), "host and port have changed")
            expect(find(await module.list_load_balancers(), balancer) == told, "it is listed otherwise")


@check(LoadBalancers, Endpoints)
async def load_balancer_shares_out(bench: Bench) -> None:
    """Of many connections to a load balancer, each of its machines gets some, and no other machine does."""
    bench.need_running_machines()
    async with bench.machine_lent() as one, bench.machine_lent("second") as two:
        await _told_apart(bench, one, two)
        balancer = await _balancer(bench, one, two)
        seen: set[bytes] = set()
        for _ in range(TRIES):
            seen.add(await bench.get(balancer, "balanced"))
            if len(seen) == 2:
                break
        expect(seen == {b"0", b"1"}, f"in {TRIES} connections, {sorted(seen)} answered")


@check(LoadBalancers, Endpoints)
async def load_balancer_obeys_at_once(bench: Bench) -> None:
    """A machine that a load balancer was told to leave out gets no more connections."""
    bench.need_running_machines()
    async with bench.machine_lent() as one, bench.machine_lent("second") as two:
        await _told_apart(bench, one, two)
        balancer = await _balancer(bench, one, two)
        await bench.the(LoadBalancers).balance(balancer.id, [two.id])
        deadline = asyncio.get_running_loop().time() + bench.seconds(10)
        while (seen := {await bench.get(balancer, "balanced") for _ in range(10)}) != {b"1"}:
            expect(asyncio.get_running_loop().time() < deadline, f"{sorted(seen)} answer")


@check(LoadBalancers)
async def load_balancer_of_the_unknown_is_refused(bench: Bench) -> None:
    """A load balancer with an unknown machine is refused, and none is left; an unknown balancer is NotFound."""
    module, key, unknown = bench.the(LoadBalancers), bench.key("lost"), bench.unknown("machine")
    call = module.create_load_balancer("lost", port_for(key), [unknown], key=key)
    await refused(call, NotFound, InvalidRequest, what="share out among unknown machines")
    left = [b.id for b in await module.list_load_balancers() if b.key == key]
    expect(not left, f"{left} were made all the same")
    balancer = (await bench.specimen("load-balancer")).made
    await refused(module.balance(balancer.id, [unknown]), NotFound, InvalidRequest, what="balance unknown machines")
    call = module.balance(bench.unknown("load-balancer"), [])
    await refused(call, NotFound, what="change an unknown load balancer")


@check(LoadBalancers, Endpoints)
async def destroyed_load_balancer_leaves_its_machines(bench: Bench) -> None:
    """A destroyed load balancer answers no more, and its machines go on."""
    bench.need_running_machines()
    async with bench.machine_lent() as machine:
        balancer = await _balancer(bench, machine)
        await bench.get(balancer, GREETING)
        await bench.the(LoadBalancers).destroy_load_balancer(balancer.id)
        expect(await bench.is_closed(balancer), "something still answers there")
        expect(await bench.get(machine, GREETING) == GREETING_TEXT, "its machine went with it")
