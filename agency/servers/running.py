"""Running a server that is set up: as a process on a leash, which ends when ours does, however that comes."""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager, contextmanager, suppress
from pathlib import Path

from agency.problems import refuse
from agency.servers.setting_up import Kind, Plan, set_up

READY_WITHIN = 60.0
"""Seconds in which a server takes connections, or has ended; the machine may be busy with other things."""
_LEASH = """
exec 3<&0
"$0" </dev/null >&2 3<&- & server=$!
echo "$server"
{ read -r line <&3; kill "$server"; } >/dev/null 2>&1 & watch=$!
wait "$server"
kill "$watch" 2>/dev/null
"""
"""Runs the server, says its process id, and ends it as soon as standard input is closed."""


def check_installed(kind: Kind) -> None:
    """Refuse where the server's program is not on this machine."""
    program = shutil.which("erl" if kind is Kind.EJABBERD else "prosody")
    if program is None or (kind is Kind.EJABBERD and not any(Path("/usr/lib").glob("*/ejabberd-*/ebin"))):
        raise refuse("not-installed", f"there is no {kind} on this machine", f"install Debian's package {kind}")


@asynccontextmanager
async def temporary_server(kind: Kind, domain: str, state: Path) -> AsyncIterator[RunningServer]:
    """A server that is set up for the block, on free ports of the loopback interface, and runs; in the end it is
    stopped and removed. The component's secret is kept in the state directory."""
    check_installed(kind)
    place = Path(tempfile.mkdtemp(prefix=f"agency-{kind}-"))
    try:
        place.chmod(0o711)  # for root, the server runs as another user
        with reserved_ports(3) as (c2s, s2s, component):
            plan = Plan(kind, domain, place / "server", c2s_port=c2s, s2s_port=s2s, component_port=component)
            await set_up(plan, state)
            server = RunningServer(plan)
            try:
                await asyncio.to_thread(server.start)
                yield server
            finally:
                server.stop()  # without a thread: the loop may have none any more (DBOS takes them along)
    finally:
        shutil.rmtree(place)


@contextmanager
def reserved_ports(count: int, address: str = "127.0.0.1") -> Iterator[list[int]]:
    """Ports that the system gives to nobody else while the block lasts. Whoever is told of one may listen there, with
    SO_REUSEADDR as servers do, and again after a restart: what is bound and does not listen is in nobody's way then
    (socket(7)). A port that is merely free may be another program's a moment later."""
    with ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(count)]
        for each in sockets:
            each.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            each.bind((address, 0))
        yield [each.getsockname()[1] for each in sockets]


class RunningServer:
    """The process of a server that is set up. All calls block."""

    def __init__(self, plan: Plan, environment: Mapping[str, str] | None = None) -> None:
        """Not started yet; what ``environment`` has is added to our own."""
        self.plan = plan
        self._environment = {**os.environ, **(environment or {})}
        self._leash: subprocess.Popen[bytes] | None = None
        self._pid = 0

    @property
    def running(self) -> bool:
        """Whether its process is there."""
        return self._leash is not None and self._leash.poll() is None

    @property
    def pid(self) -> int:
        """Its process."""
        assert self._leash is not None  # noqa: S101 - it was started
        return self._pid

    def start(self) -> None:
        """Start it and wait until it takes connections and accounts; refused, with what it said, if it does not."""
        with tempfile.TemporaryFile() as said:
            self._leash = subprocess.Popen(
                ["/bin/sh", "-c", _LEASH, self.plan.directory / "start"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=said,
                env=self._environment,
                start_new_session=True,  # Ctrl-C is for us, who then end it in order
            )
            assert self._leash.stdout  # noqa: S101 - a pipe was asked for
            self._pid = int(self._leash.stdout.readline())
            deadline = time.monotonic() + READY_WITHIN
            wanted: list[tuple[str, int] | Path] = [*self.addresses()]
            if self.plan.kind is Kind.EJABBERD:
                wanted.append(self.plan.directory / "run" / "api.sock")
            for address in wanted:
                while not _answers(address):
                    if not self.running or time.monotonic() > deadline:
                        self.stop()
                        said.seek(0)
                        raise refuse("server-not-ready", *self._why(said.read().decode(errors="replace")))
                    time.sleep(0.05)

    def addresses(self) -> Iterator[tuple[str, int]]:
        """Where it listens, for clients, other servers and components."""
        yield self.plan.listen[0], self.plan.c2s_port
        yield self.plan.listen[0], self.plan.s2s_port
        yield "127.0.0.1", self.plan.component_port

    def _why(self, said: str) -> tuple[str, str]:
        words = " ".join((said or self.log()).split())[-500:]
        return f"{self.plan.kind} does not start: {words}", "see that the machine has what its package needs"

    def log(self) -> str:
        """The end of what it logged."""
        file = self.plan.directory / "data" / f"{self.plan.kind}.log"
        return file.read_text(errors="replace")[-4000:] if file.exists() else ""

    def stop(self) -> None:
        """End it in order; it may be gone already."""
        if self._leash is None:
            return
        assert self._leash.stdin  # noqa: S101 - pipes were asked for
        assert self._leash.stdout  # noqa: S101
        self._leash.stdin.close()
        try:
            self._leash.wait(READY_WITHIN)
        except subprocess.TimeoutExpired:
            self.kill()
            self._leash.wait()
        self._leash.stdout.close()
        self._leash = None

    def kill(self) -> None:
        """End it as a power cut would."""
        with suppress(ProcessLookupError):
            os.kill(self.pid, signal.SIGKILL)
        self.stop()


def _answers(address: tuple[str, int] | Path) -> bool:
    try:
        if isinstance(address, Path):
            with socket.socket(socket.AF_UNIX) as trial:
                trial.connect(str(address))
        else:
            socket.create_connection(address, 1).close()
    except OSError:
        return False
    return True
