"""Objects in buckets, read and written with the account's own credentials."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from descriptors.base import MIB
from vendor_modules.capabilities import Objects
from vendor_modules.conformance.bench import Bench, CheckFailed, digest, expect, refused, stream
from vendor_modules.conformance.checks.images import SourceBroke
from vendor_modules.conformance.lender import all_at_once
from vendor_modules.conformance.registry import check
from vendor_modules.conformance.samples import noise
from vendor_modules.errors import InvalidRequest, NotFound, ProtocolError, ResourceFailed, VendorError
from vendor_modules.resources import Bucket

NAMES = (
    "one",
    "folder/in/folder",
    "Grüße 世界 🚀",
    "a b+c%d?e#f&g=h;i",
    ".hidden",
    "ends with.",
    "x" * 200,
    "%2F",
    "~'\"<>",
)
AT_ONCE = 8
_UNTRUE = (InvalidRequest, ResourceFailed, ProtocolError)


async def _bucket(bench: Bench, word: str = "bucket") -> Bucket:
    return await bench.the(Objects).create_bucket(word, key=bench.key(word))


async def _put(bench: Bench, bucket: Bucket, name: str, content: bytes) -> None:
    await bench.the(Objects).put_object(bucket.id, name, stream(content), size=len(content))


async def _get(bench: Bench, bucket: Bucket, name: str, offset: int = 0) -> bytes:
    chunks = [chunk async for chunk in bench.the(Objects).get_object(bucket.id, name, offset=offset)]
    largest = max(map(len, chunks), default=0)
    expect(largest <= 8 * MIB, f"a chunk has {largest} bytes: the whole object must not be in memory")
    return b"".join(chunks)


async def _names(bench: Bench, bucket: Bucket, prefix: str = "") -> list[str]:
    return [stored.name for stored in await bench.the(Objects).list_objects(bucket.id, prefix=prefix)]


@check(Objects)
async def stored_object_comes_out_as_it_went_in(bench: Bench) -> None:
    """An object is read back byte for byte, whatever its name."""
    bucket = await _bucket(bench)
    for name in NAMES:
        await _put(bench, bucket, name, name.encode() * 100)
        got = await _get(bench, bucket, name)
        expect(got == name.encode() * 100, f"{name!r} came out as {got[:40]!r}…")
    for name in NAMES:
        expect(await _get(bench, bucket, name) == name.encode() * 100, f"{name!r} was changed by another object")


@check(Objects)
async def stored_object_is_replaced(bench: Bench) -> None:
    """An object that is stored again under its name is the new one, and listed once."""
    bucket = await _bucket(bench)
    for content in (b"a long first content", b"short", b""):
        await _put(bench, bucket, "name", content)
        expect(await _get(bench, bucket, "name") == content, "the old content is there")
    listed = [(stored.name, stored.size) for stored in await bench.the(Objects).list_objects(bucket.id)]
    expect(listed == [("name", 0)], f"listed is {listed}")


@check(Objects)
async def stored_object_may_be_empty(bench: Bench) -> None:
    """An object without a byte is an object."""
    bucket = await _bucket(bench)
    await _put(bench, bucket, "empty", b"")
    expect(await _get(bench, bucket, "empty") == b"", "bytes came out")
    expect(await _names(bench, bucket) == ["empty"], "it is not listed")


@check(Objects)
async def large_object_is_streamed(bench: Bench) -> None:
    """An object of many MiB goes in and comes out in chunks of a few, byte for byte."""
    bucket, content = await _bucket(bench), noise(24 * MIB + 7)
    await _put(bench, bucket, "large", content)
    got = await _get(bench, bucket, "large")
    expect(digest(got) == digest(content), f"{len(content)} bytes went in, other {len(got)} came out")


@check(Objects)
async def object_is_read_from_an_offset(bench: Bench) -> None:
    """Reading from any offset gives exactly the rest, at and beyond the end nothing."""
    bucket, content = await _bucket(bench), noise(2 * MIB + 5)
    await _put(bench, bucket, "name", content)
    end = len(content)
    for offset in (1, MIB, end - 1, end, end + 1):
        got = await _get(bench, bucket, "name", offset)
        expect(got == content[offset:], f"from {offset}: {len(got)} bytes, expected {max(0, end - offset)}")


@check(Objects)
async def object_reading_may_be_broken_off(bench: Bench) -> None:
    """Reading that is not gone on with to the end disturbs nothing."""
    bucket, content = await _bucket(bench), noise(4 * MIB)
    await _put(bench, bucket, "name", content)
    chunks = bench.the(Objects).get_object(bucket.id, "name")
    expect(content.startswith(await anext(chunks)), "the first chunk is not the beginning")
    await chunks.aclose()  # type: ignore[attr-defined]  # they are generators
    expect(await _get(bench, bucket, "name") == content, "reading again gives something else")


@check(Objects)
async def stored_objects_are_listed_in_order(bench: Bench) -> None:
    """All objects are listed with their sizes, ordered by the code points of their names."""
    bucket = await _bucket(bench)
    for size, name in enumerate(NAMES):
        await _put(bench, bucket, name, bytes(size))
    listed = [(stored.name, stored.size) for stored in await bench.the(Objects).list_objects(bucket.id)]
    wanted = sorted((name, size) for size, name in enumerate(NAMES))
    expect(listed == wanted, f"listed are {listed}, expected {wanted}")


@check(Objects)
async def stored_objects_are_listed_by_prefix(bench: Bench) -> None:
    """With a prefix, those objects are listed whose names begin with it, and no others."""
    bucket = await _bucket(bench)
    names = ("a", "a/1", "a/2", "ab", "b", "Ü/1", "Ü/2", "a%", "a b")
    for name in names:
        await _put(bench, bucket, name, b"content")
    for prefix in ("a", "a/", "Ü/", "a%", "a ", "c", "/"):
        wanted = sorted(name for name in names if name.startswith(prefix))
        got = await _names(bench, bucket, prefix)
        expect(got == wanted, f"with the prefix {prefix!r}, {got} are listed, expected {wanted}")


@check(Objects)
async def object_list_has_all_pages(bench: Bench) -> None:
    """A list of more objects than the provider has on a page is complete."""
    bucket, gate = await _bucket(bench), asyncio.Semaphore(AT_ONCE)
    names = [f"object-{number:05}" for number in range(bench.subject.page_size + 1)]

    async def put(name: str) -> None:
        async with gate:
            await _put(bench, bucket, name, b"x")

    await all_at_once(put(name) for name in names)
    got = await _names(bench, bucket)
    expect(got == names, f"{len(got)} are listed, expected {len(names)}")
    await bench.the(Objects).destroy_bucket(bucket.id)  # with all of them in it


@check(Objects)
async def deleted_stored_object_is_gone(bench: Bench) -> None:
    """A deleted object is NotFound and not listed, the others stay; deleting it again is fine."""
    bucket, objects = await _bucket(bench), bench.the(Objects)
    for name in ("one", "two"):
        await _put(bench, bucket, name, b"content")
    for _ in range(2):
        await objects.delete_object(bucket.id, "one")
    await refused(_get(bench, bucket, "one"), NotFound, what="read a deleted object")
    expect(await _names(bench, bucket) == ["two"], "the list is not what is left")
    expect(await _get(bench, bucket, "two") == b"content", "another object was deleted with it")


@check(Objects)
async def unknown_object_is_not_found(bench: Bench) -> None:
    """Reading an object that is not there, and reading, writing or listing in an unknown bucket raise NotFound."""
    bucket, objects, unknown = await _bucket(bench), bench.the(Objects), bench.unknown("bucket")
    lost = bucket.model_copy(update={"id": unknown})
    await refused(_get(bench, bucket, "never"), NotFound, what="read an unknown object")
    await refused(_get(bench, lost, "never"), NotFound, what="read in an unknown bucket")
    await refused(_put(bench, lost, "never", b"content"), NotFound, what="write to an unknown bucket")
    await refused(objects.list_objects(unknown), NotFound, what="list an unknown bucket")


@check(Objects)
async def object_whose_source_breaks_is_not_stored(bench: Bench) -> None:
    """When the content cannot be read to its end, the object is what it was before: the old one, or none."""
    bucket, objects, content = await _bucket(bench), bench.the(Objects), noise(2 * MIB)

    async def half() -> AsyncIterator[bytes]:
        yield content[:MIB]
        raise SourceBroke

    await _put(bench, bucket, "old", b"the old content")
    for name in ("old", "new"):
        try:
            await objects.put_object(bucket.id, name, half, size=len(content))
        except (SourceBroke, VendorError):
            continue
        raise CheckFailed("half of the content was taken for all of it")
    expect(await _get(bench, bucket, "old") == b"the old content", "the old object is not what it was")
    expect(await _names(bench, bucket) == ["old"], "a part of the new object is listed")
    await _put(bench, bucket, "new", content)
    expect(await _get(bench, bucket, "new") == content, "stored again, it is something else")


@check(Objects)
async def object_of_another_size_is_refused(bench: Bench) -> None:
    """Content that is longer or shorter than declared is refused, and no object is made of it."""
    bucket, objects, content = await _bucket(bench), bench.the(Objects), noise(100_000)
    for size in (len(content) - 1, len(content) + 1):
        call = objects.put_object(bucket.id, "wrong", stream(content), size=size)
        await refused(call, *_UNTRUE, what=f"store {len(content)} bytes that were declared as {size}")
    expect(await _names(bench, bucket) == [], "an object was made all the same")


@check(Objects)
async def bucket_counts_what_is_stored(bench: Bench) -> None:
    """A bucket tells how many objects and bytes are in it."""
    bucket, objects = await _bucket(bench), bench.the(Objects)
    for name, size in (("one", 10), ("two", 500), ("one", 7)):
        await _put(bench, bucket, name, bytes(size))
    seen = await objects.describe_bucket(bucket.id)
    expect((seen.objects, seen.bytes) == (2, 507), f"it tells {seen.objects} objects, {seen.bytes} bytes")


@check(Objects)
async def buckets_do_not_share_objects(bench: Bench) -> None:
    """Objects of one name in two buckets are two objects."""
    one, two = await _bucket(bench, "one"), await _bucket(bench, "two")
    for bucket, content in ((one, b"first"), (two, b"second")):
        await _put(bench, bucket, "name", content)
    await bench.the(Objects).destroy_bucket(two.id)
    expect(await _get(bench, one, "name") == b"first", "it is the other bucket's")


@check(Objects)
async def objects_may_be_handled_at_once(bench: Bench) -> None:
    """Many objects can be written and read at the same time, and none is mixed up with another."""
    bucket = await _bucket(bench)

    async def there_and_back(number: int) -> None:
        content = noise(100_000 + number)
        await _put(bench, bucket, f"object-{number}", content)
        expect(await _get(bench, bucket, f"object-{number}") == content, f"object {number} came out changed")

    await all_at_once(there_and_back(number) for number in range(AT_ONCE))
