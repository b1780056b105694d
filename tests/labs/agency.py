"""A real agency for tests: ``agency up`` as a process of its own with its clouds, and the command line to talk to it.

with running_agency_process(tmp_path / "state") as lab:
    lab.json("submit", "application.xml")
    lab.kill_cloud("cirrus")
    lab.kill()
    lab.restart()
"""

from __future__ import annotations

import asyncio
import json
import os
import queue
import re
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import httpx
from typer.testing import CliRunner

from agency.cli import app
from agency.client import Client
from agency.store.credentials import Cipher, EncryptedCredentials
from agency.store.keyring import Keyring
from agency.store.store import Store
from tests.labs.testbed import services
from vendor_modules.capabilities import inventory
from vendor_modules.resources import Address, Resource
from vendor_modules.testbed.module import TestbedModule, TestbedSettings

Json = dict[str, Any]
T = TypeVar("T")

AGENCY = Path(sys.executable).parent / "agency"
GUESTBOOK = Path(__file__).parent.parent.parent / "examples" / "guestbook"
CLOUDS = ("aurora", "borealis", "cirrus")
READY_WITHIN = 60.0
"""Seconds; the machine that tests run on may be busy with other things."""
ENDS_WITHIN = 45.0
LONG_AWAY = "6"
"""Seconds that a killed cloud stays away, if ``AGENCY_CLOUD_RESTART_SECONDS`` says so: longer than the agency
repeats its calls, or it would ride the outage out."""
RUNNING: set[Lab] = set()
"""The labs that are open: what they log is shown beside a test that fails (:func:`log_tails`)."""


class Answer(NamedTuple):
    """What a command left behind."""

    status: int
    stdout: str
    stderr: str


def run(*args: str | Path, env: dict[str, str] | None = None, timeout: float = 120.0) -> Answer:
    """Run ``agency`` with the arguments, as a user would."""
    done = subprocess.run(
        [AGENCY, *args], capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL, env=env, check=False
    )
    return Answer(done.returncode, done.stdout, done.stderr)


def wait_until(what: str, is_so: Callable[[], T], within: float = 30.0, every: float = 0.05) -> T:
    """What ``is_so`` returns as soon as it is true; fails, naming what was waited for, when that takes too long."""
    deadline = time.monotonic() + within
    while not (found := is_so()):
        assert time.monotonic() < deadline, f"waited {within:g} s in vain: {what}"
        time.sleep(every)
    return found


def processes_of(directory: Path) -> dict[int, str]:
    """The processes that run in the directory or were told about it: their ids and command lines."""
    found = {}
    for process in Path("/proc").glob("[0-9]*"):
        try:
            command = (process / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
            inside = (process / "cwd").readlink().is_relative_to(directory)
        except OSError:
            continue  # it ended, or is not ours
        if (inside or str(directory) in command) and int(process.name) != os.getpid():
            found[int(process.name)] = command
    return found


class Lab:
    """One state directory, the agency that runs in it, and its clouds."""

    def __init__(self, state: Path, **environment: str) -> None:
        self.state = state.resolve()
        self._environment = {**os.environ, **environment}
        # compiling everything again at each start would double the time that starting takes
        self._environment.pop("PYTHONDONTWRITEBYTECODE", None)
        self._process: subprocess.Popen[str] | None = None
        self._said: list[str] = []
        self._client: Client | None = None

    # --- the agency's process ---

    def start(self) -> None:
        """Start the agency and wait until it says that it is ready."""
        self._forget_client()
        lines: queue.Queue[str | None] = queue.Queue()
        self._process = subprocess.Popen(
            [AGENCY, "up", "--state", self.state],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=self._environment,
        )
        threading.Thread(target=self._listen, args=(self._process, lines), daemon=True).start()
        deadline = time.monotonic() + READY_WITHIN
        while True:
            try:
                line = lines.get(timeout=max(deadline - time.monotonic(), 0.01))
            except queue.Empty:
                self.kill()
                raise AssertionError(f"the agency is not ready after {READY_WITHIN:g} s\n{self.log_tail()}") from None
            if line is None:
                status = self._process.wait()
                raise AssertionError(f"the agency ended with status {status}\n{self.log_tail()}")
            if "Ctrl-C" in line:
                return

    def _listen(self, process: subprocess.Popen[str], lines: queue.Queue[str | None]) -> None:
        assert process.stdout
        with process.stdout:
            for line in process.stdout:
                self._said.append(line)
                lines.put(line)
        lines.put(None)

    @property
    def pid(self) -> int:
        """The agency's process id."""
        assert self._process
        return self._process.pid

    def terminate(self) -> int:
        """SIGTERM the agency and wait for its end; returns its exit status."""
        assert self._process
        self._process.terminate()
        return self._process.wait(ENDS_WITHIN)

    def kill(self) -> None:
        """SIGKILL the agency. Its clouds follow by themselves: they get SIGTERM from the kernel."""
        assert self._process
        self._process.kill()
        self._process.wait()

    def restart(self) -> None:
        """Start the agency again, at once, after :meth:`kill` or :meth:`terminate`."""
        assert self._process
        assert self._process.poll() is not None, "end it first"
        self.start()

    def stop(self) -> None:
        """End the agency, if it runs, and see that its clouds and machines have ended too."""
        self._forget_client()
        if self._process and self._process.poll() is None:
            try:
                self.terminate()
            except subprocess.TimeoutExpired:
                self.kill()
        wait_until(f"the end of {self.processes()}", lambda: not self.processes(), within=ENDS_WITHIN)

    def processes(self) -> dict[int, str]:
        """The agency, its clouds and their machines: process ids and command lines."""
        return processes_of(self.state)

    def log_tail(self, lines: int = 40) -> str:
        """What the agency printed and logged last, and its clouds' complaints."""
        text = ["".join(self._said[-lines:])]
        for file in (self.state / "agency.log", *sorted((self.state / "clouds").glob("*/stderr.log"))):
            if file.exists() and (last := file.read_text(errors="replace").splitlines()[-lines:]):
                text += [f"--- {file.relative_to(self.state)}", *(line[:2000] for line in last)]
        return "\n".join(text)

    # --- the command line and the API ---

    def cli(self, *args: str | Path, timeout: float = 120.0) -> Answer:
        """Run a command against this agency."""
        return run(*args, "--state", self.state, env=self._environment, timeout=timeout)

    def json(self, *args: str | Path) -> Any:
        """What a command that succeeds prints with ``--json``. It runs in this process: many commands, quickly."""
        answer = self._in_process(*args, "--json")
        assert answer.status == 0, f"agency {' '.join(map(str, args))}: {answer}\n{self.log_tail()}"
        return json.loads(answer.stdout)

    def refused(self, *args: str | Path, status: int = 1) -> Json:
        """The problem that a refused command prints with ``--json``; every problem says what, and what to do."""
        answer = self._in_process(*args, "--json")
        assert answer.status == status, f"agency {' '.join(map(str, args))}: {answer}"
        problem: Json = json.loads(answer.stdout)["problem"]
        assert problem["code"]
        assert problem["message"]
        assert problem["remedy"]
        return problem

    def _in_process(self, *args: str | Path) -> Answer:
        result = CliRunner().invoke(app, [*map(str, args), "--state", str(self.state)], catch_exceptions=False)
        return Answer(result.exit_code, result.stdout, result.stderr)

    def begin(self, *args: str | Path) -> subprocess.Popen[str]:
        """Begin a command; the caller waits for it."""
        command = [AGENCY, *args, "--state", self.state]
        pipe = subprocess.PIPE
        return subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=self._environment
        )

    def client(self) -> Client:
        """A client of the agency's API, as the command line uses it; good until the agency ends."""
        self._client = self._client or Client(self.state)
        return self._client

    def _forget_client(self) -> None:
        if self._client:
            self._client.close()
        self._client = None

    def application(self, name: str) -> Json:
        """What ``agency status NAME --json`` shows."""
        return self.client().get(f"/applications/{name}")

    def last_event(self, name: str) -> int:
        """The id of the application's last event so far."""
        events = self.client().get(f"/applications/{name}/events")["events"]
        return events[-1]["id"] if events else 0

    def await_event(self, name: str, kind: str, text: str, after: int, within: float = 30.0) -> Json:
        """Wait for an event of an application after the one given; it must come."""
        client = self.client()

        def found() -> Json | None:
            events = client.get(f"/applications/{name}/events", after=after)["events"]
            return next((e for e in events if e["kind"] == kind and e["text"] == text), None)

        return wait_until(f"event {kind} {text}", found, within, every=0.005)

    def idle(self, name: str, within: float = 60.0) -> Json:
        """The application's status once nothing is under way for it."""

        def found() -> Json | None:
            status = self.application(name)
            return None if status["busy"] else status

        return wait_until(f"{name} not busy", found, within)

    # --- the clouds ---

    def cloud_pid(self, name: str) -> int | None:
        """The process that the cloud runs in now; None while there is none."""
        marks = ("vendor_modules.testbed", "serve", str(self.state / "clouds" / name))
        found = [pid for pid, command in self.processes().items() if all(mark in command for mark in marks)]
        return found[0] if found else None

    def kill_cloud(self, name: str) -> int:
        """SIGKILL the cloud; its machines die with it. The agency starts it again after a while."""
        pid = self.cloud_pid(name)
        assert pid, f"{name} does not run"
        os.kill(pid, signal.SIGKILL)
        return pid

    def cloud_back(self, name: str, killed: int, within: float = 30.0) -> None:
        """Wait until the cloud runs in another process than the one killed, and answers."""
        wait_until(f"{name} is back", lambda: self.cloud_pid(name) not in (None, killed), within)
        vendors = self.client()

        def answers() -> bool:
            return next(v for v in vendors.get("/vendors")["vendors"] if v["name"] == name)["reachable"]

        wait_until(f"{name} answers", answers, within)

    def held(self) -> dict[str, list[tuple[str, Resource]]]:
        """What every cloud holds for the agency's account, asked of the clouds themselves."""
        return asyncio.run(self._held())

    async def _held(self) -> dict[str, list[tuple[str, Resource]]]:
        found: dict[str, list[tuple[str, Resource]]] = {}
        async with Store.open(f"sqlite+aiosqlite:///{self.state}/agency.db") as store:
            secrets = EncryptedCredentials(store, Cipher(Keyring(self.state / "master.key").key()))
            for vendor in await store.vendors():
                given = services(await secrets.get(vendor.name))
                async with TestbedModule(vendor.name, TestbedSettings.model_validate(vendor.settings), given) as module:
                    found[vendor.name] = [(str(kind), resource) for kind, resource in await inventory(module)]
        return found

    # --- what must hold ---

    def tidy(self, within: float = 30.0) -> Json:
        """The overall status once nothing is left to clean up and nothing leaked; fails when that does not come."""
        client = self.client()
        status: Json = {}

        def clean() -> bool:
            nonlocal status
            status = client.get("/status")
            return not status["cleanups"] and not status["leaked"]

        try:
            wait_until("no clean-ups, no leaks", clean, within)
        except AssertionError as error:
            raise AssertionError(f"{error}: {status}") from None
        return status

    def assert_whole(self, *names: str) -> None:
        """Each application has, at the clouds, exactly what its status lists, is published exactly where its status
        says, and nothing else of ours is anywhere."""
        rows = [self.application(name) for name in names]
        listed = sorted((r["vendor"], r["kind"], r["id"]) for row in rows for r in row["resources"])
        held = self.held()
        there = sorted((vendor, kind, r.id) for vendor, found in held.items() for kind, r in found)
        assert there == listed
        published = [
            f"http://{r.host}:{r.port}"
            for found in held.values()
            for _, r in found
            if isinstance(r, Address) and r.machine
        ]
        assert sorted(published) == sorted(url for row in rows for url in row["endpoints"].values())


def log_tails() -> str:
    """What all open labs logged last."""
    return "\n".join(f"=== {lab.state}\n{lab.log_tail()}" for lab in RUNNING)


@contextmanager
def running_agency_process(state: Path, **environment: str) -> Iterator[Lab]:
    """Run an agency until the block ends; its environment variables are as given. In the end all of its processes have
    ended."""
    lab = Lab(state, **{"AGENCY_CLOUD_RESTART_SECONDS": "2", **environment})
    RUNNING.add(lab)
    try:
        lab.start()
        yield lab
    finally:
        try:
            lab.stop()
        finally:
            RUNNING.discard(lab)


class Guestbook:
    """The example application at work in a lab, under a name of its own."""

    def __init__(self, lab: Lab, folder: Path, name: str = "guestbook", size_mib: int = 16) -> None:
        """The descriptor and its files are copied into ``folder``; its volume has that size."""
        self.lab, self.name = lab, name
        shutil.copytree(GUESTBOOK, folder, ignore=shutil.ignore_patterns("__pycache__"), dirs_exist_ok=True)
        self.descriptor = folder / "application.xml"
        text = self.descriptor.read_text()
        text = re.sub(r'(<application [^>]*)name="guestbook"', rf'\1name="{name}"', text)
        self.descriptor.write_text(re.sub(r'size_mib="\d+"', f'size_mib="{size_mib}"', text))
        self.written: list[tuple[str, str]] = []

    def deploy(self) -> None:
        """Submit, accept the chosen offer, deploy."""
        offers = self.lab.json("submit", self.descriptor)["offers"]
        client = self.lab.client()
        client.post(f"/offers/{next(o['offer'] for o in offers if o['chosen'])}/accept")
        client.follow(f"/applications/{self.name}/deploy", lambda _: None)

    @property
    def url(self) -> str:
        """Where the world reaches it."""
        url: str = self.lab.application(self.name)["endpoints"]["web"]
        return url

    @property
    def place(self) -> str:
        """The vendor that its machine is at."""
        resources = self.lab.application(self.name)["resources"]
        (vendor,) = [r["vendor"] for r in resources if r["kind"] == "machine"]
        return str(vendor)

    def write(self, *entries: tuple[str, str]) -> None:
        """Write entries, and a picture."""
        with httpx.Client(trust_env=False) as http:
            for name, text in entries:
                http.post(f"{self.url}/entries", json={"name": name, "text": text}).raise_for_status()
                self.written.append((name, text))
            picture = (GUESTBOOK / "picture.png").read_bytes()
            http.put(f"{self.url}/pictures/picture.png", content=picture).raise_for_status()

    def content(self) -> bytes:
        """All that it holds, as it answers to a visitor; it must answer."""
        with httpx.Client(trust_env=False) as http:
            return http.get(f"{self.url}/content").raise_for_status().content

    def read(self) -> list[tuple[str, str]]:
        """The entries that a visitor sees."""
        return [(entry["name"], entry["text"]) for entry in json.loads(self.content())["entries"]]

    def plan(self, to: str) -> Json:
        """Plan to relocate it."""
        return self.lab.client().post(f"/applications/{self.name}/plan", vendor=to)

    def relocate(self, to: str, on_event: Callable[[Json], None] = lambda _: None) -> Json:
        """Plan and apply; the receipt."""
        return self.lab.client().follow(f"/plans/{self.plan(to)['id']}/apply", on_event)
