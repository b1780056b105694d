"""Sockets through which the world reaches machines: what public addresses and load balancers have in common."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from socket import socket

from descriptors.deployment import Kind
from vendor_modules.testbed.ports import HOST
from vendor_modules.testbed.records import MachineRecord
from vendor_modules.testbed.usage import UsageMeters

_CHUNK = 64 * 1024
_METER_SECONDS = 2.0

Route = Callable[[str], Iterable[MachineRecord]]
"""From a peer's IP address to the machines that its connection may go to, the preferred one first."""


@dataclass
class _Door:
    kind: Kind
    route: Route
    server: asyncio.Server | None = None
    open: dict[asyncio.Task[None], str] = field(default_factory=dict)
    """Every connection's task, and the machine that it leads to."""
    sent: int = 0
    """Bytes that have left by it since the meters were last read."""


class Forwarder:
    """See the module. What leaves the cloud by any of its sockets counts as egress."""

    def __init__(self, meters: UsageMeters) -> None:
        self._meters = meters
        self._doors: dict[str, _Door] = {}

    async def open(self, resource_id: str, kind: Kind, listener: socket, route: Route) -> None:
        """Carry each connection to the socket to the first machine that takes it."""
        door = _Door(kind, route)

        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task  # noqa: S101 - asyncio runs this in one
            door.open[task] = ""
            try:
                if not await self._carry(door, task, reader, writer):
                    writer.transport.abort()
            except asyncio.CancelledError:  # cut; passed on, asyncio would report it as a fault
                writer.transport.abort()
            finally:
                del door.open[task]
                writer.close()

        door.server = await asyncio.start_server(connected, sock=listener, limit=_CHUNK)
        self._doors[resource_id] = door

    def close(self, resource_id: str) -> None:
        """Stop listening for the resource, cut its connections, and end its meters."""
        self.cut(resource_id)
        self.read_meters()
        self._meters.ended(resource_id)
        if (door := self._doors.pop(resource_id, None)) and door.server:
            door.server.close()

    def close_all(self) -> None:
        """Stop listening; cut all connections. The meters go on when the cloud does."""
        for resource_id, door in self._doors.items():
            self.cut(resource_id)
            if door.server:
                door.server.close()
        self.read_meters()

    def cut(self, resource_id: str, machines: Collection[str] | None = None) -> None:
        """Cut the resource's connections: all, or those to these machines."""
        if door := self._doors.get(resource_id):
            for task, machine in door.open.items():
                if machines is None or machine in machines:
                    task.cancel()

    def cut_machine(self, machine_id: str) -> None:
        """Cut all connections to a machine that is not up any more."""
        for resource_id in self._doors:
            self.cut(resource_id, (machine_id,))

    async def meter(self) -> None:
        """Write down from time to time what has been sent; until cancelled."""
        while True:
            await asyncio.sleep(_METER_SECONDS)
            self.read_meters()

    def read_meters(self) -> None:
        """Write down what has been sent."""
        for resource_id, door in self._doors.items():
            sent, door.sent = door.sent, 0
            if sent:
                self._meters.egress(resource_id, door.kind, sent)

    # --- connections ---

    async def _carry(
        self, door: _Door, task: asyncio.Task[None], reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> bool:
        """Carry bytes both ways until both sides have ended; False if no machine takes the connection."""
        for machine in door.route(str(writer.get_extra_info("peername")[0])):
            door.open[task] = machine.id
            try:
                inner_reader, inner_writer = await asyncio.open_connection(HOST, machine.port, limit=_CHUNK)
            except OSError:
                continue
            break
        else:
            return False
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(_pump(reader, inner_writer))
                both.create_task(_pump(inner_reader, writer, door))
        except* OSError:
            inner_writer.transport.abort()
            writer.transport.abort()  # one side broke the connection: so do we
        finally:
            inner_writer.close()
        return True


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, metered: _Door | None = None) -> None:
    while chunk := await reader.read(_CHUNK):
        writer.write(chunk)
        await writer.drain()
        if metered:
            metered.sent += len(chunk)
    if writer.can_write_eof():
        writer.write_eof()
