"""The agency's own testbed clouds: three processes beside it, started, watched and stopped with it."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import secrets
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import structlog

from agency.problems import refuse
from agency.store.store import Store, VendorConfig
from vendor_modules.services.credentials import CredentialStore, PasswordCredentials

log = structlog.get_logger("agency")

READY_WITHIN = 30.0
"""Seconds in which a cloud must be ready."""
STOP_WITHIN = 15.0
"""Seconds that a cloud has to stop its machines when it is asked to end."""


def _availability(percent: str, penalty: str) -> list[dict[str, str]]:
    return [{"name": "uptime", "property": "availability", "at_least": percent, "penalty": penalty}]


POLICIES: dict[str, dict[str, Any]] = {
    "aurora": {
        "strategy": "conceder",
        "floor": "88",
        "term_discounts": [{"from": 30, "percent": "3"}],
        "limits": {"egress-per-gib": "0.05", "move-egress-per-gib": "0.02"},
    },
    "cirrus": {
        "strategy": "conceder",
        "floor": "94",
        "limits": {
            "move-egress-per-gib": "0.004",
            "move-window-hours": "1",
            "move-downtime-seconds": "30",
            "validity-seconds": "1800",
        },
    },
}
"""How the clouds negotiate (:class:`broker.pricing.Policy`); borealis does not."""
CLOUDS: tuple[dict[str, Any], ...] = (
    {
        "name": "aurora",
        "region": "eu-north",
        "jurisdiction": "EU",
        "sizes": [
            {"name": "n1", "cores": 1, "memory_mib": 1024, "price_per_hour": "0.0210"},
            {"name": "n2", "cores": 2, "memory_mib": 4096, "price_per_hour": "0.0480"},
        ],
        "block_gib_month": "0.09",
        "object_gib_month": "0.02",
        "egress_per_gib": "0.08",
        "guarantees": _availability("99.95", "10"),
        "latency_ms": 4,
        "bandwidth_bytes_per_second": 60_000_000,
    },
    {
        "name": "borealis",
        "region": "us-east",
        "jurisdiction": "US",
        "sizes": [
            {"name": "micro", "cores": 1, "memory_mib": 512, "price_per_hour": "0.0088"},
            {"name": "large", "cores": 4, "memory_mib": 8192, "price_per_hour": "0.0720"},
        ],
        "block_gib_month": "0.08",
        "object_gib_month": "0.018",
        "egress_per_gib": "0.09",
        "guarantees": _availability("99.9", "10"),
        "latency_ms": 25,
        "bandwidth_bytes_per_second": 60_000_000,
    },
    {
        "name": "cirrus",
        "region": "eu-west",
        "jurisdiction": "EU",
        "sizes": [
            {"name": "c1", "cores": 1, "memory_mib": 512, "price_per_hour": "0.0125"},
            {"name": "c2", "cores": 2, "memory_mib": 2048, "price_per_hour": "0.0260"},
        ],
        "block_gib_month": None,
        "object_gib_month": "0.025",
        "egress_per_gib": "0.01",
        "guarantees": _availability("99.9", "25"),
        "latency_ms": 8,
        "bandwidth_bytes_per_second": 60_000_000,
    },
)
"""Each with its own prices, region, SLA terms, latency and abilities; cirrus has no block storage."""

USERNAME = "agency"

_PASSED_ON = frozenset(
    {"PATH", "HOME", "TMPDIR", "TZ", "LANG", "LC_ALL", "LC_CTYPE", "LD_LIBRARY_PATH"}
    | {"PYTHONPATH", "PYTHONHOME", "PYTHONDONTWRITEBYTECODE"}
)
"""Environment variables that a cloud's process needs. What else the agency has there (its master key, the password of
its database) is none of a cloud's business."""


class Cloud:
    """One testbed cloud, and the process that it runs in now."""

    def __init__(self, config: dict[str, Any], state: Path, password: str, restart_after: float) -> None:
        self.name: str = config["name"]
        self.url = ""
        self._config = {**config, "username": USERNAME, "password": password}
        self._state = state
        self._restart_after = restart_after
        self._process: asyncio.subprocess.Process | None = None

    @property
    def pid(self) -> int | None:
        """The process id; None while there is none."""
        return self._process.pid if self._process and self._process.returncode is None else None

    async def start(self) -> None:
        """Start the cloud and wait until it is ready."""
        options = ["--state", str(self._state), "--config", "-", "--follow-parent"]
        command = [sys.executable, "-m", "vendor_modules.testbed", "serve", *options]
        # the password goes through a pipe: every user of the machine can read a command line
        self._state.mkdir(mode=0o700, parents=True, exist_ok=True)
        await self._predecessor_ended()
        complaints = self._state / "stderr.log"
        with complaints.open("wb") as stderr:
            self._process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=stderr,
                env={name: value for name, value in os.environ.items() if name in _PASSED_ON},
                start_new_session=True,  # Ctrl-C is for the agency, which then ends its clouds in order
            )
        try:
            async with asyncio.timeout(READY_WITHIN):
                line = await self._introduce(self._process)
        except TimeoutError:
            line = b""
        if not line:
            self.kill()
            words = complaints.read_text(errors="replace").strip().splitlines()
            raise refuse(
                "cloud-not-ready",
                f"testbed cloud {self.name} did not start: {words[-1] if words else 'it says nothing'}",
                f"see the logs below {self._state}",
            )
        self.url = json.loads(line)["url"]

    async def _predecessor_ended(self) -> None:
        """Wait for the cloud that an agency which was killed has left stopping its machines."""
        deadline = asyncio.get_running_loop().time() + STOP_WITHIN
        with (self._state / "lock").open("a") as lock:
            while asyncio.get_running_loop().time() < deadline:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    await asyncio.sleep(0.1)
                else:
                    return  # closing the file lets go of it

    async def _introduce(self, process: asyncio.subprocess.Process) -> bytes:
        """Hand the configuration over; returns the line in which the cloud says that it is ready."""
        assert process.stdin is not None  # noqa: S101 - a pipe was asked for
        assert process.stdout is not None  # noqa: S101 - a pipe was asked for
        process.stdin.write(json.dumps(self._config).encode())
        process.stdin.close()
        return await process.stdout.readline()

    def kill(self) -> None:
        """End the process at once, if it runs."""
        if self.pid:
            os.kill(self.pid, signal.SIGKILL)

    async def stop(self) -> None:
        """Let the cloud stop its machines and end."""
        if self._process is None or self._process.returncode is not None:
            return
        self._process.terminate()
        try:
            async with asyncio.timeout(STOP_WITHIN):
                await self._process.wait()
        except TimeoutError:
            self.kill()
            await self._process.wait()

    async def watch(self) -> None:
        """Start the cloud again, after a while, whenever its process has ended; for ever."""
        while True:
            assert self._process is not None  # noqa: S101 - it was started before it is watched
            status = await self._process.wait()
            log.error("testbed cloud ended", cloud=self.name, status=status, restart_in=self._restart_after)
            await asyncio.sleep(self._restart_after)
            try:
                await self.start()
                log.info("testbed cloud is back", cloud=self.name)
            except Exception as error:
                log.error("testbed cloud does not come back", cloud=self.name, exc_info=error)


@asynccontextmanager
async def running_clouds(
    state: Path, store: Store, credentials: CredentialStore, restart_after: float
) -> AsyncIterator[dict[str, Cloud]]:
    """Start the testbed clouds, make them known as vendors, and watch them; stop them at the end."""
    clouds: dict[str, Cloud] = {}
    for config in CLOUDS:
        password = await _password(config["name"], credentials)
        clouds[config["name"]] = Cloud(config, state / config["name"], password, restart_after)
    watchers: list[asyncio.Task[None]] = []
    try:
        await asyncio.gather(*(cloud.start() for cloud in clouds.values()))
        for name, cloud in clouds.items():
            policy = POLICIES.get(name, {})
            await store.save_vendor(VendorConfig(name, "testbed", {"url": cloud.url}, policy))
        watchers = [asyncio.create_task(cloud.watch()) for cloud in clouds.values()]
        yield clouds
    finally:
        for watcher in watchers:
            watcher.cancel()
        await asyncio.gather(*watchers, return_exceptions=True)
        await asyncio.gather(*(cloud.stop() for cloud in clouds.values()))


async def _password(name: str, credentials: CredentialStore) -> str:
    kept = await credentials.get(name)
    if isinstance(kept, PasswordCredentials):
        return kept.password.get_secret_value()
    password = secrets.token_urlsafe(24)
    await credentials.put(name, PasswordCredentials.model_validate({"username": USERNAME, "password": password}))
    return password
