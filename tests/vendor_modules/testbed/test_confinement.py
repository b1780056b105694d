"""What a machine can do to the computer it runs on: nothing beyond its directory, its volumes and its port."""

from __future__ import annotations

import json
import os
import signal

import pytest

from tests.labs.testbed import RunningCloud
from tests.vendor_modules.testbed.helpers import get, machine
from vendor_modules.errors import ResourceFailed
from vendor_modules.resources import Status, VolumeSpec
from vendor_modules.testbed.module import TestbedModule
from vendor_modules.testbed.runtimes.confine import landlock_abi
from vendor_modules.testbed.runtimes.embedded import Embedded

pytestmark = pytest.mark.integration

PROBE = b"""
import http.server, json, os, pathlib, resource, signal, socket, sys

def attempt(what):
    try:
        return f"done: {what()}"
    except OSError as error:
        return type(error).__name__

def bind(port):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", port))

other, volume, victim, spare = sys.argv[1:]
here = pathlib.Path.cwd()
answers = {
    "shadow": attempt(lambda: open("/etc/shadow").read()),
    "home": attempt(lambda: os.listdir("/root")),
    "tmp": attempt(lambda: open("/tmp/testbed-was-here", "w")),
    "other machine": attempt(lambda: open(other).read()),
    "other volume": attempt(lambda: open(volume).read()),
    "cloud": attempt(lambda: open(here.parents[2] / "cloud.db", "rb").read(1)),
    "own manifest": attempt(lambda: open(here.parent / "manifest.json").read()),
    "other port": attempt(lambda: bind(int(spare))),
    "signal init": attempt(lambda: os.kill(1, signal.SIGKILL)),
    "signal victim": attempt(lambda: os.kill(int(victim), 0)),
    "device": attempt(lambda: os.mknod("null", 0o20666, os.makedev(1, 3))),
    "escape by link": attempt(lambda: os.link("/etc/hostname", "hostname")),
    "own file": attempt(lambda: open("own", "w").write("x")),
    "own folder": attempt(lambda: os.makedirs("a/b")),
    "temporary": attempt(lambda: open(os.environ["TMPDIR"] + "/x", "w").write("x")),
    "null": attempt(lambda: open("/dev/null", "w").write("x")),
    "own volume": attempt(lambda: open("dev/vdb", "r+b").write(b"x")),
    "system": attempt(lambda: open("/usr/lib/os-release").read(1)),
    "connect": attempt(lambda: socket.create_connection(("127.0.0.1", int(os.environ["CLOUD"]))).close()),
    "environment": sorted(os.environ),
    "home is": os.environ["HOME"] == str(here),
    "core": resource.getrlimit(resource.RLIMIT_CORE)[1],
    "memory": resource.getrlimit(resource.RLIMIT_DATA)[1],
}
pathlib.Path("answers.json").write_text(json.dumps(answers))
http.server.HTTPServer(("127.0.0.1", int(os.environ["PORT"])), http.server.SimpleHTTPRequestHandler).serve_forever()
"""


REFUSALS = {"PermissionError", "ProcessLookupError", "OSError"}
"""What Python makes of EACCES, EPERM, ESRCH (another PID namespace's process) and EXDEV (a link out of the domain)."""


async def test_a_machine_is_confined(cloud: TestbedModule, desk: RunningCloud) -> None:
    """A machine can neither read nor write what is not its own, nor listen elsewhere, nor signal others; with its own
    directory, volume and port it can work. Where the kernel has no Landlock, it says so."""
    other = await cloud.create_machine(machine(files={"secret": b"s"}), key="other")
    mine = await cloud.create_volume(VolumeSpec(name="v", size_mib=1), key="v")
    not_mine = await cloud.create_volume(VolumeSpec(name="w", size_mib=1), key="w")
    arguments = [
        str(desk.state / "machines" / other.id / "root" / "secret"),
        str(desk.state / "volumes" / not_mine.id),
        str(os.getpid()),
        "14999",
    ]
    probe = PROBE.replace(b'int(os.environ["CLOUD"])', desk.url.rpartition(":")[2].encode())
    start = f"python3 probe.py {' '.join(arguments)}"
    made = await cloud.create_machine(machine(start, files={"probe.py": probe}, volumes={"dev/vdb": mine.id}), key="m")
    answers = json.loads((await get(made.host, made.port, "/answers.json")).text)
    console = await cloud.console(made.id)
    if not landlock_abi():
        assert "not confined" in console
        return
    assert "confined by Landlock" in console
    refused = ["shadow", "home", "tmp", "other machine", "other volume", "cloud", "own manifest", "other port"]
    refused += ["signal init", "signal victim", "device", "escape by link"]
    for what in refused:
        assert answers[what] in REFUSALS, (what, answers[what])
    for what in "own file", "own folder", "temporary", "null", "own volume", "system", "connect":
        assert answers[what].startswith("done"), (what, answers[what])
    allowed = {"PATH", "HOME", "TMPDIR", "HOST", "PORT", "LANG"}
    assert set(answers["environment"]) <= allowed | {"LC_CTYPE"}
    assert answers["home is"]
    assert answers["core"] == 0
    assert answers["memory"] == 512 * 1024 * 1024


async def test_memory_is_limited(cloud: TestbedModule) -> None:
    """A machine that takes more memory than its size has fails, and nothing else does."""
    hungry = "python3 -c 'bytearray(700 * 1024 * 1024); import time; time.sleep(100)'"
    with pytest.raises(ResourceFailed, match="MemoryError"):
        await cloud.create_machine(machine(hungry), key="m")


async def test_nothing_of_a_stopped_machine_is_left(cloud: TestbedModule, desk: RunningCloud) -> None:
    """Children that have left the service's session end with the machine."""
    forks = "sh -c '(setsid sleep 1000 &); (setsid setsid sleep 1001 &); exec python3 -m http.server -b $HOST $PORT'"
    made = await cloud.create_machine(machine(forks), key="m")
    assert len(desk.guest_processes()) >= 3
    await cloud.stop_machine(made.id)
    assert desk.guest_processes() == []


async def test_nothing_of_a_killed_cloud_is_left(cloud: TestbedModule, desk: RunningCloud) -> None:
    """The machine's first process, killed from outside, takes everything in the machine along."""
    forks = "sh -c '(setsid sleep 1000 &); exec python3 -m http.server -b $HOST $PORT'"
    made = await cloud.create_machine(machine(forks), key="m")
    launcher = min(desk.guest_processes())
    os.kill(launcher, signal.SIGKILL)
    with pytest.raises(ResourceFailed, match="exit status -9"):
        await cloud.wait_for_machine(made.id, Status.STOPPED)
    assert desk.guest_processes() == []


def test_confinement_is_said_in_words() -> None:
    """What the kernel cannot do is said, never passed over."""
    assert Embedded(7, pid_namespace=True).confinement == "confined by Landlock (ABI 7) and a PID namespace"
    assert Embedded(3, pid_namespace=True).confinement.endswith("its ports are not confined")
    assert Embedded(0, pid_namespace=False).confinement.startswith("not confined")
