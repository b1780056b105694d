"""Machines: what they are, what they run, power, consoles."""

from __future__ import annotations

import asyncio

from vendor_modules.capabilities import Consoles, Endpoints, FirstBoot, Power
from vendor_modules.conformance.bench import Bench, expect, refused
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.subject import GREETING, GREETING_TEXT, MARKER
from vendor_modules.errors import InvalidRequest, NotFound
from vendor_modules.resources import Status

CONSOLE_SECONDS = 20.0


@check()
async def machine_is_as_ordered(bench: Bench) -> None:
    """A new machine is ACTIVE, has the size and image that were ordered, and no volumes."""
    spec, machine = await bench.machine_spec(), (await bench.specimen("machine")).made
    expect(machine.status is Status.ACTIVE, f"it is {machine.status}")
    got, wanted = (machine.size, machine.image, machine.volumes), (spec.size, spec.image, ())
    expect(got == wanted, f"size, image and volumes are {got}, expected {wanted}")


@check(Endpoints)
async def machine_runs_its_service(bench: Bench) -> None:
    """The user data's files are in the machine, and its service answers at the host and port that it has."""
    bench.need_running_machines()
    async with bench.machine_lent() as machine:
        answer = await bench.get(machine, GREETING)
        expect(answer == GREETING_TEXT, f"it answers {answer!r}, expected {GREETING_TEXT!r}")


@check(FirstBoot, Consoles)
async def first_boot_starts_the_service(bench: Bench) -> None:
    """A machine starts at its first boot what its user data says: what that prints is in its console soon."""
    bench.need_running_machines()
    # not the machine that is lent: that may have been stopped since, and a console begins anew with each boot
    await _printed(bench, (await bench.equipped()).machine.id)


@check(Consoles)
async def console_is_text(bench: Bench) -> None:
    """The console of a machine is text, however little; that of an unknown machine is NotFound."""
    consoles = bench.the(Consoles)
    async with bench.machine_lent() as machine:
        expect(isinstance(await consoles.console(machine.id), str), "it is no text")
    await refused(consoles.console(bench.unknown("machine")), NotFound, what="read the console of an unknown machine")


async def _printed(bench: Bench, machine_id: str) -> None:
    loop = asyncio.get_running_loop()
    deadline = loop.time() + bench.seconds(CONSOLE_SECONDS)
    while MARKER not in (text := await bench.the(Consoles).console(machine_id)):
        expect(loop.time() < deadline, f"{MARKER!r} is not in the console, which ends with {text[-200:]!r}")
        await asyncio.sleep(0.2)


@check()
async def machine_from_an_unknown_image_is_refused(bench: Bench) -> None:
    """A machine from an image that is not there is refused, and none is left."""
    call = bench.machine(image=bench.unknown("image"))
    await refused(call, NotFound, InvalidRequest, what="create a machine from an unknown image")
    expect(not await _mine(bench), "a machine was made all the same")


@check()
async def machine_of_an_unknown_size_is_refused(bench: Bench) -> None:
    """A machine of a size that is not sold is refused, and none is left."""
    call = bench.machine(size="there-is-none")
    await refused(call, NotFound, InvalidRequest, what="create a machine of an unknown size")
    expect(not await _mine(bench), "a machine was made all the same")


@check()
async def refused_machine_can_be_ordered_rightly(bench: Bench) -> None:
    """A key whose first order was refused leaves nothing that is taken for the machine: it is refused again."""
    for _ in range(2):
        call = bench.machine(size="there-is-none")
        await refused(call, NotFound, InvalidRequest, what="order again what was refused")
    expect(not await _mine(bench), "a machine was made all the same")


async def _mine(bench: Bench) -> list[str]:
    await asyncio.sleep(bench.module.visible_within)
    return [machine.id for machine in await bench.module.list_machines() if machine.key.startswith(bench.prefix)]


@check(Endpoints)
async def machines_do_not_disturb_each_other(bench: Bench) -> None:
    """Two machines have services and disks of their own: what one is told, the other does not know."""
    bench.need_running_machines()
    async with bench.machine_lent() as one, bench.machine_lent("second") as two:
        expect((one.host, one.port) != (two.host, two.port), f"both are at {one.host}:{one.port}")
        for machine, word in ((one, b"first"), (two, b"second")):
            await bench.get(machine, GREETING)
            await bench.put(machine, "who", word)
        expect(await bench.get(one, "who") == b"first", "the second's disk is the first's")


@check(Endpoints)
async def destroyed_machine_does_not_answer(bench: Bench) -> None:
    """The service of a destroyed machine does not run any more, and the others' do."""
    bench.need_running_machines()
    late = await bench.specimen("machine", "late")
    expect(late.closed, f"something still answers at {late.made.host}:{late.made.port}")
    async with bench.machine_lent() as machine:
        expect(await bench.get(machine, GREETING) == GREETING_TEXT, "another machine went with it")


# --- power ---


@check(Power)
async def stopped_machine_is_stopped(bench: Bench) -> None:
    """A machine that was stopped is STOPPED, described and listed; started again it is ACTIVE."""
    power = bench.the(Power)
    async with bench.machine_lent() as machine:
        stopped = await power.stop_machine(machine.id)
        expect(stopped.status is Status.STOPPED, f"after stopping, it is {stopped.status}")
        listed = {m.id: m.status for m in await bench.module.list_machines()}
        expect(listed.get(machine.id) is Status.STOPPED, f"after stopping, it is listed as {listed.get(machine.id)}")
        started = await power.start_machine(machine.id)
        expect(started.status is Status.ACTIVE, f"after starting, it is {started.status}")


@check(Power, Endpoints)
async def stopped_machine_does_not_answer(bench: Bench) -> None:
    """The service of a machine that was stopped does not run."""
    bench.need_running_machines()
    async with bench.machine_lent() as machine:
        await bench.get(machine, GREETING)
        await bench.the(Power).stop_machine(machine.id)
        expect(await bench.is_closed(machine), f"something still answers at {machine.host}:{machine.port}")


@check(Power, Endpoints)
async def started_machine_has_kept_its_disk(bench: Bench) -> None:
    """A machine that was stopped and started answers, and has what was written before."""
    bench.need_running_machines()
    async with bench.machine_lent() as machine:
        await bench.get(machine, GREETING)
        await bench.put(machine, "note", b"written before stopping")
        await bench.the(Power).stop_machine(machine.id)
        started = await bench.the(Power).start_machine(machine.id)
        expect(await bench.get(started, "note") == b"written before stopping", "what was written before is not there")


@check(Power)
async def rebooted_machine_is_active(bench: Bench) -> None:
    """A machine that was rebooted is ACTIVE, and the same one."""
    async with bench.machine_lent() as machine:
        again = await bench.the(Power).reboot_machine(machine.id)
        expect((again.id, again.status) == (machine.id, Status.ACTIVE), f"it is {again.id}, {again.status}")


@check(Power, Endpoints)
async def rebooted_machine_has_kept_its_disk(bench: Bench) -> None:
    """A machine that was rebooted answers, and has what was written before."""
    bench.need_running_machines()
    async with bench.machine_lent() as machine:
        await bench.get(machine, GREETING)
        await bench.put(machine, "reboot-note", b"written before rebooting")
        again = await bench.the(Power).reboot_machine(machine.id)
        expect(
            await bench.get(again, "reboot-note") == b"written before rebooting", "what was written before is not there"
        )


@check(Power)
async def power_calls_may_be_repeated(bench: Bench) -> None:
    """Starting a started machine and stopping a stopped one is no error."""
    power = bench.the(Power)
    async with bench.machine_lent() as machine:
        await power.start_machine(machine.id)
        await power.stop_machine(machine.id)
        again = await power.stop_machine(machine.id)
        expect(again.status is Status.STOPPED, f"it is {again.status}")


@check(Power)
async def power_of_an_unknown_machine_is_not_found(bench: Bench) -> None:
    """Starting, stopping or rebooting a machine that is not there raises NotFound."""
    power, unknown = bench.the(Power), bench.unknown("machine")
    for call, what in (
        (power.start_machine, "start"),
        (power.stop_machine, "stop"),
        (power.reboot_machine, "reboot"),
    ):
        await refused(call(unknown), NotFound, what=f"{what} an unknown machine")


@check(Power)
async def stopped_machine_can_be_destroyed(bench: Bench) -> None:
    """A machine need not run to be destroyed."""
    async with bench.machine_lent("second", stopped=True) as machine:
        bench.lender.take("machine", "second")
        await bench.module.destroy_machine(machine.id)
        await refused(bench.module.describe_machine(machine.id), NotFound, what="describe the destroyed machine")
