"""What a round of a Contract Net takes: in process, over a real ejabberd on each link, beside floors and stock SPADE.

``python -m benchmarks.contract_net [--json] [--sizes 10 100 1000] [--rounds 15] [--peer-size 100]``

The ways that are measured are those of :mod:`benchmarks.contract_net_rounds`.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys

from rich.console import Console
from rich.table import Table

from agency import logs
from benchmarks.contract_net_rounds import Row, in_process, over_xmpp
from benchmarks.measuring import Figure

SIZES = (10, 100, 1000)
ROUNDS = 15
IN_PROCESS_ROUNDS = 7
PEER_SIZE = 100
"""Stock SPADE agents that are started at most, unless asked for more: 1000 take more than a minute."""


async def run() -> list[Figure]:
    """Rounds in process with 10 and 100 vendors."""
    figures = []
    for count in (10, 100):
        ours, floor = await in_process(count, IN_PROCESS_ROUNDS)
        figures.append(Figure(f"Contract Net, {count} vendors", ours.seconds, floor.way, floor.seconds))
    return figures


async def _measured(sizes: list[int], rounds: int, peer_size: int) -> list[Row]:
    found: list[Row] = []
    for size in sizes:
        found += await in_process(size, min(rounds, IN_PROCESS_ROUNDS))
        found += await over_xmpp(size, rounds, peer=size <= peer_size)
    return found


def main() -> None:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="benchmarks.contract_net", description=__doc__)
    parser.add_argument("--json", action="store_true", help="print JSON")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--sizes", type=int, nargs="+", default=SIZES, help="numbers of vendors")
    parser.add_argument("--peer-size", type=int, default=PEER_SIZE, help="stock SPADE is measured up to this size")
    options = parser.parse_args()
    logs.configure(None)  # stdout is for the figures
    rows = asyncio.run(_measured(options.sizes, options.rounds, options.peer_size))
    if options.json:
        ratios = {f"ratio_to_floor_at_{row.vendors}": row.ratio_to_floor for row in rows if row.way == "component"}
        sys.stdout.write(json.dumps({**ratios, "rows": [vars(row) for row in rows]}, indent=2) + "\n")
    else:
        Console(width=150).print(_table(rows))


def _table(rows: list[Row]) -> Table:
    table = Table(title="A round of a Contract Net, medians", title_justify="left")
    for column in ("vendors", "way", "round", "to floor", "started", "an agent", "growth a round", "CPU a round"):
        table.add_column(column, justify="left" if column in ("way", "CPU a round") else "right")
    for row in rows:
        cpu = ", ".join(f"{process} {1000 * seconds:.0f}" for process, seconds in sorted(row.cpu.items()))
        table.add_row(
            str(row.vendors),
            row.way,
            f"{1000 * row.seconds:.1f} ms",
            _given(row.ratio_to_floor, "{:.2f}"),
            _given(row.started, "{:.2f} s"),
            _given(row.bytes_per_agent, "{:.1f} kB", 1000),
            _given(row.growth_per_round, "{:.1f} kB", 1000),
            f"{cpu} ms",
        )
    return table


def _given(value: float | None, form: str, unit: int = 1) -> str:
    return "" if value is None else form.format(value / unit)


if __name__ == "__main__":
    main()
