"""A network of the benchmark's own: two sites (network namespaces) and the paths between them, gone when it ends.

Nothing leaves the machine, and nothing of it is changed: addresses, limits and settings are those of the namespaces.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import socket
import subprocess
import threading
import time
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Literal, Self

Site = Literal["a", "b"]
"""Content is at ``a`` and is to come to ``b``."""
SITES: tuple[Site, Site] = ("a", "b")

GIGABIT = 984_000_000
"""Bits a second of Ethernet frames without what is between them: 941 Mbit/s of content, as on real gigabit Ethernet."""
PACKAGES = {"ip": "iproute2", "tc": "iproute2", "nsenter": "util-linux", "gcc": "gcc libc6-dev"}
_BUFFER_US = 30_000
_CLONE_NEWNET = 0x40000000


@dataclass(frozen=True)
class Way:
    """A way from site to site."""

    name: str
    number: int
    rate: int | None
    """Bits a second, both ways; None: as fast as the machine is."""
    round_trip_ms: float | None = None
    """In user space, where frames can be held back; None: a pair of Ethernet devices of the kernel's."""

    def address(self, site: Site) -> str:
        """Of this path's end at the site."""
        return f"10.77.{self.number}.{1 if site == 'a' else 2}"

    @property
    def device(self) -> str:
        """The name of the path's network device, the same at both sites."""
        return f"path{self.number}"


LAN = Way("1 Gbit/s", 0, GIGABIT)
OPEN = Way("unshaped", 1, None)
NEAR = Way("1 Gbit/s, 0 ms", 2, GIGABIT, 0)
FAR = Way("1 Gbit/s, 20 ms", 3, GIGABIT, 20)
PATHS = (LAN, OPEN, NEAR, FAR)


class Network:
    """The two sites and their paths; ``folder`` is where the program that holds frames back is compiled."""

    def __init__(self, folder: Path, paths: tuple[Way, ...] = PATHS) -> None:
        self._folder, self._paths = folder, paths
        self._stack = ExitStack()
        self._names: dict[Site, str] = {site: f"agency-transfer-{os.getpid()}-{site}" for site in SITES}

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            for site, name in self._names.items():
                stack.callback(subprocess.run, ["ip", "netns", "delete", name], check=False)  # deletes its devices
                _run("ip", "netns", "add", name)
                self._ip(site, "link", "set", "lo", "up")
                _run(*self.enter(site), "sysctl", "-qw", "net.ipv4.tcp_rmem=4096 131072 33554432")
                _run(*self.enter(site), "sysctl", "-qw", "net.ipv4.tcp_wmem=4096 65536 33554432")
            for path in self._paths:
                if path.round_trip_ms is None:
                    self._join(path)
                else:
                    self._join_from_afar(path, path.round_trip_ms, stack)
                for site in SITES:
                    self._ip(site, "address", "add", f"{path.address(site)}/24", "dev", path.device)
                    self._ip(site, "link", "set", path.device, "up")
                    self._limit(site, path)
            self._stack = stack.pop_all()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stack.close()

    def enter(self, site: Site) -> list[str]:
        """What to put before a command that is to run at the site."""
        return ["nsenter", f"--net={self._file(site)}"]

    def socket(self, site: Site) -> socket.socket:
        """A TCP socket at the site, for any thread."""
        made: list[socket.socket | OSError] = []

        def make() -> None:  # a thread of its own: it stays at the site
            with self._file(site).open() as namespace:
                if ctypes.CDLL(None, use_errno=True).setns(namespace.fileno(), _CLONE_NEWNET):
                    made.append(OSError(ctypes.get_errno(), f"setns to {self._file(site)} failed"))
                else:
                    made.append(socket.socket())

        thread = threading.Thread(target=make)
        thread.start()
        thread.join()
        if isinstance(made[0], OSError):
            raise made[0]
        return made[0]

    def answers(self, site: Site, address: str, port: int) -> bool:
        """Whether somebody at the site listens there."""
        with self.socket(site) as tried:
            return tried.connect_ex((address, port)) == 0

    def wire_bytes(self, path: Way) -> int:
        """Ethernet frames (on paths in user space IP packets), both ways, since the beginning, in bytes. From the
        queues' counters, which know what a large frame will be cut into; the devices' do not."""
        sent = 0
        for site, name in self._names.items():
            output = _run("tc", "-netns", name, "-statistics", "-json", "qdisc", "show", "dev", path.device)
            counted = [each["bytes"] for each in json.loads(output) if each.get("root")]
            if len(counted) != 1:
                raise RuntimeError(f"{path.device} at site {site} should have one queue, tc says: {output}")
            sent += counted[0]
        return sent

    def goodput(self, path: Way, length: int) -> float:
        """Bytes a second of one plain TCP connection from ``a`` to ``b``, until the last has come: the line's rate."""
        with self.socket("b") as listener, self.socket("a") as sender:
            listener.bind((path.address("b"), 0))
            listener.listen()
            sender.connect(listener.getsockname())
            receiver, _ = listener.accept()
            sending = threading.Thread(target=_send, args=(sender, length))
            buffer, received = bytearray(1 << 20), 0
            with receiver:
                started = time.perf_counter()
                sending.start()
                while count := receiver.recv_into(buffer):
                    received += count
                seconds = time.perf_counter() - started
            sending.join()
        if received != length:
            raise RuntimeError(f"{path.name}: {length} bytes were sent, {received} came")
        return received / seconds

    def _file(self, site: Site) -> Path:
        return Path("/run/netns", self._names[site])

    def _ip(self, site: Site, *arguments: str) -> None:
        _run("ip", "-netns", self._names[site], *arguments)

    def _join(self, path: Way) -> None:
        ends = [["name", path.device, "netns", name] for name in self._names.values()]
        _run("ip", "link", "add", *ends[0], "type", "veth", "peer", *ends[1])

    def _join_from_afar(self, path: Way, round_trip_ms: float, stack: ExitStack) -> None:
        program = self._compiled()
        one_way = str(int(round_trip_ms * 1000 / 2))
        sites = [str(self._file(site)) for site in SITES]
        command = [str(program), *sites, path.device, str(path.rate), one_way, str(_BUFFER_US)]
        process = stack.enter_context(subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE))
        stack.callback(process.kill)
        if not process.stdout or process.stdout.readline() != b"ready\n":
            _, errors = process.communicate()
            raise RuntimeError(f"{path.name} could not be set up (it needs /dev/net/tun): {errors.decode().strip()}")

    def _limit(self, site: Site, path: Way) -> None:
        queue = ["pfifo", "limit", "10000"]
        if path.rate and path.round_trip_ms is None:
            queue = ["tbf", "rate", f"{path.rate}bit", "burst", "256kb", "latency", "20ms"]
        _run("tc", "-netns", self._names[site], "qdisc", "add", "dev", path.device, "root", *queue)

    def _compiled(self) -> Path:
        program, source = self._folder / "distance", Path(__file__).with_name("distance.c")
        if not program.exists() or program.stat().st_mtime < source.stat().st_mtime:
            _run("gcc", "-O2", "-Wall", "-pthread", "-o", str(program), str(source))
        return program


def missing() -> dict[str, str]:
    """Programs that a network needs and that are not there, each with its Debian package."""
    return {program: package for program, package in PACKAGES.items() if not shutil.which(program)}


def _send(sender: socket.socket, length: int) -> None:
    content = memoryview(bytes(1 << 20))
    while length:
        part = content[: min(length, len(content))]
        sender.sendall(part)
        length -= len(part)
    sender.shutdown(socket.SHUT_WR)


def _run(*command: str) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(f"{' '.join(command)} failed: {done.stderr.strip()}")
    return done.stdout
