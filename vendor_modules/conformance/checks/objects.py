"""Keys to object storage, and objects over HTTP as applications use them."""

from __future__ import annotations

from urllib.parse import quote

import httpx

from vendor_modules.capabilities import AccessKeys
from vendor_modules.conformance.bench import Bench, expect, http_client, refused
from vendor_modules.conformance.registry import check
from vendor_modules.errors import NotFound
from vendor_modules.resources import AccessKey, Bucket

NAMES = ["one", "folder/in/folder", "Grüße 世界", "a b+c%d?e#f&g=h", ".hidden", "x" * 200]


async def _bucket(bench: Bench, word: str = "bucket") -> Bucket:
    return await bench.the(AccessKeys).create_bucket(word, key=bench.key(word))


async def _key(bench: Bench, bucket: Bucket, word: str = "key", *, internal: bool = False) -> AccessKey:
    made = await bench.the(AccessKeys).create_access_key(bucket.id, internal=internal, key=bench.key(word))
    bench.secrets.append(made.secret_key.get_secret_value())
    return made


async def _ask(key: AccessKey, method: str, name: str, content: bytes = b"", *, secret: str = "") -> httpx.Response:
    login = httpx.BasicAuth(key.access_key, secret or key.secret_key.get_secret_value())
    url = f"{key.endpoint}/{quote(name, safe='/')}"
    async with http_client(timeout=20, auth=login) as client:
        return await client.request(method, url, content=content)


async def _stored(key: AccessKey, name: str, content: bytes) -> None:
    answer = await _ask(key, "PUT", name, content)
    expect(answer.is_success, f"PUT {name!r} answers {answer.status_code}")


@check(AccessKeys)
async def object_comes_out_as_it_went_in(bench: Bench) -> None:
    """An object is read back byte for byte, whatever its name, and the last that was stored counts."""
    key = await _key(bench, await _bucket(bench))
    for name in NAMES:
        await _stored(key, name, b"old content, which is longer")
        await _stored(key, name, name.encode() * 1000)
        answer = await _ask(key, "GET", name)
        expect(answer.status_code == 200, f"GET {name!r} answers {answer.status_code}")
        expect(answer.content == name.encode() * 1000, f"{name!r} came out changed")


@check(AccessKeys)
async def large_and_empty_objects_are_kept(bench: Bench) -> None:
    """Objects of no byte and of several MiB are read back byte for byte."""
    key = await _key(bench, await _bucket(bench))
    for content in (b"", bytes(range(256)) * 16_384):
        await _stored(key, "object", content)
        got = (await _ask(key, "GET", "object")).content
        expect(got == content, f"{len(content)} bytes went in, {len(got)} came out")


@check(AccessKeys)
async def objects_are_listed(bench: Bench) -> None:
    """GET of the endpoint itself lists the objects: ``{"objects": [{"key", "size"}, …]}``."""
    key = await _key(bench, await _bucket(bench))
    for size, name in enumerate(NAMES):
        await _stored(key, name, bytes(size))
    answer = await _ask(key, "GET", "")
    expect(answer.status_code == 200, f"the list answers {answer.status_code}")
    listed = {entry["key"]: entry["size"] for entry in answer.json()["objects"]}
    expect(listed == {name: size for size, name in enumerate(NAMES)}, f"listed are {listed}")


@check(AccessKeys)
async def deleted_object_is_gone(bench: Bench) -> None:
    """A deleted object answers 404, as one that never was, and the others stay."""
    key = await _key(bench, await _bucket(bench))
    for name in ("one", "two"):
        await _stored(key, name, b"content")
    answer = await _ask(key, "DELETE", "one")
    expect(answer.is_success, f"DELETE answers {answer.status_code}")
    expect((await _ask(key, "GET", "one")).status_code == 404, "it is still there")
    expect((await _ask(key, "GET", "never")).status_code == 404, "an object that never was is found")
    expect((await _ask(key, "GET", "two")).content == b"content", "another object was deleted with it")


@check(AccessKeys)
async def bucket_counts_its_objects(bench: Bench) -> None:
    """A bucket tells how many objects and bytes are in it, counting a replaced object once."""
    module, bucket = bench.the(AccessKeys), await _bucket(bench)
    expect((bucket.objects, bucket.bytes) == (0, 0), "a new bucket is not empty")
    key = await _key(bench, bucket)
    for name, size in (("one", 10), ("two", 500), ("one", 7)):
        await _stored(key, name, bytes(size))
    seen = await module.describe_bucket(bucket.id)
    expect((seen.objects, seen.bytes) == (2, 507), f"it tells {seen.objects} objects, {seen.bytes} bytes")
    await _ask(key, "DELETE", "two")
    seen = await module.describe_bucket(bucket.id)
    expect((seen.objects, seen.bytes) == (1, 7), f"it tells {seen.objects} objects, {seen.bytes} bytes")


@check(AccessKeys)
async def bucket_goes_with_all_that_is_in_it(bench: Bench) -> None:
    """A bucket with objects and keys can be destroyed, and its keys open nothing any more."""
    module, bucket = bench.the(AccessKeys), await _bucket(bench)
    key = await _key(bench, bucket)
    await _stored(key, "one", b"content")
    await module.destroy_bucket(bucket.id)
    expect(not (await _ask(key, "GET", "one")).is_success, "the object is still there")


@check(AccessKeys)
async def access_key_comes_with_its_secret_again(bench: Bench) -> None:
    """Making a key again with the same idempotency key gives it with the same, usable secret."""
    bucket = await _bucket(bench)
    first, again = await _key(bench, bucket), await _key(bench, bucket)
    expect(again == first, "the second is another")
    await _stored(again, "one", b"content")


@check(AccessKeys)
async def wrong_secret_opens_nothing(bench: Bench) -> None:
    """Without the right secret, objects can be neither read, written, listed nor deleted."""
    key = await _key(bench, await _bucket(bench))
    await _stored(key, "one", b"content")
    for method, name in (("GET", "one"), ("PUT", "one"), ("GET", ""), ("DELETE", "one")):
        answer = await _ask(key, method, name, b"other", secret="wrong")  # noqa: S106 - that is the point
        expect(answer.status_code in (401, 403), f"{method} /{name} answers {answer.status_code}")
    expect((await _ask(key, "GET", "one")).content == b"content", "the object was changed")


@check(AccessKeys)
async def revoked_key_stops_working(bench: Bench) -> None:
    """A destroyed key opens nothing from that moment on, while another key to the bucket still does."""
    module, bucket = bench.the(AccessKeys), await _bucket(bench)
    key, other = await _key(bench, bucket, "one"), await _key(bench, bucket, "two")
    await _stored(key, "one", b"content")
    await module.destroy_access_key(key.id)
    answer = await _ask(key, "GET", "one")
    expect(answer.status_code in (401, 403), f"it answers {answer.status_code}")
    expect((await _ask(other, "GET", "one")).content == b"content", "the other key does not work")


@check(AccessKeys)
async def key_opens_its_own_bucket_only(bench: Bench) -> None:
    """A key to one bucket does not open another."""
    one = await _key(bench, await _bucket(bench, "one"), "key-one")
    two = await _key(bench, await _bucket(bench, "two"), "key-two")
    await _stored(two, "object", b"content")
    crossed = one.model_copy(update={"endpoint": two.endpoint})
    if one.endpoint == two.endpoint:
        expect(not (await _ask(one, "GET", "object")).is_success, "it reads the other bucket's object")
    else:
        answer = await _ask(crossed, "GET", "object")
        expect(answer.status_code in (401, 403, 404), f"it answers {answer.status_code}")


@check(AccessKeys)
async def internal_and_public_keys_have_their_endpoints(bench: Bench) -> None:
    """Internal keys work at the internal endpoint, the others at the public one; both see the same objects."""
    bucket = await _bucket(bench)
    inner, outer = await _key(bench, bucket, "in", internal=True), await _key(bench, bucket, "out", internal=False)
    expect((inner.internal, outer.internal) == (True, False), "the keys do not say what they are")
    expect(inner.endpoint != outer.endpoint, f"both have the endpoint {inner.endpoint}")
    await _stored(inner, "one", b"content")
    expect((await _ask(outer, "GET", "one")).content == b"content", "the public key sees other objects")
    outside = await _ask(inner.model_copy(update={"endpoint": outer.endpoint}), "GET", "one")
    expect(outside.status_code in (401, 403), f"at the public endpoint, an internal key answers {outside.status_code}")


@check(AccessKeys)
async def key_to_an_unknown_bucket_is_not_found(bench: Bench) -> None:
    """Making a key to a bucket that is not there raises NotFound."""
    call = bench.the(AccessKeys).create_access_key(bench.unknown("bucket"), internal=False, key=bench.key())
    await refused(call, NotFound, what="make a key to an unknown bucket")
