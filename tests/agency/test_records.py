"""Records: what vendors did is counted once, whoever tells it, and only what is their fault."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from agency import records
from agency.store.store import Store
from descriptors.messages import Problem


@pytest.fixture
async def store(tmp_path: Path):
    """An empty store."""
    async with Store.open(f"sqlite:///{tmp_path / 'agency.db'}") as opened:
        yield opened


async def test_agreements_and_failures_are_counted(store: Store) -> None:
    """A vendor's record has every agreement, and every incident once."""
    await asyncio.gather(*(records.agreed(store, "alpha") for _ in range(5)))
    for about in ("offer-1", "operation-1", "offer-1"):
        await records.broke(store, "alpha", about=about, code="not-stood-by", application="notes", message="no")
    found = await records.records(store)
    assert list(found) == ["alpha"]
    assert (found["alpha"].agreements, found["alpha"].broken) == (5, 2)
    assert [incident.about for incident in found["alpha"].incidents] == ["offer-1", "operation-1"]


async def test_old_incidents_are_counted_and_forgotten(store: Store) -> None:
    """A record does not grow for ever: the latest incidents are told, all are counted."""
    for number in range(records.KEPT + 3):
        await records.broke(store, "a", about=f"offer-{number}", code="not-stood-by", application="x", message="no")
    (record,) = (await records.records(store)).values()
    assert (record.broken, len(record.incidents)) == (records.KEPT + 3, records.KEPT)
    assert record.incidents[-1].about == f"offer-{records.KEPT + 2}"


@pytest.mark.parametrize(
    ("code", "fault"),
    [
        ("vendor-unavailable", True),
        ("vendor-timed-out", True),
        ("vendor-unauthorized", False),
        ("vendor-unsupported", False),
        ("rewrite-failed", False),
        ("unhealthy", False),
        ("internal-error", False),
    ],
)
def test_only_the_vendor_s_own_failures_are_held_against_it(code: str, fault: bool) -> None:
    """What the deployer's files or our own account made fail is nobody else's fault."""
    assert records.at_fault(Problem(code=code, message="m", remedy="r")) == fault
