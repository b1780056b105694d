"""Buckets, access keys and objects, on a real cloud."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.labs.testbed import RunningCloud, start_cloud
from tests.vendor_modules.testbed.helpers import eventually
from vendor_modules.errors import InvalidRequest, NotFound, QuotaExceeded
from vendor_modules.module import Content
from vendor_modules.resources import AccessKey
from vendor_modules.testbed.module import TestbedModule
from vendor_modules.testbed.objects import name_in

pytestmark = pytest.mark.integration


def client(key: AccessKey) -> httpx.AsyncClient:
    """A client that has the access key."""
    secret = key.secret_key.get_secret_value()
    return httpx.AsyncClient(base_url=key.endpoint, auth=(key.access_key, secret), trust_env=False)


async def bucket_and_key(cloud: TestbedModule, *, internal: bool = False) -> AccessKey:
    """A new bucket, and a key to it."""
    bucket = await cloud.create_bucket("files", key="b")
    return await cloud.create_access_key(bucket.id, internal=internal, key=f"k-{internal}")


async def test_objects_live(cloud: TestbedModule) -> None:
    """An object is stored, read whole or in part, replaced and removed; the bucket counts what is in it."""
    key = await bucket_and_key(cloud)
    async with client(key) as http:
        assert (await http.put("/a/b", content=b"one", headers={"content-type": "text/x"})).status_code == 201
        read = await http.get("/a/b")
        assert (read.content, read.headers["content-type"]) == (b"one", "text/x")
        assert (await http.put("/a/b", content=b"another")).status_code == 201
        assert (await http.get("/a/b", headers={"range": "bytes=2-"})).content == b"other"
        assert (await http.get("/a/b", headers={"range": "bytes=1-2"})).status_code == 416
        head = await http.head("/a/b")
        assert (head.headers["content-length"], head.content) == ("7", b"")
        await http.put("/empty", content=b"")
        bucket = await cloud.describe_bucket(key.bucket)
        assert (bucket.objects, bucket.bytes) == (2, 7)
        assert (await http.delete("/a/b")).status_code == 204
        assert (await http.get("/a/b")).status_code == 404
        assert (await http.post("/a/b")).status_code == 405
        assert (await http.delete("/")).status_code == 405
    bucket = await cloud.describe_bucket(key.bucket)
    assert (bucket.objects, bucket.bytes) == (1, 0)


async def test_lists_have_pages(cloud: TestbedModule) -> None:
    """A bucket is listed by name, in pages, below a prefix."""
    key = await bucket_and_key(cloud)
    async with client(key) as http:
        for name in "a/1", "a/2", "a/3", "b":
            await http.put(f"/{name}", content=name.encode())
        first = (await http.get("/", params={"limit": 2})).json()
        assert [item["key"] for item in first["objects"]] == ["a/1", "a/2"]
        second = (await http.get("/", params={"limit": 2, "marker": first["next"]})).json()
        assert ([item["key"] for item in second["objects"]], second["next"]) == (["a/3", "b"], None)
        below = (await http.get("/", params={"prefix": "a/"})).json()
        assert len(below["objects"]) == 3
        assert (await http.get("/", params={"limit": "many"})).status_code == 422


async def test_keys_work_at_their_endpoint_only(cloud: TestbedModule) -> None:
    """Internal keys are for the internal endpoint, the others for the public one, each for its bucket till revoked."""
    public, internal = await bucket_and_key(cloud), await bucket_and_key(cloud, internal=True)
    assert public.endpoint != internal.endpoint
    swapped = (
        public.model_copy(update={"endpoint": internal.endpoint}),
        internal.model_copy(update={"endpoint": public.endpoint}),
    )
    elsewhere = public.model_copy(update={"endpoint": public.endpoint.replace(public.bucket, "bucket-0")})
    wrong = public.model_copy(update={"access_key": internal.access_key})
    for key, status in (
        (public, 200),
        (internal, 200),
        (swapped[0], 403),
        (swapped[1], 403),
        (elsewhere, 403),
        (wrong, 401),
    ):
        async with client(key) as http:
            assert (await http.get("/")).status_code == status
    async with httpx.AsyncClient(trust_env=False) as anybody:
        answer = await anybody.get(public.endpoint + "/x")
        assert (answer.status_code, answer.headers["www-authenticate"][:5]) == (401, "Basic")
    await cloud.destroy_access_key(public.id)
    async with client(public) as http:
        assert (await http.get("/")).status_code == 401


async def test_keys_are_made_once_and_go_with_their_bucket(cloud: TestbedModule) -> None:
    """A key is told again with its secret, never in a representation; a destroyed bucket's keys are gone."""
    key = await bucket_and_key(cloud)
    again = await cloud.create_access_key(key.bucket, internal=False, key="k-False")
    assert again == key == await cloud.describe_access_key(key.id)
    assert again.secret_key.get_secret_value() == key.secret_key.get_secret_value()
    assert key.secret_key.get_secret_value() not in repr(key)
    assert [found.id for found in await cloud.list_access_keys()] == [key.id]
    await cloud.destroy_bucket(key.bucket)
    with pytest.raises(NotFound):
        await cloud.describe_access_key(key.id)
    with pytest.raises(NotFound):
        await cloud.create_access_key(key.bucket, internal=False, key="new")


async def test_any_name_is_just_a_name(cloud: TestbedModule, desk: RunningCloud) -> None:
    """Names with dots, slashes and any Unicode come back as they are, and lead nowhere but into the bucket."""
    key = await bucket_and_key(cloud)
    before = sorted(desk.state.rglob("*"))
    async with client(key) as http:

        async def check(name: str, content: bytes) -> None:
            url = f"{key.endpoint}/{quote(name, safe='').replace('.', '%2E')}"
            assert (await http.put(url, content=content)).status_code == 201
            assert (await http.get(url)).content == content
            assert name in {o["key"] for o in (await http.get("/", params={"prefix": name})).json()["objects"]}
            await http.delete(url)

        for name in "..", "../../cloud.db", "/etc/passwd", "a//b", "ü €/\U0001f600", "%2e%2e", "x" * 1024, "?#&", "\n":
            await check(name, name.encode())
        too_long = await http.put("/" + "x" * 1025, content=b"")
        not_text = await http.put(f"{key.endpoint}/%ff", content=b"")
        assert (too_long.status_code, not_text.status_code) == (422, 422)
    changed = {path.name for path in desk.state.rglob("*")} - {path.name for path in before}
    assert changed == {key.bucket}


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(name=st.text(min_size=1, max_size=200), content=st.binary(max_size=100))
def test_object_names_survive_the_way(name: str, content: bytes) -> None:
    """Whatever a name holds, the endpoint reads from the request what the client meant."""
    from starlette.requests import Request

    from vendor_modules.testbed.objects import _names

    try:
        path = "/bucket/" + quote(name, safe="")
    except UnicodeEncodeError:
        return
    scope = {"type": "http", "raw_path": path.encode(), "headers": []}
    if "\0" not in name:
        assert _names(Request(scope)) == ("bucket", name)


async def test_a_broken_upload_leaves_nothing(cloud: TestbedModule, desk: RunningCloud) -> None:
    """An object that did not come whole is not there, and neither is its file; the one before stays."""
    key = await bucket_and_key(cloud)
    async with client(key) as http:
        await http.put("/a", content=b"before")
        url = httpx.URL(key.endpoint)
        authorization = http.build_request("GET", "/")
        _, writer = await asyncio.open_connection(url.host, url.port)
        auth = next(http.auth.auth_flow(authorization)).headers["authorization"]  # type: ignore[union-attr]
        writer.write(
            f"PUT {url.path}/a HTTP/1.1\r\nHost: x\r\nAuthorization: {auth}\r\nContent-Length: 9\r\n\r\nhalf".encode()
        )
        await writer.drain()
        writer.close()
        await asyncio.sleep(0.1)
        assert (await http.get("/a")).content == b"before"
    await eventually(lambda: len(list((desk.state / "buckets" / key.bucket).iterdir())) == 1)


async def test_public_reads_are_egress_and_stored_bytes_are_metered(cloud: TestbedModule) -> None:
    """Reading at the public endpoint counts as egress, at the internal one it does not; storage counts over time."""
    public, internal = await bucket_and_key(cloud), await bucket_and_key(cloud, internal=True)
    async with client(internal) as http:
        await http.put("/a", content=b"x" * 100_000)
        await http.get("/a")
    async with client(public) as http:
        await http.get("/a")
    await asyncio.sleep(0.05)
    records = {record.unit: record for record in await cloud.usage() if record.resource == public.bucket}
    assert round(float(records["GiB"].quantity) * 1024**3) == pytest.approx(100_000, rel=0.01)
    assert 0 < records["GiB-hours"].quantity < 1


async def test_objects_survive_a_killed_cloud(tmp_path: Path) -> None:
    """What was answered is kept; files of what was not are cleaned away."""
    async with start_cloud(tmp_path) as own:
        key = await bucket_and_key(own.module)
        async with client(key) as http:
            await http.put("/a", content=b"kept")
        await own.kill()
        folder = tmp_path / "buckets" / key.bucket
        (folder / "left.part").write_bytes(b"half")
        await own.restart()
        async with client(key) as http:
            assert (await http.get("/a")).content == b"kept"
        assert len(list(folder.iterdir())) == 1


# --- by the account itself ---


def sent(data: bytes) -> Content:
    """The data as content to send, in chunks that end at no round number."""

    async def content() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 300_001):
            yield data[start : start + 300_001]

    return content


async def put(cloud: TestbedModule, bucket: str, name: str, data: bytes) -> None:
    """Store an object."""
    await cloud.put_object(bucket, name, sent(data), size=len(data))


async def read(cloud: TestbedModule, bucket: str, name: str, offset: int = 0) -> bytes:
    """An object's bytes from the offset on."""
    return b"".join([chunk async for chunk in cloud.get_object(bucket, name, offset=offset)])


async def test_the_account_reads_and_writes_objects(cloud: TestbedModule) -> None:
    """Without an access key, an object is stored, read from any offset on, replaced and removed; who has a key to the
    bucket sees the same object."""
    key, data = await bucket_and_key(cloud), bytes(range(256)) * 9000
    await put(cloud, key.bucket, "a/b", b"before")
    await put(cloud, key.bucket, "a/b", data)
    await put(cloud, key.bucket, "empty", b"")
    for offset in 0, 1, 1_000_001, len(data) - 1, len(data), len(data) + 5:
        assert await read(cloud, key.bucket, "a/b", offset) == data[offset:]
    assert await read(cloud, key.bucket, "empty") == b""
    async with client(key) as http:
        assert (await http.get("/a/b")).content == data
    found = [(o.name, o.size) for o in await cloud.list_objects(key.bucket)]
    assert found == [("a/b", len(data)), ("empty", 0)]
    for _ in range(2):
        await cloud.delete_object(key.bucket, "a/b")
    assert (await cloud.describe_bucket(key.bucket)).objects == 1
    with pytest.raises(NotFound):
        await read(cloud, key.bucket, "a/b", 5)


async def test_what_is_not_there_is_not_found(cloud: TestbedModule) -> None:
    """No object is listed, read or stored in a bucket that does not exist."""
    for call in (
        lambda: cloud.list_objects("bucket-0"),
        lambda: read(cloud, "bucket-0", "a"),
        lambda: put(cloud, "bucket-0", "a", b"data"),
    ):
        with pytest.raises(NotFound, match="bucket"):
            await call()
    await cloud.delete_object("bucket-0", "a")


async def test_all_objects_are_listed_in_order(tmp_path: Path) -> None:
    """A list comes in as many pages as it takes, by code point, below the prefix, which is no pattern."""
    names = ["%", "_", "a", "a/", "a/1", "a/2", "a/_", "a//", "b", "B", "é", "\uffff", "\U0001f600"]
    async with start_cloud(tmp_path, page_size=2) as own:
        bucket = await own.module.create_bucket("b", key="b")
        for name in names:
            await put(own.module, bucket.id, name, b"")
        for prefix in "", "a/", "a/_", "_", "%", "é", "nothing":
            found = [stored.name for stored in await own.module.list_objects(bucket.id, prefix=prefix)]
            assert found == sorted(name for name in names if name.startswith(prefix))


async def test_any_name_is_just_a_name_to_the_account(cloud: TestbedModule, desk: RunningCloud) -> None:
    """Names with anything in them come back as they are by the API; what can be no name is refused."""
    bucket = await cloud.create_bucket("b", key="b")
    before = set(desk.state.rglob("*"))
    names = [
        "..",
        "../../cloud.db",
        "/",
        "//a",
        "ü €/\U0001f600",
        "%2e%2e",
        "+ &=?#;name=b",
        "x" * 1024,
        "\n",
        "content",
    ]
    for name in names:
        await put(cloud, bucket.id, name, name.encode())
    assert [o.name for o in await cloud.list_objects(bucket.id)] == sorted(names)
    for name in names:
        assert name in [o.name for o in await cloud.list_objects(bucket.id, prefix=name)]
        assert await read(cloud, bucket.id, name) == name.encode()
        await cloud.delete_object(bucket.id, name)
    assert (await cloud.describe_bucket(bucket.id)).objects == 0
    assert {path.name for path in set(desk.state.rglob("*")) - before} == {bucket.id}
    for name in "", "x" * 1025, "\0", "\ud800":
        with pytest.raises(InvalidRequest):
            await put(cloud, bucket.id, name, b"")


@given(name=st.text(min_size=1, max_size=200))
def test_object_names_survive_the_query(name: str) -> None:
    """Whatever a name holds, the API reads from the query what the module meant."""
    try:
        query = httpx.Request("GET", "http://x/", params={"marker": "name=", "name": name}).url.query
    except UnicodeEncodeError:
        return
    if "\0" not in name:
        assert name_in(query) == name


@pytest.mark.parametrize("data", [b"short", b"longer than was declared"])
async def test_an_object_of_another_size_is_refused(cloud: TestbedModule, data: bytes) -> None:
    """Content that has more or fewer bytes than was said replaces nothing."""
    bucket = await cloud.create_bucket("b", key="b")
    await put(cloud, bucket.id, "a", b"before")
    with pytest.raises(InvalidRequest, match="not 10"):
        await cloud.put_object(bucket.id, "a", sent(data), size=10)
    assert await read(cloud, bucket.id, "a") == b"before"


async def test_an_upload_that_breaks_off_leaves_nothing(cloud: TestbedModule, desk: RunningCloud) -> None:
    """When the account's connection breaks in the middle of an object, the one before stays, and no file is left."""
    bucket = await cloud.create_bucket("b", key="b")
    await put(cloud, bucket.id, "a", b"before")
    _, writer = await asyncio.open_connection("127.0.0.1", int(desk.url.rpartition(":")[2]))
    head = f"PUT /v1/buckets/{bucket.id}/objects/content?name=a HTTP/1.1\r\nHost: x\r\n"
    writer.write(f"{head}Authorization: Bearer {cloud._token}\r\nContent-Length: 9\r\n\r\nhalf".encode())
    await writer.drain()
    folder = desk.state / "buckets" / bucket.id
    await eventually(lambda: len(list(folder.iterdir())) == 2)
    writer.close()
    await eventually(lambda: len(list(folder.iterdir())) == 1)
    assert await read(cloud, bucket.id, "a") == b"before"


async def test_the_accounts_reads_are_egress(cloud: TestbedModule) -> None:
    """What the account reads by the API leaves the cloud: it is in the usage, as GiB of egress."""
    bucket = await cloud.create_bucket("b", key="b")
    await put(cloud, bucket.id, "a", b"x" * 100_000)
    await read(cloud, bucket.id, "a", 40_000)
    [record] = [record for record in await cloud.usage() if record.resource == bucket.id and record.unit == "GiB"]
    assert round(float(record.quantity) * 1024**3) == pytest.approx(60_000, rel=0.001)


async def test_the_accounts_objects_survive_a_killed_cloud(tmp_path: Path) -> None:
    """What was stored by the API is there after kill -9, and the bucket's quota counts it."""
    async with start_cloud(tmp_path, quotas={"bucket_mib": 1}) as own:
        bucket = await own.module.create_bucket("b", key="b")
        await put(own.module, bucket.id, "a", b"x" * 1_000_000)
        await own.kill()
        await own.restart()
        assert await read(own.module, bucket.id, "a", 999_999) == b"x"
        with pytest.raises(QuotaExceeded, match="1 MiB in buckets"):
            await put(own.module, bucket.id, "b", b"x" * 100_000)
        assert [stored.name for stored in await own.module.list_objects(bucket.id)] == ["a"]


async def test_what_ends_a_big_transfer_is_said(tmp_path: Path) -> None:
    """A token that expired is renewed, and the object sent once more; what is over the quota is refused as that,
    although most of it has not been sent when the answer comes."""
    data = bytes(range(256)) * 4096 * 24
    async with start_cloud(tmp_path, token_seconds=2, quotas={"bucket_mib": 32}) as own:
        bucket = await own.module.create_bucket("b", key="b")
        token = own.module._token
        await asyncio.sleep(2.1)
        await put(own.module, bucket.id, "a", data)
        assert own.module._token != token
        with pytest.raises(QuotaExceeded, match="32 MiB in buckets"):
            await put(own.module, bucket.id, "b", data)
        assert [stored.name for stored in await own.module.list_objects(bucket.id)] == ["a"]


async def test_wrong_calls_about_objects_are_refused(desk: RunningCloud, cloud: TestbedModule) -> None:
    """By the API, too, names that can be none, ranges that lead nowhere and pages that make no sense are refused."""
    bucket = await cloud.create_bucket("b", key="b")
    await put(cloud, bucket.id, "a", b"data")
    headers, path = {"authorization": f"Bearer {cloud._token}"}, f"/v1/buckets/{bucket.id}/objects"
    async with httpx.AsyncClient(base_url=desk.url, headers=headers, trust_env=False) as http:
        for status, answer in (
            (422, await http.put(path + "/content", content=b"")),
            (422, await http.put(path + "/content?name=", content=b"")),
            (422, await http.put(path + "/content?name=%ff", content=b"")),
            (422, await http.put(path + "/content?name=%00", content=b"")),
            (404, await http.get(path + "/content?name=b")),
            (404, await http.get("/v1/buckets/bucket-0/objects/content?name=a")),
            (416, await http.get(path + "/content?name=a", headers={"range": "bytes=4-"})),
            (416, await http.get(path + "/content?name=a", headers={"range": "bytes=1-2"})),
            (422, await http.get(path + "?limit=0")),
            (405, await http.post(path)),
        ):
            assert (answer.status_code, set(answer.json()["error"])) == (status, {"code", "message"})
        assert (await http.get(path, params={"prefix": "\0", "marker": "\0"})).json() == {"items": [], "next": None}
    assert (await cloud.describe_bucket(bucket.id)).objects == 1
