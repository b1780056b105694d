"""The README's commands work as shown, in the order in which it shows them."""

from __future__ import annotations

import json
import os
import re
import shlex
import signal
import subprocess
import time
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from agency.servers.running import reserved_ports
from tests.labs.agency import AGENCY
from tests.labs.testbed import PASSWORD, USERNAME, RunningCloud, start_cloud

ROOT = Path(__file__).parent.parent.parent
README = (ROOT / "README.md").read_text()

OBSERVED = "tests/agency/observer/test_observer.py"
ELSEWHERE = {
    "agency vendor check testbed": "tests/vendor_modules/test_vendor_commands.py",
    "make demo": ".ci/run",
    "agency demo --link component --server ejabberd": "tests/integration/test_demo.py",
    "make test": ".ci/run",
    "make lint": ".ci/run",
    "make observer": "tests/labs/observer.py",
    "agency-observer watch": OBSERVED,
    "agency-observer submit examples/guestbook/application.xml": OBSERVED,
    "make bench": "tests/test_benchmarks.py",
}
"""Commands that take long, and what runs them instead."""


ENDS_WITH = {"agency vendor new acme && agency vendor check acme": 1}
"""The exit status of commands that do not end with 0, as the README says."""


def commands() -> list[str]:
    """Every command in the README's console blocks, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
    return [line[2:] for block in blocks for line in block.splitlines() if line.startswith("$ ")]


@pytest.fixture
async def vendor(tmp_path: Path) -> AsyncIterator[RunningCloud]:
    """A cloud that somebody else runs, described in the README's files."""
    async with start_cloud(tmp_path / "mycloud", name="mycloud") as cloud:
        example = re.search(r"^```yaml\n(module: testbed\n.*?)^```", README, re.MULTILINE | re.DOTALL)
        assert example
        text = example[1].replace("http://127.0.0.1:20891", cloud.url).replace("owner", USERNAME).replace("…", PASSWORD)
        (tmp_path / "mycloud.yaml").write_text(text)
        table = re.search(r"^```csv\n(.*?)^```", README, re.MULTILINE | re.DOTALL)
        assert table
        (tmp_path / "mycloud.csv").write_text(table[1])
        yield cloud


@pytest.fixture
def port() -> Iterator[int]:
    """Where the transfer proxy listens."""
    with reserved_ports(1) as (port,):
        yield port


def start_agency(directory: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run `agency up` beside the other commands; returns when it is ready."""
    process = subprocess.Popen([AGENCY, "up"], cwd=directory, env=environment, stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 60
    while not (directory / "state" / "api.json").exists():
        assert time.monotonic() < deadline, "the agency does not come up"
        time.sleep(0.1)
    return process


def start_proxy(command: str, port: int, directory: Path, environment: dict[str, str]) -> subprocess.Popen[bytes]:
    """Run `agency transfer serve` beside the other commands, at that port; returns when it is ready."""
    words = [*shlex.split(command), "--listen", f"127.0.0.1:{port}", "--data", "0"]
    process = subprocess.Popen(words, cwd=directory, env=environment, stdout=subprocess.PIPE)
    assert process.stdout
    with process.stdout as said:
        assert b"transfer.b.example is at" in said.readline()
    return process


@pytest.mark.integration
async def test_every_command_of_the_readme_works(tmp_path: Path, vendor: RunningCloud, port: int) -> None:
    """Whoever copies the README's commands one after the other succeeds with every one."""
    state = tmp_path / "state"
    path = f"{AGENCY.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "AGENCY_STATE": str(state)}
    (tmp_path / "examples").symlink_to(ROOT / "examples")

    def run(command: str) -> str:
        done = subprocess.run(  # noqa: S602 - the README's own words
            command, shell=True, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=120, check=False
        )
        assert done.returncode == ENDS_WITH.get(command, 0), f"$ {command}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    agency: subprocess.Popen[bytes] | None = None
    (tmp_path / "web.img").write_bytes(os.urandom(300_000))
    (tmp_path / "images").mkdir()
    proxy: subprocess.Popen[bytes] | None = None
    try:
        for command in commands():
            if command in ELSEWHERE:
                continue
            if command.startswith("agency transfer serve"):
                proxy = start_proxy(command.removesuffix("&"), port, tmp_path, environment)
                continue
            command = command.replace(":7443", f":{port}")
            if command == "agency up &":
                agency = start_agency(tmp_path, environment)
                continue
            if "/srv/a.example" in command:
                command = command.replace("/srv/a.example", str(tmp_path / "a.example"))
            if command.startswith("agency accept"):
                offers = json.loads(run("agency offers guestbook --json"))["offers"]
                chosen = next(row["offer"] for row in offers if row["chosen"])
                command = re.sub(r"offer-[0-9a-f]{16}", chosen, command)
            run(command)
    finally:
        if proxy:
            proxy.send_signal(signal.SIGTERM)
            proxy.wait(60)
        if agency:
            agency.send_signal(signal.SIGTERM)
            agency.wait(60)


def test_every_long_command_is_run_elsewhere() -> None:
    """What this file leaves out is run by the file that it names, and all of it is still in the README."""
    for command, place in ELSEWHERE.items():
        assert command in commands()
        words = command.removeprefix("agency ").split()
        text = (ROOT / place).read_text()
        assert all(word in text for word in words), f"{place} does not run {command}"


def test_links_lead_somewhere() -> None:
    """Every file that the README links to is there."""
    for target in re.findall(r"\]\(([^)#]+)\)", README):
        assert (ROOT / target).exists(), target
