"""The cloud's load balancers: each has an address of its own in the loopback network, 127.0.0.0/8, where it listens at
the port that was asked for, and shares out the connections among its machines."""

from __future__ import annotations

from collections.abc import Iterable
from socket import socket

from descriptors.base import new_id
from vendor_modules.resources import Status
from vendor_modules.services import Log
from vendor_modules.testbed.errors import conflict, invalid
from vendor_modules.testbed.forwarding import Forwarder
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.ports import listen, listen_apart
from vendor_modules.testbed.records import LoadBalancerRecord, MachineRecord
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.wire import CreateLoadBalancer


class LoadBalancers:
    """See the module. They reach machines from inside: security groups do not apply to them."""

    def __init__(self, store: Store, limits: Limits, forwarder: Forwarder, log: Log) -> None:
        self._store = store
        self._limits = limits
        self._forwarder = forwarder
        self._log = log
        self._turns: dict[str, int] = {}

    async def create(self, order: CreateLoadBalancer, key: str) -> LoadBalancerRecord:
        """Begin to share out; the same key gives the same load balancer."""
        if existing := self._store.by_key(LoadBalancerRecord, key):
            return existing
        self._limits.check("load_balancers")
        self._check(order.machines)
        taken = {record.host for record in self._store.all(LoadBalancerRecord)}
        try:
            listener = listen_apart(order.port, taken)
        except PermissionError:
            raise invalid(f"this cloud's user may not listen at port {order.port}") from None
        except OSError:
            raise conflict(f"another program of this computer listens at port {order.port}") from None
        record = LoadBalancerRecord(
            id=new_id("balancer"), key=key, status=Status.ACTIVE, host=listener.getsockname()[0], **order.model_dump()
        )
        self._store.add(record)
        await self._open(record.id, listener)
        return record

    async def resume(self) -> None:
        """Listen again; one whose port is taken is in ERROR until the next start."""
        for record in self._store.all(LoadBalancerRecord):
            try:
                await self._open(record.id, listen(record.port, host=record.host))
                self._store.put(record.model_copy(update={"status": Status.ACTIVE}))
            except OSError:
                self._log.error("the port of a load balancer is taken", balancer=record.id, port=record.port)
                self._store.put(record.model_copy(update={"status": Status.ERROR}))

    def balance(self, balancer_id: str, machines: tuple[str, ...]) -> LoadBalancerRecord:
        """Share out among these machines from now on; connections to others are cut."""
        record = self._store.get(LoadBalancerRecord, balancer_id)
        self._check(machines)
        self._forwarder.cut(balancer_id, set(record.machines) - set(machines))
        return self._store.put(record.model_copy(update={"machines": machines}))

    def destroy(self, balancer_id: str) -> None:
        """Remove a load balancer; its connections are cut."""
        self._store.remove(self._store.get(LoadBalancerRecord, balancer_id))
        self._forwarder.close(balancer_id)
        self._turns.pop(balancer_id, None)

    def _check(self, machines: tuple[str, ...]) -> None:
        if len(set(machines)) < len(machines):
            raise invalid("a machine is named twice")
        for machine in machines:
            self._store.get(MachineRecord, machine)

    async def _open(self, balancer_id: str, listener: socket) -> None:
        await self._forwarder.open(balancer_id, "load-balancer", listener, lambda _: self._route(balancer_id))

    def _route(self, balancer_id: str) -> Iterable[MachineRecord]:
        """The machines that run, beginning with the one whose turn it is."""
        record = self._store.find(LoadBalancerRecord, balancer_id)
        found = [self._store.find(MachineRecord, machine) for machine in (record.machines if record else ())]
        running = [machine for machine in found if machine and machine.status is Status.ACTIVE]
        turn = self._turns[balancer_id] = self._turns.get(balancer_id, -1) + 1
        first = turn % len(running) if running else 0
        return running[first:] + running[:first]
