"""A name server for tests, on a loopback address: servers that look each other up ask it, and nobody else.

    with name_server() as names:
        names.add("b.test", "127.0.0.3", xmpp_port=5269)   # with all that is below it

It tells where XMPP servers are (SRV records: RFC 6120, 3.2.1), by address: ejabberd would ask the system, and so the
network, for what a name's address is. A server that is not known is said to be where nobody listens.
"""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager

_SRV = 33
_XMPP_SERVER = "_xmpp-server._tcp."
_FOUND = 0x8580
"""An authoritative answer, from one who would ask others, too."""
_NOWHERE = ("127.0.0.1", 1)


class NameServer:
    """What is known, and the port of 127.0.0.1 where it can be asked (RFC 1035, UDP)."""

    def __init__(self, sock: socket.socket) -> None:
        self._socket = sock
        self.port: int = sock.getsockname()[1]
        self._sites: dict[str, tuple[str, int]] = {}

    def add(self, domain: str, address: str, xmpp_port: int) -> None:
        """The server of the domain, and of every name below it, is at that address and port."""
        self._sites[domain] = (address, xmpp_port)

    def serve(self) -> None:
        """Answer until somebody asks nothing at all."""
        while True:
            query, asker = self._socket.recvfrom(4096)
            if not query:
                return
            self._socket.sendto(self._answer(query), asker)

    def _answer(self, query: bytes) -> bytes:
        labels, position = [], 12
        while size := query[position]:
            labels.append(query[position + 1 : position + 1 + size].decode("ascii"))
            position += 1 + size
        question = query[12 : position + 5]
        (kind,) = struct.unpack_from("!H", query, position + 1)
        name = ".".join(labels).lower()
        answer = b""
        if kind == _SRV and name.startswith(_XMPP_SERVER):
            address, port = self._server_of(name.removeprefix(_XMPP_SERVER))
            target = b"".join(bytes([len(part)]) + part.encode("ascii") for part in address.split(".")) + b"\0"
            data = struct.pack("!HHH", 0, 0, port) + target
            answer = b"\xc0\x0c" + struct.pack("!HHIH", _SRV, 1, 1, len(data)) + data
        return query[:2] + struct.pack("!HHHHH", _FOUND, 1, bool(answer), 0, 0) + question + answer

    def _server_of(self, name: str) -> tuple[str, int]:
        found = (site for domain, site in self._sites.items() if f".{name}".endswith(f".{domain}"))
        return next(found, _NOWHERE)


@contextmanager
def name_server() -> Iterator[NameServer]:
    """A name server that knows nothing yet, until the block ends."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.bind(("127.0.0.1", 0))
        server = NameServer(sock)
        thread = threading.Thread(target=server.serve, daemon=True)
        thread.start()
        try:
            yield server
        finally:
            with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as last:
                last.sendto(b"", sock.getsockname())
            thread.join()
