"""How long the command line makes people wait before it does anything."""

from __future__ import annotations

import asyncio
import sys

from benchmarks.measuring import Figure, in_turn


async def _run(*command: str) -> None:
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.DEVNULL)
    if await process.wait():
        raise RuntimeError(f"{command} failed")


async def run() -> list[Figure]:
    """Whole processes, start-up included."""
    agency = (sys.executable, "-m", "agency")
    bare = (sys.executable, "-c", "import typer, rich.console")
    return [
        await in_turn("agency --help", lambda: _run(*agency, "--help"), "import typer, rich", lambda: _run(*bare), 7)
    ]
