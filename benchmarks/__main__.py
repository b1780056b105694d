"""``python -m benchmarks [NAME …] [--json]``: run the benchmarks and print a table, or JSON."""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from dataclasses import asdict

from rich.console import Console
from rich.table import Table

from benchmarks import contract_net, describes, documents, prices, startup
from benchmarks.measuring import Figure

BENCHMARKS = {
    "startup": startup.run,
    "documents": documents.run,
    "contract-net": contract_net.run,
    "describes": describes.run,
    "prices": prices.run,
}


def main() -> None:
    """Run the benchmarks named, or all."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", choices=[*BENCHMARKS, []], help="which; by default all")
    parser.add_argument("--json", action="store_true", help="print JSON")
    options = parser.parse_args()
    figures: list[Figure] = []
    for name in options.names or BENCHMARKS:
        figures += asyncio.run(BENCHMARKS[name]())
    if options.json:
        sys.stdout.write(json.dumps({"figures": [asdict(f) | {"ratio": f.ratio} for f in figures]}, indent=2) + "\n")
    else:
        show(figures)


def show(figures: list[Figure]) -> None:
    """The figures as a table; medians of several runs, ours and the floor's in turn."""
    table = Table(title="Benchmarks (medians; ours and the floor measured in turn)", title_justify="left")
    for column in ("what", "ours", "floor", "ratio", "the floor is"):
        table.add_column(column, justify="right" if column in ("ours", "floor", "ratio") else "left")
    for figure in figures:
        ours, floor = (f"{1000 * seconds:.2f} ms" for seconds in (figure.seconds, figure.floor_seconds))
        table.add_row(figure.what, ours, floor, f"{figure.ratio:.2f}", figure.floor)
    Console().print(table)


main()
