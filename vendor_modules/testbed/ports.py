"""TCP ports of the loopback interface."""

from __future__ import annotations

import asyncio
import random
import socket
import time
from collections.abc import Collection
from ipaddress import ip_address

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


_claims: dict[int, socket.socket] = {}
"""Ports that this process has chosen, some of them for machines that do not listen yet, or not now."""


def choose_port(taken: Collection[int]) -> int:
    """A port that nobody listens at, that is not among the ``taken``, and that no other cloud of this computer has
    chosen; ``OSError`` when there seems to be none. It is claimed until it is not among the ``taken`` any more."""
    for port in _claims.keys() - set(taken):
        _claims.pop(port).close()
    for port in random.sample(_CHOICE, k=min(200, len(_CHOICE))):
        if port not in taken and _claim(port):
            if is_free(port):
                return port
            _claims.pop(port).close()
    raise OSError("no free port was found")


def _claim(port: int) -> bool:
    """Whether the port is ours now: an abstract socket's name (unix(7)) is one process's, and goes with it."""
    claim = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    try:
        claim.bind(f"\0cloud-agency-testbed-port-{port}")
    except OSError:
        claim.close()
        return False
    _claims[port] = claim
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
