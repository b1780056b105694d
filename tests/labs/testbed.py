"""Portable Testbed Clusters for tests: real cloud processes on the loopback interface, each with a state directory.

async with start_cloud(tmp_path / "north", name="north", block_gib_month=None) as cloud:
    machine = await cloud.module.create_machine(...)
    await cloud.kill()
    await cloud.restart()
"""

from __future__ import annotations

import asyncio
import json
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import structlog
from pydantic import SecretStr

from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials, PasswordCredentials
from vendor_modules.services.persistence import MemoryPersistence
from vendor_modules.services.serialization import JsonSerialization
from vendor_modules.testbed.module import TestbedModule, TestbedSettings

USERNAME, PASSWORD = "owner", "correct horse battery staple"


class OneAccount:
    """A credentials service that knows one set of credentials, whoever asks."""

    def __init__(self, credentials: Credentials | None) -> None:
        self.credentials = credentials

    async def get(self, vendor: str, *, resource: str | None = None, agreement: str | None = None) -> Any:
        """See :class:`~vendor_modules.services.CredentialStore`."""
        return self.credentials

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """See :class:`~vendor_modules.services.CredentialStore`."""
        self.credentials = credentials


def services(credentials: Credentials | None) -> Services:
    """The four services of a module, in memory."""
    return Services(OneAccount(credentials), MemoryPersistence(), structlog.get_logger(), JsonSerialization())


def module_for(url: str, *, vendor: str = "testbed", password: str = PASSWORD) -> TestbedModule:
    """A module that talks to the cloud at ``url``; close it by ``async with``."""
    account = PasswordCredentials(username=USERNAME, password=SecretStr(password))
    return TestbedModule(vendor, TestbedSettings.model_validate({"url": url}), services(account))


@dataclass
class RunningCloud:
    """A cloud process that this test started."""

    state: Path
    config: dict[str, Any]
    process: Process
    url: str
    module: TestbedModule
    ready: dict[str, Any] = field(default_factory=dict)

    async def kill(self) -> None:
        """Kill the process without notice (SIGKILL)."""
        self.process.kill()
        await self.process.wait()

    async def stop(self) -> int:
        """End the process as an operator would (SIGTERM); returns its exit status."""
        if self.process.returncode is None:
            self.process.terminate()
        return await self.process.wait()

    async def restart(self, **changed: Any) -> None:
        """Start it again, after :meth:`kill` or :meth:`stop`, with the configuration changed as given. It answers at
        the same URL, so ``module`` goes on working."""
        self.config |= changed
        self.process, self.ready = await _launch(self.state, self.config)
        self.url = self.ready["url"]

    def guest_processes(self) -> list[int]:
        """The processes of this computer that run in one of the cloud's machines' directories."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            try:
                inside = (process / "cwd").readlink().is_relative_to(self.state)
            except OSError:
                continue
            if inside and int(process.name) != self.process.pid:
                found.append(int(process.name))
        return found

    def log(self) -> str:
        """The cloud's log file."""
        return (self.state / "log.jsonl").read_text()


@asynccontextmanager
async def start_cloud(state: Path, **config: Any) -> AsyncIterator[RunningCloud]:
    """Run a cloud until the block ends. ``config`` are fields of
    :class:`~vendor_modules.testbed.config.CloudConfig`; the account is that of :func:`module_for`."""
    full = {"name": "testbed", "username": USERNAME, "password": PASSWORD, **config}
    process, ready = await _launch(state, full)
    async with module_for(ready["url"], vendor=full["name"]) as module:
        cloud = RunningCloud(state.resolve(), full, process, ready["url"], module, ready)
        try:
            yield cloud
        finally:
            await cloud.stop()


async def _launch(state: Path, config: dict[str, Any]) -> tuple[Process, dict[str, Any]]:
    arguments = ["serve", "--state", str(state), "--config", "-", "--follow-parent"]
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "vendor_modules.testbed", *arguments, stdin=PIPE, stdout=PIPE, stderr=PIPE
    )
    assert process.stdin
    assert process.stdout
    assert process.stderr
    process.stdin.write(json.dumps(config, default=str).encode())
    process.stdin.close()
    line = await process.stdout.readline()
    if not line:
        said = (await process.stderr.read()).decode()
        await process.wait()
        raise RuntimeError(said)
    return process, json.loads(line)
