"""The cloud as a process: started, killed, started again, refused; and what it says and does not say."""

from __future__ import annotations

import asyncio
import json
import socket
import sqlite3
import sys
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from tests.labs.testbed import PASSWORD, USERNAME, RunningCloud, module_for, start_cloud
from tests.vendor_modules.testbed.helpers import SERVE, eventually, get, image, machine
from vendor_modules.capabilities import inventory
from vendor_modules.errors import QuotaExceeded, ResourceFailed, Unauthorized, Unavailable, Unsupported
from vendor_modules.resources import Rule, Status, VolumeSpec
from vendor_modules.testbed.module import TestbedModule
from vendor_modules.testbed.serve import CannotStart, read_config
from vendor_modules.testbed.store import Store

pytestmark = pytest.mark.integration


async def test_everything_survives_a_killed_cloud(tmp_path: Path) -> None:
    """kill -9 takes the machines along; at the next start all is where it was, at the same URL and ports, and what ran
    runs again."""
    async with start_cloud(tmp_path) as cloud:
        module = cloud.module
        volume = await module.create_volume(VolumeSpec(name="v", size_mib=1), key="v")
        group = await module.create_security_group("g", [Rule(port=80)], key="g")
        write = "sh -c 'echo run >> runs; (setsid sleep 500 &) ; exec python3 -m http.server --bind $HOST $PORT'"
        up = await module.create_machine(
            machine(write, volumes={"dev/vdb": volume.id}, security_groups=(group.id,)), key="up"
        )
        off = await module.create_machine(machine(None), key="off")
        await module.stop_machine(off.id)
        address = await module.associate_address((await module.create_address("a", key="a")).id, up.id)
        spec, content = image(b"content" * 1000)
        uploaded = await module.upload_image(spec, content, key="i")
        before, url = await inventory(module), cloud.url
        await cloud.kill()
        await eventually(lambda: cloud.guest_processes() == [])
        module.attempts = 1  # type: ignore[misc]
        with pytest.raises(Unavailable):
            await module.list_machines()
        await cloud.restart()
        assert cloud.url == url
        assert await module.wait_for_machine(up.id, Status.ACTIVE) == up
        assert await inventory(module) == before
        assert (await get(address.host, address.port, "/runs")).text == "run\nrun\n"
        assert (await module.upload_image(spec, content, key="i")).id == uploaded.id
        assert (await module.create_machine(machine(), key="up")).id == up.id


async def test_what_a_crash_left_half_made_is_made_whole(tmp_path: Path) -> None:
    """A machine, a volume and an image that were being made when the cloud was killed are made at its next start;
    files that belong to nothing are removed."""
    async with start_cloud(tmp_path) as cloud:
        module = cloud.module
        spec, content = image(b"x" * 100_000)
        uploaded = await module.upload_image(spec, content, key="i")
        volume = await module.create_volume(VolumeSpec(name="v", size_mib=1, image=uploaded.id), key="v")
        made = await module.create_machine(machine(files={"f": b"data"}), key="m")
        await module.stop_machine(made.id)
        bundle = await module.bundle_machine(made.id, "b", key="b")
        await cloud.kill()
        _back_to_pending(tmp_path / "cloud.db", made.id, volume.id, bundle.id)
        (tmp_path / "volumes" / volume.id).write_bytes(b"half")
        (tmp_path / "images" / bundle.id).unlink()
        for orphan in "images/x.part", "volumes/volume-0", "user-data/machine-0":
            (tmp_path / orphan).write_bytes(b"orphan")
        (tmp_path / "machines" / "machine-0").mkdir()
        await cloud.restart()
        assert (await module.create_volume(VolumeSpec(name="v", size_mib=1), key="v")).status is Status.ACTIVE
        assert (tmp_path / "volumes" / volume.id).stat().st_size == 1024 * 1024
        assert (await module.bundle_machine(made.id, "b", key="b")).digest == bundle.digest
        left = [path for path in tmp_path.rglob("*") if path.name in ("x.part", "volume-0", "machine-0")]
        assert left == []


def _back_to_pending(database: Path, *ids: str) -> None:
    with sqlite3.connect(database) as db:
        for resource in ids:
            status = '"stopped"' if resource.startswith("machine") else '"pending"'
            db.execute(
                "UPDATE resources SET record = json_set(record, '$.status', json(?)) WHERE id = ?", (status, resource)
            )
    db.close()


async def test_a_machine_that_was_being_built_is_built_again(tmp_path: Path) -> None:
    """A cloud killed during a machine's install commands builds the machine at its next start."""
    install = "sh -c 'test -e ../../../go && exit 0; sleep 500'"
    async with start_cloud(tmp_path) as cloud:
        order = asyncio.create_task(cloud.module.create_machine(machine(install=(install,)), key="m"))
        await eventually(lambda: len(cloud.guest_processes()) >= 2)
        order.cancel()
        await asyncio.wait([order])
        await cloud.kill()
        (tmp_path / "go").touch()
        await cloud.restart()
        [found] = await cloud.module.list_machines()
        assert (await cloud.module.wait_for_machine(found.id, Status.ACTIVE)).key == "m"


async def test_sigterm_ends_all_gracefully(tmp_path: Path) -> None:
    """SIGTERM stops the machines, exits with 0, and leaves everything to be started again."""
    end = f"sh -c 'trap \"echo graceful; exit 0\" TERM; {SERVE} & while :; do sleep 0.05; done'"
    async with start_cloud(tmp_path) as cloud:
        made = await cloud.module.create_machine(machine(end), key="m")
        assert await cloud.stop() == 0
        assert cloud.guest_processes() == []
        await cloud.restart(password=None)
        assert (await cloud.module.wait_for_machine(made.id, Status.ACTIVE)).id == made.id
        assert "graceful" in await cloud.module.console(made.id)


async def test_a_taken_port_is_said(tmp_path: Path) -> None:
    """A machine or a cloud whose port somebody else has says so instead of starting elsewhere."""
    async with start_cloud(tmp_path) as cloud:
        made = await cloud.module.create_machine(machine(), key="m")
        await cloud.module.stop_machine(made.id)
        with _taking(made.port), pytest.raises(ResourceFailed, match="another process"):
            await cloud.module.start_machine(made.id)
        await cloud.stop()
        with _taking(int(cloud.url.rpartition(":")[2])), pytest.raises(RuntimeError, match=r"port \d+.*cannot be"):
            await cloud.restart()


def _taking(port: int | None) -> socket.socket:
    return socket.create_server(("127.0.0.1", port or 0), backlog=64)


async def test_one_cloud_to_a_state_directory(desk: RunningCloud) -> None:
    """A second cloud over the same state is refused."""
    with pytest.raises(RuntimeError, match="runs already"):
        async with start_cloud(desk.state):
            pass


async def test_a_cloud_that_cannot_start_says_why(tmp_path: Path) -> None:
    """What keeps a cloud from starting is said in one line."""
    with pytest.raises(RuntimeError, match="needs a password") as caught:
        async with start_cloud(tmp_path, password=None):
            pass
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).count("\n") == 1


@pytest.mark.parametrize(
    ("config", "words"),
    [
        ({"name": "a", "sizes": []}, "sizes"),
        ({"name": "No Name", "password": "s3cret"}, "name"),
        ({"name": "a", "surprise": "s3cret"}, "surprise"),
        ({}, "name"),
    ],
    ids=["sizes", "name", "unknown", "nothing"],
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path: Path, config: dict[str, object], words: str) -> None:
    """What is wrong with a configuration is said without its values."""
    with closing(Store(tmp_path / "db")) as store:
        with pytest.raises(CannotStart, match=words) as caught:
            read_config(store, json.dumps(config))
        assert "s3cret" not in str(caught.value)
        with pytest.raises(CannotStart, match="needs a configuration"):
            read_config(store, None)


def test_the_configuration_is_remembered_without_its_password(tmp_path: Path) -> None:
    """A cloud can be started again without saying once more what it is."""
    with closing(Store(tmp_path / "db")) as store:
        first = read_config(store, json.dumps({"name": "a", "region": "north", "password": "s3cret"}))
        again = read_config(store, None)
        assert (again.region, again.password) == ("north", None)
        assert again == first.model_copy(update={"password": None})


async def test_a_cloud_follows_its_parent(tmp_path: Path) -> None:
    """With --follow-parent, a cloud ends when the process that started it is killed."""
    config = json.dumps({"name": "child", "password": "p"})
    (tmp_path / "config.json").write_text(config)
    script = (
        "import subprocess, sys, time\n"
        "subprocess.Popen([sys.executable, '-m', 'vendor_modules.testbed', 'serve', '--follow-parent',\n"
        f"    '--state', {str(tmp_path / 'state')!r}, '--config', {str(tmp_path / 'config.json')!r}])\n"
        "time.sleep(60)\n"
    )
    parent = await asyncio.create_subprocess_exec(sys.executable, "-c", script, stdout=asyncio.subprocess.PIPE)
    assert parent.stdout
    child = json.loads(await parent.stdout.readline())["pid"]
    parent.kill()
    await parent.wait()
    assert await parent.stdout.read() == b""  # at its end: the child is gone, and it printed nothing more
    await eventually(lambda: not Path(f"/proc/{child}").exists() or "Z" in Path(f"/proc/{child}/stat").read_text())


async def test_absent_services_say_so(far: TestbedModule) -> None:
    """A cloud without block and object storage has no prices for them, lists none, and refuses to make any."""
    catalogue = await far.catalogue()
    assert (catalogue.block_gib_month, catalogue.object_gib_month) == (None, None)
    services = (await far._ask("GET", "/services"))["services"]
    assert (services["compute"], services["block-storage"], services["object-storage"]) == (True, False, False)
    assert await inventory(far) == []
    for call in (
        lambda: far.create_volume(VolumeSpec(name="v", size_mib=1), key="v"),
        lambda: far.describe_volume("v"),
        lambda: far.create_bucket("b", key="b"),
        lambda: far.list_objects("b"),
        lambda: far.delete_object("b", "a"),
        lambda: far.create_machine(machine(volumes={"dev/vdb": "v"}), key="m"),
    ):
        with pytest.raises(Unsupported, match=r"no (block|object) storage"):
            await call()


async def test_quotas_are_kept(tmp_path: Path) -> None:
    """What is over the account's limits is refused, in words that name the limit."""
    names = ["machines", "volumes", "images", "addresses", "buckets", "access_keys", "key_pairs", "security_groups"]
    quotas = dict.fromkeys(names, 1) | {"volume_mib": 100, "bucket_mib": 1, "volumes": 2}
    async with start_cloud(tmp_path, quotas=quotas) as cloud:
        module = cloud.module
        await module.create_machine(machine(None), key="1")
        with pytest.raises(QuotaExceeded, match="1 machines"):
            await module.create_machine(machine(None), key="2")
        await module.create_volume(VolumeSpec(name="v", size_mib=60), key="1")
        with pytest.raises(QuotaExceeded, match="100 MiB in volumes"):
            await module.create_volume(VolumeSpec(name="v", size_mib=60), key="2")
        for make in module.create_address, module.create_bucket:
            first = await make("one", key="1")
            assert await make("one", key="1") == first
            with pytest.raises(QuotaExceeded, match="quota of 1"):
                await make("two", key="2")
        [bucket] = await module.list_buckets()
        key = await module.create_access_key(bucket.id, internal=True, key="1")
        async with httpx.AsyncClient(auth=(key.access_key, key.secret_key.get_secret_value())) as http:
            answer = await http.put(key.endpoint + "/big", content=b"x" * 1024 * 1025)
        assert answer.json()["error"]["code"] == "quota-exceeded"
        spec, content = image(b"x")
        await module.upload_image(spec, content, key="1")
        with pytest.raises(QuotaExceeded, match="1 images"):
            await module.upload_image(spec, content, key="2")
        await module.create_security_group("g", [], key="1")
        with pytest.raises(QuotaExceeded, match="1 security groups"):
            await module.create_security_group("g", [], key="2")


async def test_quotas_are_told(tmp_path: Path) -> None:
    """The account sees every limit, and what it uses of it now; the cloud's own image is not counted."""
    quotas = {"machines": 3, "volumes": 2, "volume_mib": 100, "image_mib": 7}
    sizes = [{"name": "odd", "cores": 3, "memory_mib": 700, "price_per_hour": "1"}]
    async with start_cloud(tmp_path, quotas=quotas, sizes=sizes) as cloud:
        module = cloud.module

        async def told() -> dict[str, tuple[int | None, int | None]]:
            return {quota.resource: (quota.limit, quota.used) for quota in await module.quotas()}

        assert {name: used for name, (_, used) in (await told()).items() if used} == {}
        volume = await module.create_volume(VolumeSpec(name="v", size_mib=60), key="v")
        for key in "ab":
            await module.create_machine(machine(None, size="odd"), key=key)
        await module.create_snapshot(volume.id, "s", key="s")
        await module.upload_image(*image(b"x"), key="i")
        await module.create_load_balancer("b", 8080, [], key="b")
        await module.create_bucket("b", key="b")
        full = await told()
        assert {name: full[name] for name in ("machines", "volumes", "volume-mib", "image-mib", "cores")} == {
            "machines": (3, 2),
            "volumes": (2, 1),
            "volume-mib": (100, 60),
            "image-mib": (7, 1),
            "cores": (None, 6),
        }
        rest = {"memory-mib": 1400, "snapshots": 1, "snapshot-mib": 60, "images": 1, "load-balancers": 1, "buckets": 1}
        assert {name: full[name][1] for name in rest} == rest
        await module.destroy_volume(volume.id)
        assert (await told())["volume-mib"] == (100, 0)


async def test_lists_have_pages(cloud: TestbedModule) -> None:
    """The API gives lists in pages, the module gives them whole."""
    made = [await cloud.create_security_group(f"g{n}", [], key=f"g{n}") for n in range(5)]
    first = await cloud._ask("GET", "/security-groups", params={"limit": 3})
    assert [item["name"] for item in first["items"]] == ["g0", "g1", "g2"]
    await cloud.destroy_security_group(made[2].id)  # the page's last may go; the next page is found all the same
    second = await cloud._ask("GET", "/security-groups", params={"limit": 3, "marker": first["next"]})
    assert ([item["name"] for item in second["items"]], second["next"]) == (["g3", "g4"], None)
    assert len(await cloud.list_security_groups()) == 4


async def test_usage_is_written_down(cloud: TestbedModule) -> None:
    """Machines are charged by the hour that they run, volumes by GiB and hour, at the catalogue's prices."""
    volume = await cloud.create_volume(VolumeSpec(name="v", size_mib=1024 * 1024), key="v")
    made = await cloud.create_machine(machine(None), key="m")
    await asyncio.sleep(0.3)
    await cloud.stop_machine(made.id)
    records = {record.resource: record for record in await cloud.usage()}
    run, kept = records[made.id], records[volume.id]
    assert run.ended
    assert float(run.quantity) == pytest.approx((run.ended - run.started).total_seconds() / 3600, rel=0.01)
    assert (run.unit, kept.unit, kept.ended) == ("hours", "GiB-hours", None)
    assert kept.cost > 0
    assert made.id not in {record.resource for record in await cloud.usage(since=kept.started.replace(year=2999))}


async def test_latency_is_added(far: TestbedModule) -> None:
    """A far-away cloud takes its time for every answer."""
    await far.list_machines()
    started = asyncio.get_running_loop().time()
    await far.list_machines()
    assert asyncio.get_running_loop().time() - started >= 0.08


async def test_tokens_expire_and_logins_are_checked(tmp_path: Path) -> None:
    """An expired token is renewed by the module; without one, or with a wrong login, nothing is told but that."""
    async with start_cloud(tmp_path, token_seconds=2) as cloud:
        assert await cloud.module.list_machines() == []
        token = cloud.module._token
        await asyncio.sleep(2.1)
        assert await cloud.module.list_machines() == []
        assert cloud.module._token != token
        async with module_for(cloud.url, password="wrong") as stranger:
            started = asyncio.get_running_loop().time()
            with pytest.raises(Unauthorized, match="wrong user name or password"):
                await stranger.list_machines()
            assert asyncio.get_running_loop().time() - started > 0.4
        async with httpx.AsyncClient(base_url=cloud.url, trust_env=False) as anybody:
            objects = ("/v1/buckets/b/objects", "/v1/buckets/b/objects/content?name=a")
            lists = (
                "/v1/instances",
                "/v1/usage",
                "/v1/access-keys",
                "/v1/snapshots",
                "/v1/load-balancers",
                "/v1/quotas",
            )
            for path in *lists, *objects, "/v1/images/base/content":
                for headers in {}, {"authorization": f"Bearer {token}"}, {"authorization": "Basic x"}:
                    assert (await anybody.get(path, headers=headers)).status_code == 401


async def test_errors_are_json_and_tell_nothing(desk: RunningCloud, cloud: TestbedModule) -> None:
    """Whatever is asked, the answer is the API's JSON error, without a trace of its insides or of what was sent."""
    await cloud.list_machines()
    headers = {"authorization": f"Bearer {cloud._token}"}
    spec = image(b"x")[0].model_dump(mode="json")
    async with httpx.AsyncClient(base_url=desk.url, headers=headers, trust_env=False) as http:
        answers = [
            (404, await http.get("/nowhere")),
            (404, await http.get("/v1/instances/nix")),
            (405, await http.patch("/v1/instances")),
            (413, await http.post("/v1/tokens", content=b"x" * 51_000_000)),
            (422, await http.post("/v1/tokens", json={"username": ["s3cret"], "password": "s3cret"})),
            (422, await http.post("/v1/buckets", json={"name": "b"})),
            (422, await http.get("/v1/instances", params={"limit": 0})),
            (422, await http.get("/v1/instances", params={"limit": 1001})),
            (422, await http.get("/v1/instances", params={"marker": 2**64})),
            (422, await http.post("/v1/load-balancers", json={"name": "b", "port": 80, "machines": "s3cret"})),
            (422, await http.post("/v1/images", json={**spec, "format": "lxd"}, headers={"idempotency-key": "i"})),
            (416, await http.get("/v1/images/base/content", headers={"range": "bytes=99999999-"})),
        ]
        for status, answer in answers:
            assert answer.status_code == status
            error = answer.json()["error"]
            assert set(error) == {"code", "message"}
            assert "s3cret" not in answer.text
            assert "Traceback" not in answer.text


async def test_no_secret_reaches_log_or_disk(tmp_path: Path) -> None:
    """Neither password nor tokens nor access keys' secrets are in the log; the password is nowhere below the state
    directory, and nobody else can read what is there."""
    async with start_cloud(tmp_path / "state") as cloud:
        bucket = await cloud.module.create_bucket("b", key="b")
        key = await cloud.module.create_access_key(bucket.id, internal=False, key="k")
        await cloud.module.create_machine(machine(None, files={"password": b"s3cret-of-the-app"}), key="m")
        async with module_for(cloud.url, password="wrong-s3cret") as stranger:
            with pytest.raises(Unauthorized):
                await stranger.list_machines()
        token = cloud.module._token
    log = cloud.log()
    assert token
    for secret in PASSWORD, token, key.secret_key.get_secret_value(), "s3cret-of-the-app", "wrong-s3cret":
        assert secret not in log
    assert all(json.loads(line)["event"] for line in log.splitlines())
    for path in cloud.state.rglob("*"):
        if path.is_file() and not path.is_symlink():
            assert PASSWORD.encode() not in path.read_bytes()
    assert cloud.state.stat().st_mode & 0o077 == 0
    assert (cloud.state / "cloud.db").stat().st_mode & 0o777 == 0o600
    assert USERNAME in (cloud.state / "cloud.db").read_bytes().decode(errors="replace")
    assert list((cloud.state / "user-data").iterdir()) == []
