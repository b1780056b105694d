"""Other processes of a benchmark: spoken to in lines of JSON, and what they take of the processor and of memory."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import subprocess
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

_TICKS = os.sysconf("SC_CLK_TCK")


class Child:
    """A module of ours that runs as a process of its own. It is told what to be in a line, with all secrets, and says
    when it is that; then it answers each further line."""

    def __init__(self, module: str, **what: Any) -> None:
        command = [sys.executable, "-m", module]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        self.pid = self._process.pid
        self.told = self.ask(what)

    def ask(self, line: dict[str, Any]) -> dict[str, Any]:
        """Say something and read the answer."""
        if self._process.stdin is None or self._process.stdout is None:
            raise RuntimeError("it is spoken to through pipes")
        self._process.stdin.write(json.dumps(line) + "\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def end(self) -> None:
        """Have it end."""
        self._process.communicate()


async def questions() -> AsyncIterator[dict[str, Any]]:
    """In a child: the lines after the first, until there are no more."""
    while line := await asyncio.to_thread(sys.stdin.readline):
        yield json.loads(line)


def say(**what: float) -> None:
    """In a child: answer."""
    sys.stdout.write(json.dumps(what) + "\n")
    sys.stdout.flush()


def resident(pid: int | str = "self") -> int:
    """Bytes of memory that a process has resident."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * resource.getpagesize()


def cpu_seconds(pid: int | str = "self") -> float:
    """Seconds of the processor that a process, with all its threads, has used since it began."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / _TICKS
