"""What a question about prices costs as a whole process, beside the same question put to SQLite and to JSON."""

from __future__ import annotations

import asyncio
import sys
import tempfile
from pathlib import Path

from benchmarks.measuring import Figure, in_turn
from vendor_modules.catalog import Catalog
from vendor_modules.catalog.storage import shipped_files

QUESTION = ("--min-cores", "4", "--min-memory", "16", "--region", "eu", "--sort", "price", "--json")

FLOOR = """
import sqlite3, sys
question = '''SELECT p.provider, p.region, size, cores, memory_mib, nano, currency, os, s.name, date
    FROM prices JOIN places p ON p.id = place JOIN sources s ON s.id = source
    WHERE place IN (SELECT id FROM places WHERE area = 'eu') AND cores >= 4 AND memory_mib >= 16384
    AND os IN ('linux', '') AND NOT preemptible AND nano IS NOT NULL
    ORDER BY nano, p.provider, p.region, size LIMIT 20'''
for row in sqlite3.connect(sys.argv[1]).execute(question):
    print(row)
"""
"""The bare question: no check that the catalogue is up to date, no command line."""

PEER = """
import json, runpy, sys
prices = json.load(open(sys.argv[1]))["compute"]["ec2_linux"]
types = runpy.run_path(sys.argv[2])["INSTANCE_TYPES"]
fitting = {name for name, of in types.items() if int(of["extra"]["vcpu"]) >= 4 and of["ram"] >= 16384}
rows = [(price, region, name) for name in fitting for region, price in prices.get(name, {}).items()
        if region.startswith("eu-") and price]
for row in sorted(rows)[:20]:
    print(row)
"""
"""Without a catalogue: EC2's part of the question, answered from libcloud's own files."""


async def _run(*command: str | Path) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError(f"{command} failed")


async def run() -> list[Figure]:
    """Whole processes, start-up included; the catalogue is there already."""
    with tempfile.TemporaryDirectory() as state:
        folder = Path(state) / "prices"
        Catalog.open(folder)
        agency = (sys.executable, "-m", "agency", "prices", *QUESTION, "--state", state)
        floor = (sys.executable, "-c", FLOOR, folder / "catalogue.db")
        peer = (sys.executable, "-c", PEER, *shipped_files())
        return [
            await in_turn("agency prices", lambda: _run(*agency), "SQLite, the bare question", lambda: _run(*floor), 7),
            await in_turn(
                "agency prices", lambda: _run(*agency), "EC2 only, from libcloud's JSON", lambda: _run(*peer), 7
            ),
        ]
