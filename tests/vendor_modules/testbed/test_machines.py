"""Machines through their lives, on a real cloud."""

from __future__ import annotations

import asyncio

import pytest

from descriptors.machine import MachineManifest
from tests.labs.testbed import RunningCloud
from tests.vendor_modules.testbed.helpers import SERVE, get, machine
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, ResourceFailed, Unsupported
from vendor_modules.resources import MachineSpec, Status, UserData
from vendor_modules.testbed.module import TestbedModule

pytestmark = pytest.mark.integration

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIBzPPyH0k1GKZ5VQ2xvYv4wWq0sQn3hTnYq2mYB3mBZi somebody@desk"


async def test_a_machine_serves_stops_and_starts(cloud: TestbedModule) -> None:
    """A machine runs what it was told, stops, starts at the same port with its files, and goes."""
    made = await cloud.create_machine(machine(files={"a/b.txt": b"\xff\x00"}), key="m")
    assert (await get(made.host, made.port, "/a/b.txt")).content == b"\xff\x00"
    assert (await cloud.stop_machine(made.id)).status is Status.STOPPED
    with pytest.raises(OSError, match="onnect"):
        await asyncio.open_connection(made.host, made.port)
    again = await cloud.start_machine(made.id)
    assert again == made
    assert (await get(made.host, made.port, "/a/b.txt")).content == b"\xff\x00"
    rebooted = await cloud.reboot_machine(made.id)
    assert rebooted.status is Status.ACTIVE
    assert "GET /a/b.txt" in await cloud.console(made.id)
    await cloud.destroy_machine(made.id)
    assert made.id not in {found.id for found in await cloud.list_machines()}
    with pytest.raises(NotFound):
        await cloud.describe_machine(made.id)


async def test_the_same_key_is_the_same_machine(cloud: TestbedModule) -> None:
    """Concurrent duplicates of a call make one machine; when it is gone, the key can make another."""
    made = await asyncio.gather(*(cloud.create_machine(machine(), key="twice") for _ in range(5)))
    assert len({one.id for one in made}) == 1
    assert made[0].key == "twice"
    assert len(await cloud.list_machines()) == 1
    await cloud.destroy_machine(made[0].id)
    assert (await cloud.create_machine(machine(None), key="twice")).id != made[0].id


async def test_starting_and_stopping_twice_is_fine(cloud: TestbedModule) -> None:
    """Calls that ask for the state that is are answered with it."""
    made = await cloud.create_machine(machine(None), key="m")
    assert (await cloud.start_machine(made.id)).status is Status.ACTIVE
    await cloud.stop_machine(made.id)
    assert (await cloud.stop_machine(made.id)).status is Status.STOPPED


async def test_a_machine_without_a_service_is_up(cloud: TestbedModule) -> None:
    """A machine that starts nothing is ACTIVE until it is stopped."""
    bare = MachineSpec(name="bare", image="base", size="small")
    made = await cloud.create_machine(bare, key="bare")
    assert made.status is Status.ACTIVE
    assert (await cloud.stop_machine(made.id)).status is Status.STOPPED


async def test_install_commands_run_once(cloud: TestbedModule) -> None:
    """Install commands run before the first start and at no other."""
    count = "sh -c 'echo once >> installed.txt'"
    made = await cloud.create_machine(machine(install=(count,)), key="m")
    await cloud.reboot_machine(made.id)
    assert (await get(made.host, made.port, "/installed.txt")).text == "once\n"


@pytest.mark.parametrize(
    ("spec", "words"),
    [
        (machine("sh -c 'echo the reason; exit 3'"), r"exit status 3.*the reason"),
        (machine("no-such-program"), "exit status 127.*cannot start"),
        (machine(install=("sh -c 'echo no luck; exit 4'",)), r"install command.*exit status 4.*no luck"),
        (machine("'unfinished"), "No closing quotation"),
        (machine("''"), "cannot start"),
    ],
    ids=["exits", "missing", "install", "not words", "empty"],
)
async def test_a_machine_that_does_not_start_says_why(cloud: TestbedModule, spec: MachineSpec, words: str) -> None:
    """A machine whose service does not run is in ERROR, its problem holding the end of the console."""
    with pytest.raises(ResourceFailed, match=f"(?s){words}"):
        await cloud.create_machine(spec, key="bad")
    [found] = await cloud.list_machines()
    assert found.status is Status.ERROR
    assert found.problem


async def test_a_service_that_dies_later_is_noticed(cloud: TestbedModule, desk: RunningCloud) -> None:
    """When the service ends by itself, the machine is in ERROR (or STOPPED, if it ended well) and can be started."""
    for status, expected in (0, Status.STOPPED), (5, Status.ERROR):
        until_told = f"sh -c '{SERVE} & until rm go; do sleep 0.05; done 2>/dev/null; echo over; exit {status}'"
        made = await cloud.create_machine(machine(until_told), key=f"m{status}")
        (desk.state / "machines" / made.id / "root" / "go").touch()
        found = made
        async with asyncio.timeout(60):
            while found.status is Status.ACTIVE:
                found = await cloud.describe_machine(made.id)
        assert found.status is expected
        assert (found.problem is None) == (expected is Status.STOPPED)
        assert found.problem is None or "over" in found.problem
        assert (await cloud.start_machine(made.id)).status is Status.ACTIVE


async def test_a_stubborn_service_is_ended(cloud: TestbedModule) -> None:
    """A service that ignores SIGTERM is killed after the grace; its children go with it."""
    stubborn = f"sh -c 'trap : TERM; (setsid sleep 1000 &) ; {SERVE} & while :; do sleep 0.1; done'"
    made = await cloud.create_machine(machine(stubborn), key="m")
    started = asyncio.get_running_loop().time()
    await cloud.stop_machine(made.id)
    assert 4 < asyncio.get_running_loop().time() - started < 60


async def test_a_bundle_makes_the_same_machine(cloud: TestbedModule) -> None:
    """The image of a stopped machine holds its files and manifest, marked installed; only user data says otherwise."""
    install = "sh -c 'echo installed >> log.txt'"
    made = await cloud.create_machine(machine(files={"f": b"data", "conf": b"old"}, install=(install,)), key="m")
    with pytest.raises(Conflict, match="not stopped"):
        await cloud.bundle_machine(made.id, "b", key="b")
    await cloud.stop_machine(made.id)
    bundles = await asyncio.gather(*(cloud.bundle_machine(made.id, "b", key=key) for key in ("b", "b", "c")))
    assert bundles[0] == bundles[1]
    assert bundles[0].digest == bundles[2].digest
    spec = MachineSpec(name="again", image=bundles[0].id, size="small", user_data=UserData(files={"conf": b"new"}))
    again = await cloud.create_machine(spec, key="m2")
    for path, text in ("f", "data"), ("conf", "new"), ("log.txt", "installed\n"):
        assert (await get(again.host, again.port, f"/{path}")).text == text
    other = UserData(manifest=MachineManifest(install=(install,), start=f"sh -c 'cat log.txt; exec {SERVE}'"))
    third = await cloud.create_machine(spec.model_copy(update={"user_data": other}), key="m3")
    assert (await cloud.console(third.id)).count("installed") == 1


async def test_user_data_stays_in_its_directory(cloud: TestbedModule) -> None:
    """Files with paths that lead elsewhere are refused before anything is made."""
    for path in "../evil", "/tmp/evil", "a/../../evil":
        with pytest.raises(InvalidRequest):
            await cloud.create_machine(machine(files={path: b""}), key="m")
    assert await cloud.list_machines() == []


async def test_orders_that_make_no_sense_are_refused(cloud: TestbedModule) -> None:
    """Sizes, images, groups, keys and volumes must exist; images must be of a kind that boots."""
    with pytest.raises(InvalidRequest, match="size 'huge'"):
        await cloud.create_machine(machine(size="huge"), key="m")
    for field in {"image": "nix"}, {"key_pair": "nix"}, {"security_groups": ("nix",)}, {"volumes": {"dev/vdb": "nix"}}:
        with pytest.raises(NotFound, match="nix"):
            await cloud.create_machine(machine(**field), key="m")


async def test_a_key_pair_stays_with_its_machine(cloud: TestbedModule) -> None:
    """Key pairs are checked, made once, and can go before the machines that have them."""
    pair = await cloud.create_key_pair("mine", KEY, key="k")
    assert await cloud.create_key_pair("mine", KEY, key="k") == pair == await cloud.describe_key_pair(pair.id)
    assert pair.fingerprint.startswith("SHA256:")
    assert len(pair.fingerprint) == 50
    with pytest.raises(InvalidRequest, match="OpenSSH"):
        await cloud.create_key_pair("bad", "ssh-ed25519 AAAA", key="k2")
    made = await cloud.create_machine(machine(None, key_pair=pair.id), key="m")
    await cloud.destroy_key_pair(pair.id)
    assert (await cloud.reboot_machine(made.id)).status is Status.ACTIVE


async def test_console_is_bounded(cloud: TestbedModule) -> None:
    """A machine that prints without end fills neither the disk nor the answer."""
    made = await cloud.create_machine(
        machine(f"sh -c 'head -c 3000000 /dev/zero | tr \\\\0 x; echo end; exec {SERVE}'"), key="m"
    )
    output = ""
    for _ in range(1000):
        output = await cloud.console(made.id)
        if output.rstrip().endswith("end"):
            break
        await asyncio.sleep(0.05)
    assert output.rstrip().endswith("end")
    assert len(output) <= 64 * 1024


async def test_networks_are_refused(cloud: TestbedModule) -> None:
    """There are no networks: neither the module nor the cloud itself takes an order that names one."""
    order = machine(None, networks=("net",))
    with pytest.raises(Unsupported, match="networks"):
        await cloud.create_machine(order, key="m")
    with pytest.raises(InvalidRequest, match="networks"):
        await cloud._ask("POST", "/instances", order, headers={"idempotency-key": "m"})
    assert await cloud.list_machines() == []
