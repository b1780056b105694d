"""The lab's processes: each with a log, and a record of process id and start time, so that only what the lab started is
ever stopped, from whatever process."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ENDS_WITHIN = 12.0
"""Seconds from SIGTERM to SIGKILL."""
UP_WITHIN = 180.0
"""Seconds; the machine that tests run on may be busy with other things."""


class LabFailed(Exception):
    """A part of the lab did not start; says which, and what it logged last."""


class Processes:
    """The processes whose records and logs lie below one directory."""

    def __init__(self, state: Path, environment: Mapping[str, str]) -> None:
        self.records, self.logs, self.environment = state / "pids", state / "log", dict(environment)
        self.records.mkdir(parents=True, exist_ok=True)
        self.logs.mkdir(exist_ok=True)
        self._children: list[subprocess.Popen[bytes]] = []

    def start(self, name: str, command: Sequence[str | Path], **environment: str) -> None:
        """Start a process in a session of its own, unless it runs already."""
        if self.alive(name):
            return
        with self.log(name).open("ab") as log:
            process = subprocess.Popen(
                command,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                cwd="/",
            )
        (self.records / name).write_text(f"{process.pid} {_started(process.pid)}")
        self._children.append(process)

    def launch(self, python: Path, script: Path, project: str, services: list[dict[str, Any]]) -> None:
        """Have ``inside/services.py`` start services; returns when all have been started."""
        with self.log(f"start-{project}").open("ab") as log:
            subprocess.run(
                [python, script, project],
                input=json.dumps(services).encode(),
                env=self.environment,
                stdout=log,
                stderr=log,
                cwd="/",
                check=True,
            )

    def run(self, name: str, command: Sequence[str | Path], **environment: str) -> None:
        """Run a command to its end; :class:`LabFailed` when that is not a good one."""
        with self.log(name).open("ab") as log:
            done = subprocess.run(
                command,
                env=self.environment | environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                cwd="/",
                check=False,
            )
        if done.returncode:
            raise LabFailed(f"{name} ended with status {done.returncode}: {self.tail(name)}")

    def alive(self, name: str) -> int | None:
        """The process id; None when it does not run (any more)."""
        try:
            pid, started = (self.records / name).read_text().split()
        except (FileNotFoundError, ValueError):
            return None
        return int(pid) if _started(int(pid)) == started else None

    def names(self) -> list[str]:
        """All that were started."""
        return sorted(record.name for record in self.records.iterdir())

    def log(self, name: str) -> Path:
        """Where a process's output goes."""
        return self.logs / f"{name}.out"

    def tail(self, name: str) -> str:
        """What a process printed last."""
        path = self.log(name)
        return path.read_text(errors="replace")[-3000:] if path.exists() else ""

    def wait(self, name: str, is_up: Callable[[], bool]) -> None:
        """Wait until a process does its work; :class:`LabFailed` when it ends instead, or takes too long."""
        deadline = time.monotonic() + UP_WITHIN
        while not is_up():
            if not self.alive(name):
                raise LabFailed(f"{name} ended: {self.tail(name)}")
            if time.monotonic() > deadline:
                raise LabFailed(f"{name} is not up after {UP_WITHIN:g} s: {self.tail(name)}")
            time.sleep(0.2)

    def stop(self, names: Iterable[str]) -> None:
        """End these processes and all that is in their sessions: SIGTERM, and SIGKILL for what does not follow."""
        live = {name: pid for name in names if (pid := self.alive(name))}
        for sign in (signal.SIGTERM, signal.SIGKILL):
            for pid in live.values():
                with suppress(ProcessLookupError):
                    os.killpg(pid, sign)
            deadline = time.monotonic() + ENDS_WITHIN
            while live and time.monotonic() < deadline:
                live = {name: pid for name, pid in live.items() if self.alive(name)}
                time.sleep(0.05)
        if live:
            raise LabFailed(f"cannot be ended: {live}")
        self._children = [process for process in self._children if process.poll() is None]


def _started(pid: int) -> str | None:
    """When the process started, in the kernel's ticks; None when there is none, or its parent has yet to note its end.
    A process of ours is waited for here, or it would stay a zombie."""
    with suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] == "Z" else fields[19]


def listens(host: str, port: int) -> bool:
    """Whether somebody listens on that port."""
    try:
        socket.create_connection((host, port), 2).close()
    except OSError:
        return False
    return True


def answers(url: str) -> bool:
    """Whether an HTTP service answers with anything but an error of its own."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=10):
            return True
    except urllib.error.HTTPError as error:
        error.close()
        return error.code < 500
    except OSError:
        return False


def free_port(host: str) -> int:
    """A port that nobody listens on now."""
    with socket.create_server((host, 0)) as free:
        return int(free.getsockname()[1])
