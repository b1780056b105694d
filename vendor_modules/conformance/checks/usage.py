"""Usage: what is used is told, with what it costs."""

from __future__ import annotations

from datetime import timedelta

from descriptors.base import utc_now
from vendor_modules.capabilities import UsageReports
from vendor_modules.conformance.bench import Bench, expect
from vendor_modules.conformance.registry import check
from vendor_modules.resources import Usage

CLOCKS_DIFFER = timedelta(minutes=2)


async def _of(bench: Bench, resource: str) -> list[Usage]:
    return [record for record in await bench.the(UsageReports).usage() if record.resource == resource]


@check(UsageReports)
async def running_machine_is_in_the_usage(bench: Bench) -> None:
    """A machine that runs has a usage record that has not ended, in the catalogue's currency."""
    async with bench.machine_lent() as machine:
        records = [r for r in await _of(bench, machine.id) if r.kind == "machine" and r.ended is None]
        expect(records, "there is no record of it that has not ended")
    record, currency = records[0], (await bench.module.catalogue()).currency
    expect(record.started < utc_now() + CLOCKS_DIFFER, f"it started {record.started}")
    expect(record.cost >= 0 and record.quantity >= 0, f"it cost {record.cost} for {record.quantity}")
    expect(record.currency == currency, f"it is in {record.currency}, the catalogue in {currency}")
    expect(record.unit.strip(), "its quantity has no unit")


@check(UsageReports)
async def destroyed_machine_stays_in_the_usage(bench: Bench) -> None:
    """The usage records of a machine that was destroyed have ended, after they began, and stay."""
    records = await _of(bench, (await bench.specimen("machine", "late")).made.id)
    expect(records, "there is no record of it any more")
    for record in records:
        expect(record.ended is not None and record.ended >= record.started, f"{record!r} has not ended")


@check(UsageReports)
async def usage_can_be_asked_since(bench: Bench) -> None:
    """Usage since a moment has what runs, and nothing that had ended before."""
    gone, later = (await bench.specimen("machine", "late")).made, utc_now() + timedelta(hours=1)
    async with bench.machine_lent() as running:
        seen = {record.resource for record in await bench.the(UsageReports).usage(later)}
        expect(running.id in seen, "what runs is missing")
    expect(gone.id not in seen, "what had ended is there")
