"""The observer's command in the virtual environment that it needs, made by `make observer` when it is wanted first."""

from __future__ import annotations

import fcntl
import json
import os
import queue
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.labs.agency import Answer
from tests.labs.xmpp import XmppServer

ROOT = Path(__file__).parent.parent.parent
INSTALLED_WITHIN = 550.0
"""Seconds that pip has."""
SOON = 60.0
"""Seconds; the machine that tests run on may be busy."""

Json = dict[str, Any]


def installed() -> Path:
    """The command; skips where it cannot be installed."""
    if sys.version_info >= (3, 12):
        pytest.skip("aioxmpp needs Python 3.11")
    with (ROOT / "Makefile").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # one installs, others wait for it
        made = subprocess.run(
            ["make", "observer", f"PYTHON={sys.executable}"],
            cwd=ROOT, capture_output=True, text=True, timeout=INSTALLED_WITHIN, check=False,
        )  # fmt: skip
    if made.returncode != 0:
        pytest.skip(f"the observer cannot be installed: {made.stderr.strip()[-300:]}")
    return ROOT / ".venv-observer" / "bin" / "agency-observer"


class Observer:
    """Somebody with an account at a server, who runs the command."""

    def __init__(self, command: Path, server: XmppServer, name: str) -> None:
        self.jid, self.password = server.account(name)
        self._command = command
        host, port = server.c2s
        self.options = ["--jid", self.jid, "--server", f"{host}:{port}", "--ca", str(server.ca)]
        self.environment = {**os.environ, "AGENCY_OBSERVER_PASSWORD": self.password}

    def run(self, *args: str | Path, **environment: str) -> Answer:
        """Run a command to its end."""
        done = subprocess.run(
            [self._command, *args, *self.options],
            capture_output=True, text=True, timeout=2 * SOON, stdin=subprocess.DEVNULL, check=False,
            env=self.environment | environment,
        )  # fmt: skip
        assert self.password not in done.stdout + done.stderr
        return Answer(done.returncode, done.stdout, done.stderr)

    @contextmanager
    def watching(self, *args: str) -> Iterator[Watching]:
        """Run ``watch`` while the block runs."""
        process = subprocess.Popen(
            [self._command, "watch", *args, *self.options],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, env=self.environment,
        )  # fmt: skip
        watching = Watching(process)
        try:
            yield watching
        finally:
            process.kill()
            watching.close()


class Watching:
    """A ``watch`` that runs: what it prints, line by line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self._printed: queue.Queue[str] = queue.Queue()
        self._said: queue.Queue[str] = queue.Queue()
        streams = ((process.stdout, self._printed), (process.stderr, self._said))
        self._threads = [threading.Thread(target=self._listen, args=each, daemon=True) for each in streams]
        for thread in self._threads:
            thread.start()

    @staticmethod
    def _listen(stream: Any, lines: queue.Queue[str]) -> None:
        for line in stream:
            lines.put(line.rstrip("\n"))

    def printed(self, fits: Callable[[str], bool]) -> str:
        """The next line on standard output that fits."""
        return self._next(self._printed, fits)

    def has_printed(self, words: tuple[str, ...]) -> bool:
        """Whether each of the words is somewhere in the lines on standard output that nobody has taken."""
        with self._printed.mutex:
            printed = "\n".join(self._printed.queue)
        return all(word in printed for word in words)

    def event(self, kind: str, **more: str) -> Json:
        """The next event of that kind that ``watch --json`` prints; others before it are passed over."""
        wanted = {"kind": kind, **more}
        return json.loads(self.printed(lambda line: wanted.items() <= json.loads(line).items()))

    def said(self, words: str) -> str:
        """The next line on standard error with those words."""
        return self._next(self._said, lambda line: words in line)

    def _next(self, lines: queue.Queue[str], fits: Callable[[str], bool]) -> str:
        deadline, passed = time.monotonic() + SOON, []
        while True:
            try:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                more = [self._said.get_nowait() for _ in range(self._said.qsize())]
                raise AssertionError(f"waited in vain; it printed {passed}, and said {more}") from None
            if fits(line):
                return line
            passed.append(line)

    def close(self) -> None:
        """Wait for its end, and close what it printed to."""
        self.process.wait(SOON)
        for thread in self._threads:
            thread.join(SOON)
        for stream in (self.process.stdout, self.process.stderr):
            assert stream is not None
            stream.close()
