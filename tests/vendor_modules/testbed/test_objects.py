"""Buckets, access keys and objects, on a real cloud."""

from __future__ import annotations

import asyncio
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.labs.testbed import RunningCloud, start_cloud
from vendor_modules.errors import NotFound
from vendor_modules.resources import AccessKey
from vendor_modules.testbed.module import TestbedModule

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
    assert len(list((desk.state / "buckets" / key.bucket).iterdir())) == 1


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
