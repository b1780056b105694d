"""Machines: what they are called, what they run, power, consoles."""

from __future__ import annotations

import asyncio

from vendor_modules.capabilities import Consoles, Power
from vendor_modules.conformance.bench import Bench, expect, find, refused
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT
from vendor_modules.errors import InvalidRequest, NotFound
from vendor_modules.resources import Status


@check()
async def machine_is_as_ordered(bench: Bench) -> None:
    """A new machine is ACTIVE, and has the name, size and image that were ordered."""
    spec = await bench.machine_spec("as ordered")
    machine = await bench.module.create_machine(spec, key=bench.key())
    expect(machine.status is Status.ACTIVE, f"it is {machine.status}")
    got, wanted = (machine.name, machine.size, machine.image), (spec.name, spec.size, spec.image)
    expect(got == wanted, f"name, size and image are {got}, expected {wanted}")


@check()
async def machine_runs_its_service(bench: Bench) -> None:
    """The user data's files are in the machine, and its service answers at the host and port that it has."""
    answer = await bench.get(await bench.machine(), GREETING)
    expect(answer == GREETING_TEXT, f"it answers {answer!r}, expected {GREETING_TEXT!r}")


@check()
async def machine_keeps_a_unicode_name(bench: Bench) -> None:
    """A machine's name may have any letters, and is kept exactly."""
    await _named(bench, 'Grüße, 世界 – ‘naïve’ & "co" 🚀')


@check()
async def machine_keeps_a_short_name(bench: Bench) -> None:
    """A machine's name may have a single character."""
    await _named(bench, "x")


@check()
async def machine_keeps_a_long_name(bench: Bench) -> None:
    """A machine's name may have 255 characters, and none is lost."""
    await _named(bench, "n" * 254 + "!")


async def _named(bench: Bench, name: str) -> None:
    machine = await bench.machine(name=name)
    described = await bench.module.describe_machine(machine.id)
    listed = find(await bench.module.list_machines(), machine)
    for where, seen in (("created", machine), ("described", described), ("listed", listed)):
        expect(seen and seen.name == name, f"{where} as {seen and seen.name!r}, expected {name!r}")


@check()
async def machine_from_an_unknown_image_is_refused(bench: Bench) -> None:
    """A machine from an image that is not there is refused, and none is left."""
    call = bench.machine(image="there-is-none")
    await refused(call, NotFound, InvalidRequest, what="create a machine from an unknown image")
    expect(not await _mine(bench), "a machine was made all the same")


@check()
async def machine_of_an_unknown_size_is_refused(bench: Bench) -> None:
    """A machine of a size that is not sold is refused, and none is left."""
    call = bench.machine(size="there-is-none")
    await refused(call, NotFound, InvalidRequest, what="create a machine of an unknown size")
    expect(not await _mine(bench), "a machine was made all the same")


async def _mine(bench: Bench) -> list[str]:
    return [machine.id for machine in await bench.module.list_machines() if machine.key.startswith(bench.prefix)]


@check()
async def machines_do_not_disturb_each_other(bench: Bench) -> None:
    """Machines made at the same time are different machines, each with its own disk."""
    one, two = await asyncio.gather(bench.machine("one"), bench.machine("two"))
    await bench.get(one, GREETING)
    await bench.put(one, "note", b"only in one")
    expect(await bench.get(two, GREETING) == GREETING_TEXT, "the second does not answer")
    expect((one.host, one.port) != (two.host, two.port), f"both are at {one.host}:{one.port}")
    await bench.module.destroy_machine(one.id)
    expect(await bench.get(two, GREETING) == GREETING_TEXT, "destroying one took the other with it")


@check()
async def destroyed_machine_does_not_answer(bench: Bench) -> None:
    """The service of a destroyed machine does not run any more."""
    machine = await bench.machine()
    await bench.get(machine, GREETING)
    await bench.module.destroy_machine(machine.id)
    expect(await bench.is_closed(machine), f"something still answers at {machine.host}:{machine.port}")


# --- power ---


@check(Power)
async def stopped_machine_does_not_answer(bench: Bench) -> None:
    """A machine that was stopped is STOPPED, and its service does not run."""
    machine = await bench.machine()
    await bench.get(machine, GREETING)
    stopped = await bench.the(Power).stop_machine(machine.id)
    expect(stopped.status is Status.STOPPED, f"it is {stopped.status}")
    expect(await bench.is_closed(machine), f"something still answers at {machine.host}:{machine.port}")


@check(Power)
async def started_machine_has_kept_its_disk(bench: Bench) -> None:
    """A machine that was stopped and started is ACTIVE, answers, and has what was written before."""
    machine, power = await bench.machine(), bench.the(Power)
    await bench.get(machine, GREETING)
    await bench.put(machine, "note", b"written before")
    await power.stop_machine(machine.id)
    started = await power.start_machine(machine.id)
    expect(started.status is Status.ACTIVE, f"it is {started.status}")
    expect(await bench.get(started, "note") == b"written before", "what was written before is not there")


@check(Power)
async def rebooted_machine_has_kept_its_disk(bench: Bench) -> None:
    """A machine that was rebooted is ACTIVE, answers, and has what was written before."""
    machine = await bench.machine()
    await bench.get(machine, GREETING)
    await bench.put(machine, "note", b"written before")
    again = await bench.the(Power).reboot_machine(machine.id)
    expect(again.status is Status.ACTIVE, f"it is {again.status}")
    expect(await bench.get(again, "note") == b"written before", "what was written before is not there")


@check(Power)
async def power_calls_may_be_repeated(bench: Bench) -> None:
    """Starting a started machine and stopping a stopped one is no error."""
    machine, power = await bench.machine(), bench.the(Power)
    await power.start_machine(machine.id)
    await power.stop_machine(machine.id)
    await power.stop_machine(machine.id)
    expect((await bench.module.describe_machine(machine.id)).status is Status.STOPPED, "it is not STOPPED")


@check(Power)
async def stopped_machine_can_be_destroyed(bench: Bench) -> None:
    """A machine need not run to be destroyed."""
    machine = await bench.machine()
    await bench.the(Power).stop_machine(machine.id)
    await bench.module.destroy_machine(machine.id)
    await refused(bench.module.describe_machine(machine.id), NotFound, what="describe the destroyed machine")


@check(Power)
async def power_of_an_unknown_machine_is_not_found(bench: Bench) -> None:
    """Starting or stopping a machine that is not there raises NotFound."""
    await refused(bench.the(Power).start_machine("there-is-none"), NotFound, what="start an unknown machine")
    await refused(bench.the(Power).stop_machine("there-is-none"), NotFound, what="stop an unknown machine")


@check(Consoles)
async def console_shows_what_was_printed(bench: Bench) -> None:
    """What a machine's service prints is in its console soon."""
    machine = await bench.machine()
    await bench.get(machine, GREETING)
    for _ in range(100):
        text = await bench.the(Consoles).console(machine.id)
        if "the test machine is up" in text:
            return
        await asyncio.sleep(0.1)
    expect(False, f"the console has {text[-200:]!r}")
