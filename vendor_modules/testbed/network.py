"""The cloud's network: public addresses that forward to machines, the security groups that decide who may come in, and
key pairs."""

from __future__ import annotations

from base64 import b64decode, b64encode
from hashlib import sha256
from ipaddress import ip_address, ip_network

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from descriptors.base import new_id
from vendor_modules.resources import Status
from vendor_modules.services import Log
from vendor_modules.testbed.errors import conflict, invalid
from vendor_modules.testbed.forwarding import Forwarder
from vendor_modules.testbed.limits import Limits
from vendor_modules.testbed.machines import ports_taken
from vendor_modules.testbed.ports import HOST, Claims, listen
from vendor_modules.testbed.records import AddressRecord, KeyPairRecord, MachineRecord, SecurityGroupRecord
from vendor_modules.testbed.store import Store
from vendor_modules.testbed.wire import CreateKeyPair, CreateSecurityGroup


class KeyPairsAndGroups:
    """SSH public keys and sets of ingress rules: records, nothing more."""

    def __init__(self, store: Store, limits: Limits) -> None:
        self._store = store
        self._limits = limits

    def create_key_pair(self, order: CreateKeyPair, key: str) -> KeyPairRecord:
        """Keep a public key in OpenSSH form; the same key gives the same pair."""
        if existing := self._store.by_key(KeyPairRecord, key):
            return existing
        self._limits.check("key_pairs")
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
        self._limits.check("security_groups")
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

    def __init__(self, store: Store, claims: Claims, limits: Limits, forwarder: Forwarder, log: Log) -> None:
        self._store = store
        self._claims = claims
        self._limits = limits
        self._forwarder = forwarder
        self._log = log

    async def create(self, name: str, key: str) -> AddressRecord:
        """Reserve an address; the same key gives the same address."""
        if existing := self._store.by_key(AddressRecord, key):
            return existing
        self._limits.check("addresses")
        record = AddressRecord(
            id=new_id("address"),
            name=name,
            key=key,
            status=Status.ACTIVE,
            host=HOST,
            port=self._claims.choose(ports_taken(self._store)),
        )
        self._store.add(record)
        await self._open(record)
        return record

    async def resume(self) -> None:
        """Listen at all addresses again; one whose port is taken is in ERROR until the next start."""
        for record in self._store.all(AddressRecord):
            try:
                await self._open(record)
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
            self._forwarder.cut(address_id)
        return self._store.put(record.model_copy(update={"machine": machine_id}))

    def destroy(self, address_id: str) -> None:
        """Give the address back; its connections are cut."""
        record = self._store.get(AddressRecord, address_id)
        self._store.remove(record)
        self._forwarder.close(address_id)
        self._claims.release(record.port)

    async def _open(self, record: AddressRecord) -> None:
        listener = listen(record.port)
        await self._forwarder.open(record.id, "address", listener, lambda peer: self._route(record.id, peer))

    def _route(self, address_id: str, peer: str) -> list[MachineRecord]:
        address = self._store.find(AddressRecord, address_id)
        machine = self._store.find(MachineRecord, address.machine) if address and address.machine else None
        return [machine] if machine and self._allowed(machine, peer) else []

    def _allowed(self, machine: MachineRecord, peer: str) -> bool:
        """Whether a rule of the machine's groups lets the peer in. A machine has one service, at a port that the cloud
        chose: a rule's own port names it as the application knows it, so any rule means that service."""
        groups = (self._store.find(SecurityGroupRecord, group) for group in machine.security_groups)
        return any(ip_address(peer) in ip_network(rule.cidr) for group in groups if group for rule in group.rules)
