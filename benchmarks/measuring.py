"""How we measure: ours and the floor in turn, in one run, medians."""

from __future__ import annotations

import statistics
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass


@dataclass(frozen=True)
class Figure:
    """One thing measured: the median of ours and of the floor's, in seconds."""

    what: str
    seconds: float
    floor: str
    """What the floor is, in words."""
    floor_seconds: float

    @property
    def ratio(self) -> float:
        """Ours over the floor's."""
        return round(self.seconds / self.floor_seconds, 3)


async def in_turn(
    what: str, ours: Callable[[], Awaitable[object]], floor: str, bare: Callable[[], Awaitable[object]], times: int
) -> Figure:
    """Measure ours and the floor alternately, so that both see the same load of the machine."""
    mine: list[float] = []
    theirs: list[float] = []
    for _ in range(times):
        for job, seconds in ((ours, mine), (bare, theirs)):
            started = time.perf_counter()
            await job()
            seconds.append(time.perf_counter() - started)
    return Figure(what, statistics.median(mine), floor, statistics.median(theirs))
