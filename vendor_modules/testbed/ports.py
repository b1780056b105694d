"""TCP ports of the loopback interface."""

from __future__ import annotations

import asyncio
import fcntl
import os
import random
import socket
import tempfile
import time
from collections.abc import Collection
from contextlib import suppress
from ipaddress import ip_address
from pathlib import Path

HOST = "127.0.0.1"
_CHOICE = range(15000, 32000)
"""Below the ports that kernels hand out to clients: one of ours must still be free when the cloud starts again."""

_HOSTS = range(int(ip_address("127.16.0.0")), int(ip_address("127.239.255.255")))


def listen(port: int, *, host: str = HOST, patience: float = 2.0) -> socket.socket:
    """A listening socket at the port. A cloud that was killed a moment ago may still hold it: waits so many seconds.
    Raises ``OSError``."""
    deadline = time.monotonic() + patience
    while True:
        # the protocol is named because asyncio only then sets TCP_NODELAY: without it an answer takes 44 ms
        listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM, socket.IPPROTO_TCP)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            listener.bind((host, port))
            listener.listen(512)
        except OSError:
            listener.close()
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            listener.setblocking(False)
            return listener


class Claims:
    """The ports that one cloud has chosen. No other cloud of the same user chooses them, though nobody may listen
    there, not yet or not while the cloud is down: a symbolic link of that name leads to the cloud's state directory,
    and counts for as long as that is there."""

    def __init__(self, state: Path) -> None:
        self._state = state.resolve()
        self._folder = Path(tempfile.gettempdir()) / f"cloud-agency-testbed-ports-{os.getuid()}"
        self._folder.mkdir(mode=0o700, exist_ok=True)

    def choose(self, taken: Collection[int] = ()) -> int:
        """A port that nobody listens at, and that is not among the ``taken``; ``OSError`` when there seems to be
        none."""
        for port in random.sample(_CHOICE, k=min(200, len(_CHOICE))):
            if port not in taken and self._claim(port):
                if is_free(port):
                    return port
                self.release(port)
        raise OSError("no free port was found")

    def release(self, port: int) -> None:
        """It is not needed any more. What is another cloud's stays so."""
        with suppress(FileNotFoundError):
            if (link := self._folder / str(port)).readlink() == self._state:
                link.unlink()

    def _claim(self, port: int) -> bool:
        link = self._folder / str(port)
        folder = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX)
            if link.is_symlink() and not link.exists():  # of a cloud that is gone
                link.unlink()
            link.symlink_to(self._state)
        except FileExistsError:
            return False
        finally:
            os.close(folder)
        return True


def listen_apart(port: int, taken: Collection[str]) -> socket.socket:
    """A socket that listens at the port of an address of the loopback network, not one of the ``taken``. ``OSError``
    when there seems to be none, ``PermissionError`` when it is a port that not everybody may listen at."""
    for number in random.sample(_HOSTS, k=20):
        host = str(ip_address(number))
        if host not in taken:
            try:
                return listen(port, host=host, patience=0)
            except PermissionError:
                raise
            except OSError:
                continue
    raise OSError(f"port {port} is taken")


def is_free(port: int) -> bool:
    """Whether somebody could listen at the port now."""
    try:
        listen(port, patience=0).close()
    except OSError:
        return False
    return True


async def accepts(port: int) -> bool:
    """Whether somebody accepts connections at the port, within a second."""
    try:
        async with asyncio.timeout(1):
            _, writer = await asyncio.open_connection(HOST, port)
    except OSError:  # a time-out is one, too
        return False
    writer.close()
    return True
