"""Keys, rules and addresses."""

from __future__ import annotations

from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from pydantic import SecretStr

from agency.relocation.migrators.base import Creates
from agency.relocation.workshop import Run
from descriptors.relocation import Task
from vendor_modules.capabilities import Addresses, KeyPairs, SecurityGroups
from vendor_modules.resources import Address, KeyPair, Rule, SecurityGroup
from vendor_modules.services.credentials import KeyPairCredentials


class CreateKeyPair(Creates):
    """A key of the agency's own for the machines of one agreement; its private half is kept encrypted."""

    name = "create-key-pair"
    needs = KeyPairs
    kind = "key-pair"
    serves = "component"

    async def create(self, task: Task, run: Run) -> KeyPair:
        """See :class:`Creates`."""
        module = run.module(task.vendor, KeyPairs)
        credentials = await self._credentials(module, run.order.agreement_at(task.vendor).id)
        name = f"{run.order.application.name}-{run.order.id}"
        return await module.create_key_pair(name, credentials.public_key, key=run.key(task))

    async def _credentials(self, module: KeyPairs, agreement: str) -> KeyPairCredentials:
        """The agreement's key, made and kept at the first call: a repeated task must not make another."""
        store, vendor = module.services.credentials, f"{module.vendor}.machines"
        kept = await store.get(vendor, agreement=agreement)
        if isinstance(kept, KeyPairCredentials):
            return kept
        private = Ed25519PrivateKey.generate()
        public = private.public_key().public_bytes(serialization.Encoding.OpenSSH, serialization.PublicFormat.OpenSSH)
        secret = private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.OpenSSH, serialization.NoEncryption()
        )
        made = KeyPairCredentials(public_key=public.decode(), private_key=SecretStr(secret.decode()))
        await store.put(vendor, made, agreement=agreement)
        return made


class CreateSecurityGroup(Creates):
    """The ingress rules of one component: its port, from anywhere."""

    name = "create-security-group"
    needs = SecurityGroups
    kind = "security-group"
    serves = "component"

    async def create(self, task: Task, run: Run) -> SecurityGroup:
        """See :class:`Creates`."""
        component = run.component(task)
        rules = [Rule(port=component.port)] if component.port else []
        module = run.module(task.vendor, SecurityGroups)
        name = f"{run.order.application.name}-{component.name}-{run.order.id}"
        return await module.create_security_group(name, rules, key=run.key(task))


class CreateAddress(Creates):
    """A public address for one component, leading nowhere yet."""

    name = "create-address"
    needs = Addresses
    kind = "address"
    serves = "component"

    async def create(self, task: Task, run: Run) -> Address:
        """See :class:`Creates`."""
        module = run.module(task.vendor, Addresses)
        return await module.create_address(f"{run.order.application.name}-{task.subject}", key=run.key(task))
