"""A slow provider must not hold up anybody: 100 describe calls at once through libcloud's base and the EC2 module, to a
server in a process of its own that answers after 0.3 s, beside the same calls by bare threads.

Ours and the floor have as many threads. The pause is the longest time for which the event loop stood still, less the
5 ms that it slept and, on Linux, less the time for which its thread was ready and the computer was busy with others:
that is no provider's doing. What is left are our own steps and what other threads of ours kept the interpreter for. The
floor's pause is that of the same loop while bare threads make the calls.
"""

from __future__ import annotations

import asyncio
import statistics
import sys
import time
from asyncio.subprocess import PIPE
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.request import ProxyHandler, build_opener

import structlog
from pydantic import SecretStr

from agency.running import settle
from benchmarks.measuring import Figure
from vendor_modules.blocking import WORKERS
from vendor_modules.ec2.compute import Ec2Settings
from vendor_modules.ec2.module import Ec2Module
from vendor_modules.services import Services
from vendor_modules.services.credentials import AccessKeyCredentials, Credentials
from vendor_modules.services.persistence import MemoryPersistence
from vendor_modules.services.serialization import JsonSerialization

CALLS = 100
DELAY = 0.3
TIMES = 3
STEP = 0.005
_SERVER = """
import asyncio
ITEM = "<item><key>k{0}</key><value>value {0}</value></item>"
MACHINE = (
    "<instanceId>i-1</instanceId><imageId>ami-1</imageId><instanceType>t3.micro</instanceType><instanceState>"
    "<code>16</code><name>running</name></instanceState><privateIpAddress>10.0.0.1</privateIpAddress><tagSet>"
    + "".join(ITEM.format(n) for n in range(20)) + "</tagSet>"
)
BODY = (
    '<DescribeInstancesResponse xmlns="http://ec2.amazonaws.com/doc/2016-11-15/"><reservationSet><item><instancesSet>'
    f"<item>{MACHINE}</item></instancesSet></item></reservationSet></DescribeInstancesResponse>"
).encode()
ANSWER = b"HTTP/1.1 200 OK\\r\\nContent-Type: text/xml\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(BODY) + BODY
async def serve(reader, writer):
    try:
        while head := await reader.readuntil(b"\\r\\n\\r\\n"):
            length = [int(l.split(b":")[1]) for l in head.split(b"\\r\\n") if l.lower().startswith(b"content-length")]
            await reader.readexactly(length[0] if length else 0)
            await asyncio.sleep(DELAY)
            writer.write(ANSWER)
    except (asyncio.IncompleteReadError, ConnectionError):
        writer.close()
async def main():
    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()
asyncio.run(main())
"""


class _Account:
    """A credentials service with one answer."""

    async def get(
        self, vendor: str, *, resource: str | None = None, agreement: str | None = None
    ) -> Credentials | None:
        """See :class:`~vendor_modules.services.CredentialStore`."""
        return AccessKeyCredentials(access_key="key", secret_key=SecretStr("secret"))

    async def put(
        self, vendor: str, credentials: Credentials, *, resource: str | None = None, agreement: str | None = None
    ) -> None:
        """Nothing is kept."""


async def run() -> list[Figure]:
    """The calls' duration and the event loop's worst pause; the first call of a module too, which imports and makes the
    drivers."""
    async with _server() as url:
        settle()  # as an agency does that has started
        ours, floor, pauses, bare_pauses = [], [], [], []
        for _ in range(TIMES):
            seconds, pause = await _measured(lambda: _by_module(url))
            ours.append(seconds)
            pauses.append(pause)
            seconds, pause = await _measured(lambda: _by_threads(url))
            floor.append(seconds)
            bare_pauses.append(pause)
    words = f"bare urllib in {WORKERS} threads"
    what = f"{CALLS} describe calls, provider takes {DELAY:g} s"
    return [
        Figure(what, statistics.median(ours), words, statistics.median(floor)),
        Figure(f"{what}: loop's worst pause", max(pauses), words, max(bare_pauses)),
    ]


async def _by_module(url: str) -> None:
    settings = Ec2Settings.model_validate({"region": "eu-west-1", "jurisdiction": "EU", "endpoint": url})
    services = Services(_Account(), MemoryPersistence(), structlog.get_logger(), JsonSerialization())
    async with Ec2Module("slow", settings, services) as module:
        await asyncio.gather(*(module.describe_machine("i-1") for _ in range(CALLS)))


async def _by_threads(url: str) -> None:
    opener = build_opener(ProxyHandler({}))

    def ask() -> bytes:
        with opener.open(url, data=b"Action=DescribeInstances") as answer:
            content: bytes = answer.read()
        return content

    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(WORKERS) as threads:
        await asyncio.gather(*(loop.run_in_executor(threads, ask) for _ in range(CALLS)))


async def _measured(work: Callable[[], Awaitable[None]]) -> tuple[float, float]:
    """How long it took, and the event loop's longest pause meanwhile, in seconds."""
    longest, started = 0.0, time.perf_counter()
    working = asyncio.ensure_future(work())
    while not working.done():
        before = time.perf_counter() - _queued()
        await asyncio.sleep(STEP)
        longest = max(longest, time.perf_counter() - _queued() - before - STEP)
    await working
    return time.perf_counter() - started, longest


def _queued() -> float:
    """For how many seconds this thread has been ready to run, and had no processor."""
    try:
        return int(Path("/proc/thread-self/schedstat").read_text().split()[1]) / 1e9
    except OSError:
        return 0.0


@asynccontextmanager
async def _server() -> AsyncIterator[str]:
    program = f"DELAY = {DELAY}\n{_SERVER}"
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", program, stdout=PIPE)
    try:
        assert process.stdout  # noqa: S101 - it is a pipe
        yield f"http://127.0.0.1:{(await process.stdout.readline()).decode().strip()}/"
    finally:
        process.kill()
        await process.wait()
