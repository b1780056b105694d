"""The Triton module: the conformance suite on a stub of CloudAPI, signatures, and what is this protocol's own."""

from __future__ import annotations

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat, PublicFormat

from tests.labs.smartos_server import IMAGE, SmartosServer
from tests.vendor_modules.protocols.helpers import made
from vendor_modules import conformance
from vendor_modules.capabilities import release
from vendor_modules.conformance.pytest_support import lender  # noqa: F401 - a fixture
from vendor_modules.errors import Conflict, Throttled, Unauthorized, Unsupported
from vendor_modules.protocols.smartos import SmartosModule, SmartosSettings, signed
from vendor_modules.resources import MachineSpec, Rule, Status, UserData
from vendor_modules.services.credentials import KeyPairCredentials

ACCOUNT = "demo"


def key_pair(key) -> KeyPairCredentials:
    """Credentials of a private key."""
    private = key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
    public = key.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
    return KeyPairCredentials(public_key=public, private_key=private)


RSA = key_pair(rsa.generate_private_key(65537, 2048))


@pytest.fixture(scope="module")
def cloud():
    with SmartosServer(ACCOUNT, RSA.public_key, page=5) as server:
        yield server


@pytest.fixture(scope="module")
def subject(cloud):
    return conformance.Subject(
        SmartosModule,
        SmartosSettings(url=cloud.url, account=ACCOUNT, prices={"g4-general-1G": "0.026", "g4-general-4G": "0.12"}),
        RSA,
        image=IMAGE,
        machines_run=False,
        unknown_id="0b5c2b6a-1111-4c5c-9999-123456789abc",
        page_size=5,
    )


@pytest.mark.parametrize("check", conformance.checks_for(SmartosModule), ids=str)
async def test_conformance(check, subject, lender):  # noqa: F811 - the fixture
    """The module does what the conformance suite asks."""
    result = await conformance.run_check(check, subject, lender)
    assert result.outcome != "failed", result.reason


# --- signatures ---

DRAFT_KEY = """-----BEGIN RSA PRIVATE KEY-----
MIICXgIBAAKBgQDCFENGw33yGihy92pDjZQhl0C36rPJj+CvfSC8+q28hxA161QF
NUd13wuCTUcq0Qd2qsBe/2hFyc2DCJJg0h1L78+6Z4UMR7EOcpfdUE9Hf3m/hs+F
UR45uBJeDK1HSFHD8bHKD6kv8FPGfJTotc+2xjJwoYi+1hqp1fIekaxsyQIDAQAB
AoGBAJR8ZkCUvx5kzv+utdl7T5MnordT1TvoXXJGXK7ZZ+UuvMNUCdN2QPc4sBiA
QWvLw1cSKt5DsKZ8UETpYPy8pPYnnDEz2dDYiaew9+xEpubyeW2oH4Zx71wqBtOK
kqwrXa/pzdpiucRRjk6vE6YY7EBBs/g7uanVpGibOVAEsqH1AkEA7DkjVH28WDUg
f1nqvfn2Kj6CT7nIcE3jGJsZZ7zlZmBmHFDONMLUrXR/Zm3pR5m0tCmBqa5RK95u
412jt1dPIwJBANJT3v8pnkth48bQo/fKel6uEYyboRtA5/uHuHkZ6FQF7OUkGogc
mSJluOdc5t6hI1VsLn0QZEjQZMEOWr+wKSMCQQCC4kXJEsHAve77oP6HtG/IiEn7
kpyUXRNvFsDE0czpJJBvL/aRFUJxuRK91jhjC68sA7NsKMGg5OXb5I5Jj36xAkEA
gIT7aFOYBFwGgQAQkWNKLvySgKbAZRTeLBacpHMuQdl1DfdntvAyqpAZ0lY0RKmW
G6aFKaqQfOXKCyWoUiVknQJAXrlgySFci/2ueKlIE1QqIiLSZ8V8OlpFLRnb1pzI
7U1yQXnTAEFYM560yJlzUpOb1V4cScGd365tiSMvxLOvTA==
-----END RSA PRIVATE KEY-----
"""
"""The published test key of draft-cavage-http-signatures, appendix C: everybody has it."""
DRAFT_SIGNATURE = (
    "SjWJWbWN7i0wzBvtPl8rbASWz5xQW6mcJmn+ibttBqtifLN7Sazz6m79cNfwwb8DMJ5cou1s7uEGKKCs+FLEEaDV5lp7q25WqS+lavg7T8hc0GppauB"
    "6hbgEKTwblDHYGEtbGmtdHgVCk9SuS13F0hZ8FD0k/5OxEPXe5WozsbM="
)


def test_signature_is_that_of_the_draft():
    """The draft's "default test" (C.1), which signs the date alone, comes out as printed there."""
    algorithm, _, signature = signed(DRAFT_KEY, "date: Sun, 05 Jan 2014 21:31:40 GMT")
    assert (algorithm, signature) == ("rsa-sha256", DRAFT_SIGNATURE)


@pytest.mark.parametrize("curve", [ec.SECP256R1(), ec.SECP384R1(), ec.SECP521R1()], ids=lambda curve: curve.name)
async def test_ecdsa_keys_log_in(curve):
    """The keys of all three curves that CloudAPI takes sign requests that are accepted."""
    credentials = key_pair(ec.generate_private_key(curve))
    with SmartosServer(ACCOUNT, credentials.public_key) as cloud:
        async with made(SmartosModule, credentials, url=cloud.url, account=ACCOUNT) as module:
            assert await module.list_machines() == []


async def test_openssh_form_logs_in():
    """A private key in OpenSSH's own form is read."""
    key = rsa.generate_private_key(65537, 2048)
    credentials = key_pair(key)
    private = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()).decode()
    with SmartosServer(ACCOUNT, credentials.public_key) as cloud:
        given = credentials.model_copy(update={"private_key": type(credentials.private_key)(private)})
        async with made(SmartosModule, given, url=cloud.url, account=ACCOUNT) as module:
            assert await module.list_machines() == []


async def test_other_keys_are_refused_before_anything_is_sent(cloud):
    """An Ed25519 key, which CloudAPI does not take, is Unauthorized, and no request leaves."""
    before = len(cloud.seen)
    async with made(SmartosModule, key_pair(ed25519.Ed25519PrivateKey.generate()), url=cloud.url, account=ACCOUNT) as m:
        with pytest.raises(Unauthorized, match="RSA and ECDSA"):
            await m.list_machines()
    assert len(cloud.seen) == before


async def test_another_accounts_key_is_unauthorized(cloud):
    """A key that the account does not have is Unauthorized."""
    other = key_pair(rsa.generate_private_key(65537, 2048))
    async with made(SmartosModule, other, url=cloud.url, account=ACCOUNT) as module:
        with pytest.raises(Unauthorized):
            await module.list_machines()


# --- what is this protocol's own ---


@pytest.fixture
def fresh():
    with SmartosServer(ACCOUNT, RSA.public_key) as server:
        yield server


@pytest.fixture
async def module(fresh):
    async with made(SmartosModule, RSA, url=fresh.url, account=ACCOUNT) as made_module:
        yield made_module


async def a_machine(module, key, **changes):
    """A machine of the smaller size."""
    spec = MachineSpec(name="one", image=IMAGE, size="g4-general-1G", **changes)
    return await module.create_machine(spec, key=key)


async def test_user_data_goes_where_cloud_init_reads_it(fresh, module):
    """The first boot's script is in the metadata that cloud-init evaluates once, not in the one of every boot."""
    machine = await a_machine(module, "user-data", user_data=UserData(files={"a": b"b"}))
    metadata = fresh.cloud.machines[machine.id].metadata
    assert metadata["cloud-init:user-data"].startswith("#!/bin/sh\n")
    assert "user-script" not in metadata
    await module.destroy_machine(machine.id)


async def test_rules_are_for_the_groups_tag(fresh, module):
    """A group's machines bear its tag and have their firewall on; its rules are for that tag."""
    group = await module.create_security_group("web", [Rule(port=80), Rule(port=22, cidr="10.0.0.0/8")], key="rules")
    machine = await a_machine(module, "rules", security_groups=(group.id,))
    there = fresh.cloud.machines[machine.id]
    assert there.firewall_enabled
    assert there.tags[group.id] == "true"
    texts = {rule["rule"] for rule in fresh.cloud.rules.values() if rule["enabled"]}
    assert f'FROM subnet 10.0.0.0/8 TO tag "{group.id}" ALLOW tcp PORT 22' in texts
    await module.destroy_machine(machine.id)
    await module.destroy_security_group(group.id)


async def test_half_made_group_is_completed(fresh, module):
    """A group whose creation broke off after some rules gets the others when it is created again with its key."""
    rules = [Rule(port=80), Rule(port=443)]
    group = await module.create_security_group("web", rules, key="half")
    lost = [
        i for i, r in fresh.cloud.rules.items() if group.id in r["rule"] and ("443" in r["rule"] or not r["enabled"])
    ]
    for rule_id in lost:
        del fresh.cloud.rules[rule_id]
    again = await module.create_security_group("web", rules, key="half")
    assert (again.id, set(again.rules)) == (group.id, set(rules))
    await module.destroy_security_group(group.id)


async def test_half_made_network_is_completed(fresh, module):
    """A VLAN whose network was not made any more gets it when the network is created again with its key."""
    network = await module.create_network("private", "10.1.0.0/24", key="half")
    fresh.cloud.networks.clear()
    assert [n.status for n in await module.list_networks()] == [Status.PENDING]
    again = await module.create_network("private", "10.1.0.0/24", key="half")
    assert (again.key, again.cidr, len(fresh.cloud.vlans)) == (network.key, network.cidr, 1)
    await module.destroy_network(again.id)
    assert not fresh.cloud.vlans


async def test_vlan_without_its_network_can_be_released(fresh, module):
    """What is left of a network that was only half made is found by its key and removed."""
    await module.create_network("private", "10.1.0.0/24", key="half")
    fresh.cloud.networks.clear()
    assert await release(module, "network", "half") == 1
    assert not fresh.cloud.vlans


async def test_only_stopped_machines_become_images(module):
    """An image of a running machine is refused with Conflict."""
    machine = await a_machine(module, "bundle")
    with pytest.raises(Conflict):
        await module.bundle_machine(machine.id, "image", key="bundle")
    await module.destroy_machine(machine.id)


async def test_quotas_are_the_accounts_limits(module):
    """Limits are told in our words; one for a single operating system is no limit of the account."""
    quotas = {quota.resource: (quota.limit, quota.used) for quota in await module.quotas()}
    assert quotas == {"machines": (100, 2), "memory-mib": (1024, 512)}


async def test_throttling_is_known_by_its_own_status(module):
    """Status 420, which is CloudAPI's for too many requests, is Throttled."""
    error = await module._error_of(httpx.Response(420, json={"code": "RequestThrottled", "message": "slow down"}))
    assert isinstance(error, Throttled)


async def test_data_centre_without_limits_has_none(module, fresh):
    """Where the operator has no limits plugin, quotas are refused as Unsupported."""
    fresh.limits = None
    with pytest.raises(Unsupported):
        await module.quotas()
