"""One run: everything that both sides start is in one control group, and is gone when the run ends.

Wall time is from the command to the moment when what was written is durable: whoever does not ask the disk for that
himself has it asked for him. Processor time is the group's, so it counts both sides, and every process that they start.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Self

from benchmarks.transfer_lab.inputs import Content, digest, parts
from benchmarks.transfer_lab.network import Network, Site, Way

READY_WITHIN = 60.0
"""Seconds for a server to listen."""
SLOWEST = 5_000_000
"""Bytes a second below which a run counts as hanging."""
_SAMPLE_EVERY = 0.1
_ERRORS = 2000


class Group:
    """A control group (version 2; its processor time is counted whatever controllers there are)."""

    def __init__(self, name: str) -> None:
        self._folder = _hierarchy() / f"agency-transfer-{os.getpid()}-{name}"

    def __enter__(self) -> Self:
        self._folder.mkdir()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()
        while "populated 1" in (self._folder / "cgroup.events").read_text():
            time.sleep(0.01)
        self._folder.rmdir()

    def end(self) -> None:
        """End all processes of the group, at once."""
        (self._folder / "cgroup.kill").write_text("1")

    def enter(self) -> list[str]:
        """What to put before a command that is to run in the group."""
        return ["sh", "-c", 'echo $$ > "$0" && exec "$@"', str(self._folder / "cgroup.procs")]

    def cpu_seconds(self) -> float:
        """What all processes that are or were in the group have used, in user space and in the kernel."""
        counted = dict(line.split() for line in (self._folder / "cpu.stat").read_text().splitlines())
        return int(counted["usage_usec"]) / 1e6

    def processes(self) -> list[int]:
        """The process numbers of those that are in the group now."""
        return [int(number) for number in (self._folder / "cgroup.procs").read_text().split()]


def _hierarchy() -> Path:
    for line in Path("/proc/self/mounts").read_text().splitlines():
        _, place, kind, *_ = line.split()
        if kind == "cgroup2":
            return Path(place)
    raise RuntimeError("no cgroup2 file system is mounted; mount -t cgroup2 cgroup2 /sys/fs/cgroup/unified")


class Memory:
    """Watches the processes of a group; what each had resident at most (VmHWM), in bytes, by name and number."""

    def __init__(self, group: Group) -> None:
        self.peaks: dict[str, int] = {}
        self._group, self._over = group, threading.Event()
        self._watching = threading.Thread(target=self._watch)

    def __enter__(self) -> Self:
        self._watching.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._over.set()
        self._watching.join()

    def _watch(self) -> None:
        while not self._over.wait(_SAMPLE_EVERY):
            for number in self._group.processes():
                try:
                    status = Path(f"/proc/{number}/status").read_text()
                except (FileNotFoundError, ProcessLookupError):
                    continue  # it has ended
                said = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
                if "VmHWM" in said:  # one that has ended and was not waited for has none
                    self.peaks[f"{said['Name']} {number}"] = int(said["VmHWM"].split()[0]) * 1024


@dataclass(frozen=True)
class Result:
    """What one run took."""

    seconds: float
    """Until what was written was durable."""
    copied_seconds: float
    """Until the command came back."""
    cpu_seconds: float
    """Of both sides together."""
    others_cpu_seconds: float
    """Of everybody else on this machine meanwhile, interrupts and the hypervisor's share included."""
    wire_bytes: int
    """Both ways, headers included."""
    peak_memory_bytes: dict[str, int]
    """Of each process."""


@dataclass
class Run:
    """What a contender works with: content at site ``a`` that is to be in ``destination`` at site ``b``."""

    network: Network
    way: Way
    group: Group
    contents: list[Content]
    """What to copy, in the form that the contender asked for; the names of the files differ."""
    destination: Path
    scratch: Path
    """For configuration and keys."""
    _servers: list[subprocess.Popen[bytes]] = field(default_factory=list)

    @property
    def length(self) -> int:
        """Bytes that the contents have, holes left out."""
        return sum(content.allocated for content in self.contents)

    def serve(self, site: Site, command: list[str], port: int) -> None:
        """Start a server at the site, and come back when it listens on the port."""
        log = self.scratch / f"server-{port}.log"
        with log.open("wb") as output:
            server = subprocess.Popen(
                self._placed(site, command), stdin=subprocess.DEVNULL, stdout=output, stderr=output
            )
        self._servers.append(server)
        patience = time.monotonic() + READY_WITHIN
        while not self.network.answers(site, self.way.address(site), port):
            if server.poll() is not None or time.monotonic() > patience:
                raise RuntimeError(f"{command[0]} does not listen on port {port}: {_end_of(log)}")
            time.sleep(0.05)

    def do(self, site: Site, *commands: list[str]) -> None:
        """Have the commands run at the site, side by side, to their ends."""
        with ThreadPoolExecutor(len(commands)) as pool:
            try:
                for _ in pool.map(lambda command: self._do(site, command), commands):
                    pass
            except BaseException:
                self.group.end()  # nobody waits for the others
                raise

    def _do(self, site: Site, command: list[str]) -> None:
        done = subprocess.run(
            self._placed(site, command),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
            timeout=60 + self.length / SLOWEST,
        )
        if done.returncode:
            said = (done.stderr or done.stdout)[-_ERRORS:].strip()
            raise RuntimeError(f"{' '.join(command)} failed ({done.returncode}): {said}")

    def _placed(self, site: Site, command: list[str]) -> list[str]:
        return [*self.group.enter(), *self.network.enter(site), *command]

    def measure(self, copy: Callable[[], None]) -> Result:
        """Have ``copy`` bring the contents over, and check that they came. What the machine has still to write from
        before is written first, and the contents are in the page cache."""
        for content in self.contents:
            for _ in parts(content.path):
                pass  # it is in the page cache now
        os.sync()
        wire, cpu, machine = self.network.wire_bytes(self.way), self.group.cpu_seconds(), _machine_cpu_seconds()
        with Memory(self.group) as memory:
            started = time.perf_counter()
            copy()
            copied = time.perf_counter()
            for content in self.contents:
                _make_durable(self.destination / content.path.name)
            ended = time.perf_counter()
        used = self.group.cpu_seconds() - cpu
        result = Result(
            seconds=ended - started,
            copied_seconds=copied - started,
            cpu_seconds=used,
            others_cpu_seconds=_machine_cpu_seconds() - machine - used,
            wire_bytes=self.network.wire_bytes(self.way) - wire,
            peak_memory_bytes=memory.peaks,
        )
        for content in self.contents:
            came = digest(self.destination / content.path.name)
            if came != content.digest:
                raise RuntimeError(f"{content.path.name} did not come as it was: {came}, not {content.digest}")
        return result

    def bury(self) -> None:
        """Wait for servers whose group was ended."""
        for server in self._servers:
            server.wait()


@contextmanager
def prepared(network: Network, way: Way, contents: list[Content], place: Path) -> Iterator[Run]:
    """A run with an empty destination in ``place``, which is gone afterwards, as is everything that was started."""
    folder = place / f"run-{os.getpid()}"
    destination, scratch = folder / "destination", folder / "scratch"
    for each in (destination, scratch):
        each.mkdir(parents=True)
    try:
        with ExitStack() as ending:
            run = Run(network, way, Group("run"), contents, destination, scratch)
            ending.callback(run.bury)
            ending.enter_context(run.group)
            yield run
    finally:
        shutil.rmtree(folder)


def _make_durable(file: Path) -> None:
    for each in (file, file.parent):
        opened = os.open(each, os.O_RDONLY)
        try:
            os.fsync(opened)
        finally:
            os.close(opened)


def _machine_cpu_seconds() -> float:
    """All processors, whatever kept them busy (proc(5): all but idle and iowait; guests are in user and nice)."""
    user, nice, system, _idle, _iowait, irq, softirq, steal, *_ = Path("/proc/stat").read_text().split()[1:]
    ticks = sum(map(int, (user, nice, system, irq, softirq, steal)))
    return ticks / os.sysconf("SC_CLK_TCK")


def _end_of(log: Path) -> str:
    return log.read_text(errors="replace")[-_ERRORS:].strip()
