"""From what was measured to the figures that we are held to, and the report that has both."""

from __future__ import annotations

import os
import platform
import statistics
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

from rich.console import Console
from rich.table import Table

from benchmarks.transfer_lab.inputs import Content, Name
from benchmarks.transfer_lab.measuring import Result
from benchmarks.transfer_lab.ours import Agency, AgencyUncompressed
from benchmarks.transfer_lab.tasks import TASKS

MB, MIB, GB = 10**6, 2**20, 10**9
_OURS = (Agency.name, AgencyUncompressed.name)
_LIMIT = "line-rate limit"


@dataclass(frozen=True)
class Figure:
    """One of the figures that we are held to."""

    what: str
    unit: str
    ours: float
    aim: str
    beside: dict[str, float]
    """What others need, or a limit that nobody passes who sends the content as it is; by name."""


@dataclass
class Measured:
    """Everything that was measured."""

    scale: float
    contents: dict[Name, Content]
    missing: dict[str, dict[str, str]]
    """Contenders that are not measured: the programs that they lack, with their Debian packages."""
    goodput: defaultdict[str, list[float]] = field(default_factory=lambda: defaultdict(list))
    """Bytes a second of each way, each round."""
    runs: defaultdict[tuple[str, str], list[Result]] = field(default_factory=lambda: defaultdict(list))
    """By task and contender, each round."""
    load: list[float] = field(default_factory=list)
    """The machine's load average before each round and after the last."""

    def length(self, task: str) -> int:
        """Bytes of the task's contents, holes left out."""
        return sum(self.contents[name].allocated for name in TASKS[task].contents)

    def limit(self, task: str) -> float:
        """Seconds that the contents take on the line if they are sent as they are."""
        return self.length(task) / statistics.median(self.goodput[TASKS[task].way.name])

    def medians(self, task: str, what: str, unit: float = 1) -> dict[str, float]:
        """Of each contender at the task, in that unit."""
        return {
            name: statistics.median(getattr(run, what) for run in runs) / unit
            for (of, name), runs in self.runs.items()
            if of == task
        }


def report(measured: Measured) -> dict[str, Any]:
    """All that is known, for JSON."""
    walls = measured.medians("first", "seconds")
    peers = {name: seconds for name, seconds in walls.items() if name not in _OURS}
    best = min(peers, key=lambda name: peers[name], default=None)
    return {
        "headline_ratio_to_best_peer": round(walls[Agency.name] / peers[best], 3) if best else None,
        "best_peer": best,
        "missing": measured.missing,
        "scale": measured.scale,
        "rounds": max(len(runs) for runs in measured.runs.values()),
        "caches": "sources in the page cache, nothing waiting to be written, the destination gone before each run",
        "machine": {
            "processors": os.cpu_count(),
            "memory_bytes": os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"),
            "kernel": platform.release(),
            "load_average": measured.load,
        },
        "inputs": {
            name: {"bytes": each.path.stat().st_size, "allocated_bytes": each.allocated}
            for name, each in measured.contents.items()
        },
        "goodput_bytes_per_second": measured.goodput,
        "figures": [asdict(figure) for figure in _figures(measured)],
        "runs": [
            {
                "task": task,
                "contender": name,
                "way": TASKS[task].way.name,
                "bytes": measured.length(task),
                **asdict(run),
            }
            for (task, name), runs in measured.runs.items()
            for run in runs
        ],
    }


def _figures(measured: Measured) -> Iterator[Figure]:
    """Those whose runs there are; aims that are amounts are for the scale."""
    tasks, scale = {task for task, _ in measured.runs}, measured.scale
    if "first" in tasks:
        limit = {_LIMIT: measured.limit("first")}
        yield _figure("disk + volume, 1 Gbit/s", "s", measured.medians("first", "seconds") | limit, f"≤ {30 * scale:g}")
        cpu = measured.medians("first", "cpu_seconds", measured.length("first") / GB)
        yield _figure("processor, both sides, zstd", "s/GB", cpu, "≤ 6.5")
        yield _figure("processor, both sides, no zstd", "s/GB", cpu, "≤ 4", AgencyUncompressed.name)
    if "incompressible" in tasks:
        ratio = measured.medians("incompressible", "seconds", measured.limit("incompressible"))
        yield _figure("incompressible, 1 Gbit/s", f"× {_LIMIT}", ratio, "≤ 1.06")
    if "changed" in tasks:
        yield _figure("after 5 % changed", "s", measured.medians("changed", "seconds"), f"≤ {5 * scale:g}")
        wire = measured.medians("changed", "wire_bytes", MB)
        yield _figure("after 5 % changed, on the wire", "MB", wire, f"≤ {140 * scale:g}")
    if "duplicated" in tasks:
        limit = {_LIMIT: measured.limit("duplicated")}
        yield _figure("ten copies, 1 Gbit/s", "s", measured.medians("duplicated", "seconds") | limit, "")
    if "unshaped" in tasks:
        rates = {
            name: measured.length("unshaped") / MB / s for name, s in measured.medians("unshaped", "seconds").items()
        }
        yield _figure("unshaped, no zstd", "MB/s", rates, "≥ nbdcopy", AgencyUncompressed.name)
    if {"near", "far"} <= tasks:
        near, far = measured.medians("near", "seconds"), measured.medians("far", "seconds")
        yield _figure("rate at 20 ms", "× that at 0 ms", {name: near[name] / far[name] for name in near}, "≥ 0.9")
    peaks = [
        peak
        for (_, name), runs in measured.runs.items()
        for run in runs
        for peak in run.peak_memory_bytes.values()
        if name in _OURS
    ]
    yield _figure("memory of a proxy, at most", "MiB", {Agency.name: max(peaks, default=0) / MIB}, "≤ 128")


def _figure(what: str, unit: str, values: dict[str, float], aim: str, whose: str = Agency.name) -> Figure:
    return Figure(what, unit, values[whose], aim, {name: value for name, value in values.items() if name not in _OURS})


def show(report: dict[str, Any]) -> None:
    """The figures, and what each run took, as tables."""
    console = Console(width=max(Console().width, 120))
    machine = report["machine"]
    title = f"Transfers at {report['scale']:g} of their sizes: medians of {report['rounds']} rounds"
    table = Table(title=title, title_justify="left")
    for column in ("what", "ours", "", "aim", "beside"):
        table.add_column(column, justify="right" if column == "ours" else "left")
    for figure in report["figures"]:
        others = sorted(figure["beside"].items(), key=lambda each: each[1])
        beside = " · ".join(f"{name} {value:.3g}" for name, value in others)
        table.add_row(figure["what"], f"{figure['ours']:.3g}", figure["unit"], figure["aim"], beside)
    console.print(table, _runs(report["runs"], machine["processors"]))
    for name, gone in report["missing"].items():
        console.print(f"{name} was not measured: {', '.join(gone)} missing")
    load = ", ".join(f"{each:.1f}" for each in machine["load_average"])
    console.print(f"{machine['processors']} processors drive both ends; load average {load}; {report['caches']}.")
    if report["best_peer"]:
        ratio = f"[bold]{report['headline_ratio_to_best_peer']}[/bold]"
        console.print(f"Disk + volume at 1 Gbit/s, ours over the best peer's ({report['best_peer']}): {ratio}")


def _runs(runs: list[dict[str, Any]], processors: int) -> Table:
    table = Table(title="Each contender: medians; processors busy: with it, with all", title_justify="left")
    for column in (
        "task",
        "contender",
        "s",
        "of it syncing",
        "MB",
        "on the wire",
        "CPU s",
        "busy",
        "",
        "largest process",
    ):
        table.add_column(column, justify="left" if column in ("task", "contender") else "right")
    grouped: defaultdict[tuple[str, str], list[dict[str, Any]]] = defaultdict(list)
    for run in runs:
        grouped[run["task"], run["contender"]].append(run)
    for (task, contender), each in grouped.items():
        seconds, copied, cpu, others, wire, length = (
            statistics.median(run[key] for run in each)
            for key in ("seconds", "copied_seconds", "cpu_seconds", "others_cpu_seconds", "wire_bytes", "bytes")
        )
        memory = max((peak for run in each for peak in run["peak_memory_bytes"].values()), default=0)
        amounts = f"{seconds:.2f}", f"{seconds - copied:.2f}", f"{length / MB:.0f}", f"{wire / MB:.1f}", f"{cpu:.2f}"
        busy = f"{cpu / seconds / processors:.0%}", f"{(cpu + others) / seconds / processors:.0%}"
        table.add_row(task, contender, *amounts, *busy, f"{memory / MIB:.0f} MiB")
    return table
