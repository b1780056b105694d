"""What a soak counts, and whether what must hold did: by what its parts saw, and by the stores of both sides."""

from __future__ import annotations

import asyncio
import json
import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from spade.message import Message
from sqlalchemy import select

from agency.messaging.contract_net import Heard
from agency.messaging.conversations import OPEN
from agency.settings import Settings
from agency.state import opened
from agency.store.models import ConversationRow
from agency.store.store import Store
from benchmarks.contract_net_soak_vendors import STEADY
from benchmarks.processes import resident
from descriptors.base import utc_now
from descriptors.cfp import CallForProposals
from descriptors.documents import digest
from descriptors.sla import Agreement, Offer

OVERRUN = 5.0
"""Seconds after its deadline in which a round must be over, on a machine that is busy with other things."""
BACK_WITHIN = 15.0
"""Seconds after the server is back in which every vendor must answer again."""
FLAT = 0.05
"""The part of its memory by which a process may grow over the last two thirds of a soak."""
JUDGED_FROM = 120.0
"""Seconds; what grows in a shorter soak is what fills up once."""


@dataclass
class Trial:
    """What was done, and what came of it."""

    begun: int = 0
    """Rounds."""
    finished: int = 0
    kills: int = 0
    late_answers: int = 0
    answers: Counter[str] = field(default_factory=Counter)
    """Offers, and the codes of reasons why there was none."""
    longest_overrun: float = -math.inf
    """Seconds after its deadline at which a round was over."""
    longest_kept: float = -math.inf
    """Seconds after its deadline at which a round's offers were in the store, which takes as long as the disk does."""
    lost: list[str] = field(default_factory=list)
    """Rounds that failed, that left out a vendor, or in which one made no offer although it was there all the time."""
    outages: list[list[float]] = field(default_factory=list)
    """From when to when the server was away, by the monotonic clock."""
    tried: dict[str, dict[str, str]] = field(default_factory=lambda: defaultdict(dict))
    """For each call, what came of each offer of it that was accepted: its id, and the agreement's digest or a code."""
    codes: Counter[str] = field(default_factory=Counter)
    stuck: list[str] = field(default_factory=list)
    """Conversations that never came to an end."""

    def late(self, _: Message) -> None:
        """An answer came when its round was over."""
        self.late_answers += 1

    def ended(self, call: CallForProposals, began: float, heard: Mapping[str, Heard], vendors: Sequence[str]) -> None:
        """A round is over, that began at that moment (of the monotonic clock)."""
        self.finished += 1
        self.longest_overrun = max(self.longest_overrun, (utc_now() - call.reply_by).total_seconds())
        if heard.keys() != set(vendors):
            self.lost.append(f"{call.id}: neither an answer nor a reason of {set(vendors) - heard.keys()}")
            return
        for each in heard.values():
            self.answers["offer" if isinstance(each.answer, Offer) else getattr(each.answer, "code", "refusal")] += 1
        disturbed = any(since < time.monotonic() and began < until + BACK_WITHIN for since, until in self.outages)
        for jid in vendors[:STEADY]:
            if not disturbed and not isinstance(heard[jid].answer, Offer):
                self.lost.append(f"{call.id}: {jid} was there, and made no offer: {heard[jid].answer}")

    def stood(self, call: CallForProposals) -> None:
        """The round's offers are kept."""
        self.longest_kept = max(self.longest_kept, (utc_now() - call.reply_by).total_seconds())

    def report(self) -> dict[str, Any]:
        """In JSON's types."""
        return {
            "rounds": self.finished,
            "answers": dict(self.answers),
            "longest_overrun_seconds": round(self.longest_overrun, 2),
            "longest_until_kept_seconds": round(self.longest_kept, 2),
            "late_answers": self.late_answers,
            "vendors_killed": self.kills,
            "server_outages_seconds": [round(until - since, 1) for since, until in self.outages],
            "acceptances": dict(self.codes),
            "calls_with_acceptances": len(self.tried),
        }

    def broken(self) -> list[str]:
        """What did not hold, by what was seen."""
        found = [f"never settled: {each}" for each in self.stuck]
        found += [f"lost: {each}" for each in self.lost]
        if self.longest_overrun > OVERRUN:
            found.append(f"a round ended {self.longest_overrun:.1f} s after its deadline")
        return found


class Memory:
    """The resident memory of processes (by name: their ids), watched."""

    def __init__(self, processes: Mapping[str, int | str]) -> None:
        self._processes = processes
        self._seen: dict[str, list[tuple[float, int]]] = {name: [] for name in processes}

    async def watch(self) -> None:
        """Look once a second, until cancelled."""
        while True:
            for name, pid in self._processes.items():
                self._seen[name].append((time.monotonic(), resident(pid)))
            await asyncio.sleep(1)

    def report(self) -> list[dict[str, Any]]:
        """In JSON's types; the slope is that of a line fitted (least squares) to the last two thirds."""
        return [
            {
                "process": name,
                "first_mb": round(seen[0][1] / 1e6, 1),
                "after_a_third_mb": round(seen[len(seen) // 3][1] / 1e6, 1),
                "last_mb": round(seen[-1][1] / 1e6, 1),
                "kb_per_minute": round(60 * _slope(seen) / 1000, 1),
            }
            for name, seen in self._seen.items()
        ]

    def broken(self, seconds: float) -> list[str]:
        """Who grew."""
        grown = {name: _slope(seen) * seconds * 2 / 3 / seen[-1][1] for name, seen in self._seen.items()}
        return [
            f"memory of {name} grew by {100 * part:.1f} % over the last two thirds"
            for name, part in grown.items() if part > FLAT and seconds >= JUDGED_FROM
        ]  # fmt: skip


def _slope(seen: list[tuple[float, int]]) -> float:
    """Bytes a second."""
    last = seen[len(seen) // 3 :]
    middle, mean = (sum(column) / len(last) for column in zip(*last, strict=True))
    spread = sum((at - middle) ** 2 for at, _ in last)
    return sum((at - middle) * (size - mean) for at, size in last) / spread if spread else 0.0


def errors_logged(folder: Path) -> list[str]:
    """What any process logged as an error: there is nothing in a soak that ours should not be able to cope with."""
    lines = [json.loads(line) for file in folder.glob("*/agency.log*") for line in file.read_text().splitlines()]
    errors = Counter(f"{each['event']} {each.get('exception', '')}" for each in lines if each["level"] == "error")
    return [f"logged {times} times: {text}" for text, times in errors.items()]


async def broken(trial: Trial, store: Store, vendors: Mapping[str, Path]) -> list[str]:
    """What does not hold in the stores: the broker's, and those in the vendors' state directories."""
    found = [f"broker: {each}" for each in await _unfinished(store)]
    ours = await _agreements(store)
    theirs: dict[str, str] = {}
    for jid, state in vendors.items():
        async with opened(Settings(state=state)) as (its, _):
            found += [f"{jid}: {each}" for each in await _unfinished(its)]
            theirs |= await _agreements(its)
    for call, tried in trial.tried.items():
        here, there = ({offer: made[offer] for offer in tried if offer in made} for made in (ours, theirs))
        said = {offer: outcome for offer, outcome in tried.items() if outcome.startswith("blake3:")}
        if not (here == there == said and len(said) <= 1):
            found.append(f"{call}: agreements {here} here, {there} there, though acceptances came to {tried}")
    asked = {offer for tried in trial.tried.values() for offer in tried}
    found += [f"an agreement that nobody asked for: {each}" for each in (ours.keys() | theirs.keys()) - asked]
    return found


async def _agreements(store: Store) -> dict[str, str]:
    """The digests of those that bind, by offer."""
    return {each.offer: digest(each) for each in await store.all(Agreement) if each.state == "observed"}


async def _unfinished(store: Store) -> list[str]:
    """Conversations that are neither over nor expired."""
    row, final = ConversationRow, ("agreed", "rejected", "cancelled", "failed", "done", "refused")
    async with store.transaction() as session:
        left = await session.scalars(select(row).where(row.state.not_in(final)))
        now = utc_now()
        return [
            f"{each.id} with {each.peer}: {each.state}" for each in left if each.state in OPEN or each.expires > now
        ]
