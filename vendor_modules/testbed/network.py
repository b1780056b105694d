"""The cloud's network: public addresses that forward to machines, the security groups that decide who may come in, and
key pairs."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode
from hashlib import sha256
from ipaddress import ip_address, ip_network

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from descriptors.base import new_id
from vendor_modules.resources import Status
from vendor_modules.services import Log
from vendor_modules.testbed.config import CloudConfig
from vendor_modules.testbed.errors import conflict, invalid, quota_exceeded
from vendor_modules.testbed.machines import ports_taken
from vendor_modules.testbed.ports import HOST, choose_port, listen
from vendor_modules.testbed.records import AddressRecord, KeyPairRecord, MachineRecord, SecurityGroupRecord
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.usage import UsageMeters
from vendor_modules.testbed.wire import CreateKeyPair, CreateSecurityGroup

_CHUNK = 64 * 1024
_METER_SECONDS = 2.0


class KeyPairsAndGroups:
    """SSH public keys and sets of ingress rules: records, nothing more."""

    def __init__(self, config: CloudConfig, store: Store) -> None:
        self._config = config
        self._store = store

    def create_key_pair(self, order: CreateKeyPair, key: str) -> KeyPairRecord:
        """Keep a public key in OpenSSH form; the same key gives the same pair."""
        if existing := self._store.by_key(KeyPairRecord, key):
            return existing
        if len(self._store.all(KeyPairRecord)) >= self._config.quotas.key_pairs:
            raise quota_exceeded("key pairs", self._config.quotas.key_pairs)
        record = KeyPairRecord(
            id=new_id("key-pair"),
            name=order.name,
            key=key,
            status=Status.ACTIVE,
            public_key=order.public_key.strip(),
            fingerprint=fingerprint(order.public_key),
        )
        self._store.add(record)
        return record

    def create_group(self, order: CreateSecurityGroup, key: str) -> SecurityGroupRecord:
        """Keep a group; the same key gives the same group."""
        if existing := self._store.by_key(SecurityGroupRecord, key):
            return existing
        if len(self._store.all(SecurityGroupRecord)) >= self._config.quotas.security_groups:
            raise quota_exceeded("security groups", self._config.quotas.security_groups)
        for rule in order.rules:
            try:
                ip_network(rule.cidr)
            except ValueError as error:
                raise invalid(f"{rule.cidr!r} is no CIDR: {error}") from error
        record = SecurityGroupRecord(
            id=new_id("group"), name=order.name, key=key, status=Status.ACTIVE, rules=order.rules
        )
        self._store.add(record)
        return record

    def destroy_key_pair(self, pair_id: str) -> None:
        """Forget a pair; machines that have it keep it."""
        self._store.remove(self._store.get(KeyPairRecord, pair_id))

    def destroy_group(self, group_id: str) -> None:
        """Forget a group that no machine uses."""
        group = self._store.get(SecurityGroupRecord, group_id)
        for machine in self._store.all(MachineRecord):
            if group_id in machine.security_groups:
                raise conflict(f"security group {group_id} is used by machine {machine.id}")
        self._store.remove(group)


def fingerprint(public_key: str) -> str:
    """The key's SHA256 fingerprint as OpenSSH shows it; the API's error if it is no OpenSSH public key."""
    try:
        load_ssh_public_key(public_key.strip().encode())
        blob = b64decode(public_key.split()[1])
    except (ValueError, IndexError, UnsupportedAlgorithm) as error:
        raise invalid("the public key is not in OpenSSH's form, such as 'ssh-ed25519 AAAA… comment'") from error
    return "SHA256:" + b64encode(sha256(blob).digest()).decode().rstrip("=")


class Addresses:
    """Public addresses: sockets that listen as long as the address exists, and forward as far as the rules allow."""

    def __init__(self, config: CloudConfig, store: Store, meters: UsageMeters, log: Log) -> None:
        self._config = config
        self._store = store
        self._meters = meters
        self._log = log
        self._servers: dict[str, asyncio.Server] = {}
        self._open: dict[str, set[asyncio.Task[None]]] = {}
        self._sent: dict[str, int] = {}

    async def create(self, name: str, key: str) -> AddressRecord:
        """Reserve an address; the same key gives the same address."""
        if existing := self._store.by_key(AddressRecord, key):
            return existing
        if len(self._store.all(AddressRecord)) >= self._config.quotas.addresses:
            raise quota_exceeded("addresses", self._config.quotas.addresses)
        record = AddressRecord(
            id=new_id("address"),
            name=name,
            key=key,
            status=Status.ACTIVE,
            host=HOST,
            port=choose_port(ports_taken(self._store)),
        )
        self._store.add(record)
        await self._listen(record)
        return record

    async def resume(self) -> None:
        """Listen at all addresses again; one whose port is taken is in ERROR until the next start."""
        for record in self._store.all(AddressRecord):
            try:
                await self._listen(record)
                self._store.put(record.model_copy(update={"status": Status.ACTIVE}))
            except OSError:
                self._log.error("the port of an address is taken", address=record.id, port=record.port)
                self._store.put(record.model_copy(update={"status": Status.ERROR}))

    def associate(self, address_id: str, machine_id: str | None) -> AddressRecord:
        """Lead the address to a machine or, with None, to nowhere; connections to the machine before are cut."""
        record = self._store.get(AddressRecord, address_id)
        if machine_id:
            self._store.get(MachineRecord, machine_id)
        if record.machine != machine_id:
            self._cut(address_id)
        return self._store.put(record.model_copy(update={"machine": machine_id}))

    def destroy(self, address_id: str) -> None:
        """Give the address back; its connections are cut."""
        self._store.remove(self._store.get(AddressRecord, address_id))
        self._cut(address_id)
        if server := self._servers.pop(address_id, None):
            server.close()
        self.read_meters()
        self._meters.ended(address_id)

    def cut_machine(self, machine_id: str) -> None:
        """Cut all connections to a machine that is not up any more."""
        for record in self._store.all(AddressRecord):
            if record.machine == machine_id:
                self._cut(record.id)

    async def meter(self) -> None:
        """Write down from time to time what has been sent; until cancelled."""
        while True:
            await asyncio.sleep(_METER_SECONDS)
            self.read_meters()

    def read_meters(self) -> None:
        """Write down what has been sent."""
        sent, self._sent = self._sent, {}
        for address_id, size in sent.items():
            self._meters.egress(address_id, "address", size)

    def close(self) -> None:
        """Stop listening; cut all connections."""
        for address_id, server in self._servers.items():
            server.close()
            self._cut(address_id)
        self.read_meters()

    # --- connections ---

    async def _listen(self, record: AddressRecord) -> None:
        async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            task = asyncio.current_task()
            assert task  # noqa: S101 - asyncio runs this in one
            tasks = self._open.setdefault(record.id, set())
            tasks.add(task)
            try:
                if not await self._forward(record.id, reader, writer):
                    writer.transport.abort()
            except asyncio.CancelledError:  # cut; passed on, asyncio would report it as a fault
                writer.transport.abort()
            finally:
                tasks.discard(task)
                writer.close()

        self._servers[record.id] = await asyncio.start_server(connected, sock=listen(record.port), limit=_CHUNK)

    def _cut(self, address_id: str) -> None:
        for task in self._open.get(address_id, ()):
            task.cancel()

    async def _forward(self, address_id: str, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        """Carry bytes both ways until both sides have ended; returns whether that went well."""
        address = self._store.find(AddressRecord, address_id)
        machine = self._store.find(MachineRecord, address.machine) if address and address.machine else None
        if machine is None or not self._allowed(machine, str(writer.get_extra_info("peername")[0])):
            return False
        try:
            inner_reader, inner_writer = await asyncio.open_connection(HOST, machine.port, limit=_CHUNK)
        except OSError:
            return False
        try:
            async with asyncio.TaskGroup() as both:
                both.create_task(self._pump(reader, inner_writer))
                both.create_task(self._pump(inner_reader, writer, address_id))
        except* OSError:
            inner_writer.transport.abort()
            writer.transport.abort()  # one side broke the connection: so does the address
        finally:
            inner_writer.close()
        return True

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, metered: str = "") -> None:
        while chunk := await reader.read(_CHUNK):
            writer.write(chunk)
            await writer.drain()
            if metered:
                self._sent[metered] = self._sent.get(metered, 0) + len(chunk)
        if writer.can_write_eof():
            writer.write_eof()

    def _allowed(self, machine: MachineRecord, peer: str) -> bool:
        """Whether a rule of the machine's groups lets the peer in. A machine has one service, at a port that the cloud
        chose: a rule's own port names it as the application knows it, so any rule means that service."""
        groups = (self._store.find(SecurityGroupRecord, group) for group in machine.security_groups)
        return any(ip_address(peer) in ip_network(rule.cidr) for group in groups if group for rule in group.rules)
