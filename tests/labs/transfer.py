"""Transfer proxies for tests: sites that believe each other, a proxy in this process or one that can be killed.

site = make_site(tmp_path, "a.example")
with running(site) as port: ...          # in this process
process = Killable(site); process.kill() # in one of its own, which is there in a moment
"""

from __future__ import annotations

import math
import multiprocessing
import socket
import struct
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from datetime import timedelta
from functools import cached_property
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from agency import logs
from agency.transfer import identity
from agency.transfer.ledger import Ledger, Transfer
from agency.transfer.meeting import Calling
from agency.transfer.pace import Bandwidth
from agency.transfer.proxy import Limits, Proxy
from agency.transfer.witness import Witness
from agency.transfer.work import End, Result, Terms, send_content
from agency.trust.keys import SiteKey

_PROCESSES = multiprocessing.get_context("forkserver")
_PROCESSES.set_forkserver_preload(["tests.labs.transfer"])  # so that the next one is there within milliseconds


@dataclass(frozen=True)
class Site:
    """A site with one transfer proxy."""

    name: str
    state: Path

    @property
    def root(self) -> Path:
        """Where the proxy's files are."""
        return self.state.parent / "root"

    @property
    def proxy(self) -> str:
        """The proxy's name."""
        return f"transfer.{self.name}"

    @cached_property
    def witness(self) -> Witness:
        """What the proxy signs with."""
        return Witness(self.proxy, SiteKey.generate(self.name))

    def believe(self, other: Site) -> None:
        """Trust the other's authority."""
        with (self.state / "transfer" / "ca.pem").open("ab") as file:
            file.write((other.state / "transfer" / "authority.pem").read_bytes())

    def token(self, direction: Any, file: str, peer: str, *, most: int | None = None, seconds: float = 600) -> bytes:
        """A token of its proxy's, which may run or not."""
        with closing(Ledger(self.state / "transfer", mine=False)) as ledger:
            return ledger.issue(direction, file, "raw", peer, most, timedelta(seconds=seconds))[1]

    def transfer(self, token: bytes) -> Transfer:
        """Where the token's transfer stands."""
        with closing(Ledger(self.state / "transfer", mine=False)) as ledger:
            return ledger.find(token)


def make_site(directory: Path, name: str) -> Site:
    """A new site, below that directory."""
    site = Site(name, directory / name / "state")
    site.root.mkdir(parents=True)
    site.state.mkdir()
    identity.initialize(site.state, name, [site.proxy], None)
    return site


def two_sites(directory: Path) -> tuple[Site, Site]:
    """Two that believe each other."""
    here, there = make_site(directory, "a.example"), make_site(directory, "b.example")
    here.believe(there)
    there.believe(here)
    return here, there


@contextmanager
def running(site: Site, limits: Limits = Limits()) -> Iterator[tuple[Proxy, int]]:  # noqa: B008 - it is immutable
    """Its proxy in this process, and the data port."""
    proxy = Proxy(site.state, site.root, site.witness, limits)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        proxy.listen(listener)
        try:
            yield proxy, listener.getsockname()[1]
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            proxy.stop()


def calling(site: Site, port: int, token: bytes, streams: int = 2) -> Calling:
    """The site calls a proxy on this machine."""
    return Calling(("127.0.0.1", port), token, identity.calling(site.state), streams)


def push(site: Site, port: int, token: bytes, file: Path, streams: int = 2, **terms: Any) -> tuple[Result, str]:
    """Send that file."""
    with closing(calling(site, port, token, streams)) as meeting:
        end = End("read", file.parent, file.name, "raw")
        return send_content(end, meeting, Terms(scratch=file.parent, **terms))


class Killable:
    """A process that does one thing, until it has done it or is killed."""

    def __init__(self, target: Callable[..., None], *arguments: Any) -> None:
        self.process: BaseProcess = _PROCESSES.Process(target=target, args=arguments, daemon=True)
        self.process.start()

    def kill(self) -> None:
        """As ``kill -9`` does."""
        self.process.kill()
        self.process.join()

    def __enter__(self) -> Killable:
        return self

    def __exit__(self, *_: object) -> None:
        self.kill()


def serve(site: Site, port: int) -> None:
    """Run a proxy, for :class:`Killable`."""
    logs.configure(site.state)
    with socket.create_server(("127.0.0.1", port)) as listener:
        Proxy(site.state, site.root, site.witness, Limits()).listen(listener)
        threading.Event().wait()


def push_slowly(site: Site, port: int, token: bytes, file: Path, rate: float, streams: int = 2) -> None:
    """Send that file, for :class:`Killable`."""
    logs.configure(None)
    push(site, port, token, file, streams, bandwidth=Bandwidth(rate))


class Cuttable:
    """What stands between two proxies: a relay that can be cut."""

    def __init__(self, port: int, most: float = math.inf) -> None:
        """``most``: after so many bytes, both ways together, it carries nothing more until it is cut."""
        self._to, self._most = port, most
        self._cut = threading.Event()
        self._ends: list[socket.socket] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = self._listener.getsockname()[1]
        self.carried = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                end, _ = self._listener.accept()
            except OSError:
                return
            other = socket.create_connection(("127.0.0.1", self._to))
            self._ends += [end, other]
            for pair in ((end, other), (other, end)):
                threading.Thread(target=self._carry, args=pair, daemon=True).start()

    def _carry(self, source: socket.socket, sink: socket.socket) -> None:
        try:
            while data := source.recv(65536):
                self.carried += len(data)
                sink.sendall(data)
                if self.carried >= self._most:
                    self._cut.wait()
            sink.shutdown(socket.SHUT_WR)
        except OSError:
            self._shut(source, sink)

    def cut(self) -> None:
        """Both ends see that the other is gone."""
        self._most = math.inf
        self._cut.set()
        self._shut(*self._ends)

    def _shut(self, *ends: socket.socket) -> None:
        for end in ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
                end.shutdown(socket.SHUT_RDWR)
            end.close()  # or whoever writes there would not see it before all buffers are full

    def close(self) -> None:
        """For good."""
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.cut()


def until(true: Callable[[], object]) -> None:
    """Wait for it."""
    end = time.monotonic() + 30
    while not true():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.01)
