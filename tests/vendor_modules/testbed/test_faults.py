"""What the module makes of a network that loses, cuts and garbles, and of a cloud that lies: on a real cloud, through a
proxy that does these things."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable

import pytest
import pytest_asyncio
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from tests.labs.testbed import RunningCloud, module_for
from tests.vendor_modules.testbed.helpers import image, machine
from tests.vendor_modules.testbed.proxy import Fault, Proxy, cut, lost, running_proxy, says
from vendor_modules.capabilities import inventory
from vendor_modules.errors import ProtocolError, Throttled, TimedOut, Unauthorized, Unavailable
from vendor_modules.resources import Resource, VolumeSpec
from vendor_modules.testbed.module import TestbedModule, TestbedSettings

pytestmark = pytest.mark.integration

PUBLIC_KEY = Ed25519PrivateKey.generate().public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH).decode()
DATA = bytes(range(256)) * 4096


@pytest_asyncio.fixture
async def proxy() -> AsyncIterator[Proxy]:
    """A proxy between the module and the cloud."""
    async with running_proxy() as running:
        yield running


@pytest_asyncio.fixture
async def through(desk: RunningCloud, cloud: TestbedModule, proxy: Proxy) -> AsyncIterator[TestbedModule]:
    """A module that reaches the shared cloud through the proxy; what a test leaves there is removed by ``cloud``."""
    direct = module_for(desk.url)
    settings = TestbedSettings.model_validate({"url": desk.url, "proxy": proxy.url})
    await direct._close()
    async with TestbedModule("desk", settings, direct.services) as module:
        yield module


Make = Callable[[TestbedModule], Awaitable[Resource]]


async def _snapshot(module: TestbedModule) -> Resource:
    volume = await module.create_volume(VolumeSpec(name="v", size_mib=1), key="v")
    return await module.create_snapshot(volume.id, "s", key="s")


async def _access_key(module: TestbedModule) -> Resource:
    bucket = await module.create_bucket("b", key="b")
    return await module.create_access_key(bucket.id, internal=False, key="k")


CREATED: dict[str, tuple[str, Make]] = {
    "machine": ("POST /v1/instances", lambda m: m.create_machine(machine(None), key="m")),
    "volume": ("POST /v1/volumes", lambda m: m.create_volume(VolumeSpec(name="v", size_mib=1), key="v")),
    "snapshot": ("POST /v1/volumes/", _snapshot),
    "image": ("POST /v1/images", lambda m: m.upload_image(*image(DATA), key="i")),
    "image content": ("PUT /v1/images", lambda m: m.upload_image(*image(DATA), key="i")),
    "key pair": ("POST /v1/key-pairs", lambda m: m.create_key_pair("k", PUBLIC_KEY, key="k")),
    "group": ("POST /v1/security-groups", lambda m: m.create_security_group("g", [], key="g")),
    "address": ("POST /v1/addresses", lambda m: m.create_address("a", key="a")),
    "load balancer": ("POST /v1/load-balancers", lambda m: m.create_load_balancer("l", 8080, [], key="l")),
    "bucket": ("POST /v1/buckets", lambda m: m.create_bucket("b", key="b")),
    "access key": ("POST /v1/buckets/", _access_key),
}
"""For a kind of resource: the request that makes it, and a call that makes one with what it needs."""
FAULTS: dict[str, Fault] = {
    "the answer is lost": lost,
    "the answer breaks off": cut,
    "the token is refused": says(401, body='{"error": {"code": "unauthorized", "message": "who?"}}'),
    "too many calls": says(429, "retry-after: 0"),
    "out of order": says(503),
    "a proxy's own error": says(502, body="<html>Bad Gateway</html>", forwarded=True),
}


@pytest.mark.parametrize(
    ("kind", "fault"),
    [(kind, "the answer is lost") for kind in CREATED]
    + [(kind, fault) for kind in ("volume", "image content") for fault in FAULTS if fault != "the answer is lost"],
)
async def test_one_fault_makes_no_difference(
    through: TestbedModule, cloud: TestbedModule, proxy: Proxy, kind: str, fault: str
) -> None:
    """Whatever happens once to the call that creates a resource, it is there in the end, and it is there once."""
    requests, make = CREATED[kind]
    await through.list_machines()
    proxy.inject(requests, FAULTS[fault])
    made = await make(through)
    assert proxy.spent
    held = [resource for _, resource in await inventory(cloud)]
    assert held.count(made) == 1
    assert len({type(resource) for resource in held}) == len(held)


@pytest.mark.parametrize("kind", ["machine", "volume", "image", "image content", "load balancer"])
async def test_garbage_is_said_and_leaves_one(
    through: TestbedModule, cloud: TestbedModule, proxy: Proxy, kind: str
) -> None:
    """When the call was done and answered with nonsense, that is said, and the same key then gives the resource."""
    requests, make = CREATED[kind]
    proxy.inject(requests, says(200, body="<html>Welcome!</html>", forwarded=True))
    with pytest.raises(ProtocolError):
        await make(through)
    made = await make(through)
    assert [resource for _, resource in await inventory(cloud)].count(made) == 1


@pytest.mark.parametrize("fault", FAULTS)
async def test_objects_are_stored_through_one_fault(through: TestbedModule, proxy: Proxy, fault: str) -> None:
    """Whatever happens once to a call about an object, the object is stored, listed, read and removed."""
    bucket = await through.create_bucket("b", key="b")
    content = image(DATA)[1]
    proxy.inject("PUT /v1/buckets", FAULTS[fault])
    await through.put_object(bucket.id, "ä b/?", content, size=len(DATA))
    assert proxy.spent
    proxy.inject("GET /v1/buckets", FAULTS[fault])
    assert [(o.name, o.size) for o in await through.list_objects(bucket.id)] == [("ä b/?", len(DATA))]
    assert proxy.spent
    proxy.inject("DELETE /v1/buckets", FAULTS[fault])
    await through.delete_object(bucket.id, "ä b/?")
    assert proxy.spent
    assert await through.list_objects(bucket.id) == []


async def _read(module: TestbedModule, bucket: str, offset: int, into: bytearray) -> None:
    async for chunk in module.get_object(bucket, "a", offset=offset):
        into += chunk


async def test_a_transfer_that_breaks_off_goes_on(through: TestbedModule, proxy: Proxy) -> None:
    """A download that is cut says so, keeps what had come, and goes on from there; one whose token is refused does not
    even notice; one whose end cannot be told is not taken for whole."""
    bucket = await through.create_bucket("b", key="b")
    await through.put_object(bucket.id, "a", image(DATA)[1], size=len(DATA))
    got = bytearray()
    proxy.inject("GET /v1/buckets", cut)
    with pytest.raises(Unavailable):
        await _read(through, bucket.id, 0, got)
    assert len(got) == len(DATA) // 2
    proxy.inject("GET /v1/buckets", FAULTS["the token is refused"])
    await _read(through, bucket.id, len(got), got)
    assert proxy.spent
    assert got == DATA

    async def endless(*_: object) -> bytes:
        return b"HTTP/1.1 200 OK\r\nconnection: close\r\n\r\nsome of it"

    proxy.inject("GET /v1/buckets", endless)
    with pytest.raises(ProtocolError, match="where its content ends"):
        await _read(through, bucket.id, 0, got)


DESTROYED = {
    "machine": TestbedModule.destroy_machine,
    "volume": TestbedModule.destroy_volume,
    "snapshot": TestbedModule.destroy_snapshot,
    "image": TestbedModule.destroy_image,
    "key pair": TestbedModule.destroy_key_pair,
    "group": TestbedModule.destroy_security_group,
    "address": TestbedModule.destroy_address,
    "load balancer": TestbedModule.destroy_load_balancer,
    "bucket": TestbedModule.destroy_bucket,
    "access key": TestbedModule.destroy_access_key,
}


@pytest.mark.parametrize("kind", DESTROYED)
async def test_a_lie_about_destruction_is_noticed(
    through: TestbedModule, cloud: TestbedModule, proxy: Proxy, kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A cloud that says a resource is gone, which is there, is not believed; asked again it is gone, also when the
    answer to that is lost."""
    made = await CREATED[kind][1](through)
    proxy.inject("DELETE /v1/", says(204))
    with monkeypatch.context() as patched:
        patched.setattr(through, "settle_timeout", 0.3)
        with pytest.raises(TimedOut, match="expected gone"):
            await DESTROYED[kind](through, made.id)
    assert made in [resource for _, resource in await inventory(cloud)]
    proxy.inject("DELETE /v1/", lost)
    await DESTROYED[kind](through, made.id)
    assert proxy.spent
    assert made not in [resource for _, resource in await inventory(cloud)]


@pytest.mark.parametrize("answer", [says(200, body="{}"), says(204)], ids=["empty", "nothing"])
async def test_lies_about_changes_are_noticed(
    through: TestbedModule, cloud: TestbedModule, proxy: Proxy, answer: Fault
) -> None:
    """What was not done, and is answered as if it were, is no success: storing an object, leading an address or a load
    balancer elsewhere."""
    bucket, address = await through.create_bucket("b", key="b"), await through.create_address("a", key="a")
    balancer = await through.create_load_balancer("l", 8080, [], key="l")
    made = await through.create_machine(machine(None), key="m")
    for call in (
        lambda: through.put_object(bucket.id, "a", image(b"data")[1], size=4),
        lambda: through.associate_address(address.id, made.id),
        lambda: through.balance(balancer.id, [made.id]),
    ):
        proxy.inject("P", answer)
        with pytest.raises(ProtocolError):
            await call()
    assert await cloud.list_objects(bucket.id) == []
    assert {address, balancer} <= {resource for _, resource in await inventory(cloud)}


async def test_a_lie_about_an_object_is_noticed(through: TestbedModule, cloud: TestbedModule, proxy: Proxy) -> None:
    """A cloud that says an object is removed, which is there, is asked again; in the end that is said."""
    bucket = await through.create_bucket("b", key="b")
    await through.put_object(bucket.id, "a", image(DATA)[1], size=len(DATA))
    await through.put_object(bucket.id, "a/b", image(DATA)[1], size=len(DATA))
    proxy.inject("DELETE /v1/buckets", says(204), times=100)
    with pytest.raises(Unavailable, match="lists it"):
        await through.delete_object(bucket.id, "a")
    proxy.inject("DELETE /v1/buckets", says(204))
    await through.delete_object(bucket.id, "a")
    assert [stored.name for stored in await cloud.list_objects(bucket.id)] == ["a/b"]


async def test_pages_that_go_in_circles_are_noticed(through: TestbedModule, proxy: Proxy) -> None:
    """A list whose next page is this one again does not keep the module for ever."""
    proxy.inject("GET /v1/volumes", says(200, body='{"items": [], "next": 3}'), times=2)
    with pytest.raises(ProtocolError, match="next page"):
        await through.list_volumes()


async def test_a_login_that_is_answered_with_nonsense_is_no_login(through: TestbedModule, proxy: Proxy) -> None:
    """What is no token is not used as one; a lost answer to the login is asked for again."""
    proxy.inject("POST /v1/tokens", says(201, body='{"token": null}'))
    with pytest.raises(ProtocolError, match="Token"):
        await through.list_machines()
    proxy.inject("POST /v1/tokens", lost)
    assert await through.list_machines() == []


async def test_a_long_wait_is_left_to_the_caller(through: TestbedModule, proxy: Proxy) -> None:
    """Being asked to come back in an hour is an error that says so, at once."""
    proxy.inject("GET /v1/instances", says(429, "retry-after: 3600"))
    with pytest.raises(Throttled) as caught:
        await through.list_machines()
    assert caught.value.retry_after == 3600


async def test_credentials_that_expire_for_good_are_unauthorized(through: TestbedModule, proxy: Proxy) -> None:
    """When new tokens are refused as well, that is the answer, and nothing was made."""
    proxy.inject("POST /v1/instances", FAULTS["the token is refused"], times=2)
    with pytest.raises(Unauthorized, match="who"):
        await through.create_machine(machine(None), key="m")
    assert await through.list_machines() == []


async def test_all_goes_through_the_proxy(
    through: TestbedModule, proxy: Proxy, desk: RunningCloud, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The proxy of the settings sees every request; the environment's is not looked at."""
    await through.list_machines()
    assert proxy.seen == ["POST /v1/tokens", "GET /v1/instances?marker=0"]
    for name in "http_proxy", "HTTP_PROXY", "ALL_PROXY":
        monkeypatch.setenv(name, proxy.url)
    async with module_for(desk.url) as direct:
        await direct.list_machines()
    assert len(proxy.seen) == 2
