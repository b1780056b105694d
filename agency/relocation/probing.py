"""Asking a running component over HTTP: whether it works, and what it holds."""

from __future__ import annotations

import asyncio
import ssl
import time
from collections.abc import Awaitable, Callable
from functools import cache

import httpx
from blake3 import blake3

from agency.problems import refuse
from vendor_modules.resources import Machine, Status

HEALTHY_WITHIN = 60.0
"""Seconds that a component may take from its start until it says that it works."""
LOOK_EVERY = 2.0
"""Seconds between two looks at whether the machine still runs, while its component does not answer well."""
ANSWER_WITHIN = 10.0
"""Seconds that one answer to a health probe may take."""
CONTENT_WITHIN = 600.0
"""Seconds that the whole answer to a content probe may take."""
_TIMEOUT = httpx.Timeout(10.0)


_certificates = cache(ssl.create_default_context)
"""To read the certificates takes 20 ms, which would be down time at every probe."""


def client() -> httpx.AsyncClient:
    """An HTTP client that goes straight where it is told: no proxies, no redirects."""
    return httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False, verify=_certificates())


async def await_health(url: str, what: str, describe: Callable[[], Awaitable[Machine]]) -> None:
    """Wait until ``url`` answers 200; after :data:`HEALTHY_WITHIN` seconds raise, with its last answer.

    ``describe`` tells how the machine is: when its vendor is out of reach, or it no longer runs, waiting is in vain and
    ends early.
    """
    started, wait, last = time.monotonic(), 0.02, "nothing"
    look = started + LOOK_EVERY
    async with client() as http:
        while True:
            try:
                async with asyncio.timeout(ANSWER_WITHIN), http.stream("GET", url) as response:
                    if response.status_code == httpx.codes.OK:
                        return
                last = f"status {response.status_code}"
            except (httpx.HTTPError, TimeoutError) as error:
                last = type(error).__name__
            if time.monotonic() > look:
                _check_runs(await describe(), what)
                look = time.monotonic() + LOOK_EVERY
            if time.monotonic() > started + HEALTHY_WITHIN:
                raise refuse(
                    "not-healthy",
                    f"{what} does not work: its health probe {url} gave {last} for {HEALTHY_WITHIN:g} s",
                    "look at the component's console output",
                )
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 1.0)


def _check_runs(machine: Machine, what: str) -> None:
    if machine.status is not Status.ACTIVE:
        problem = f": {machine.problem}" if machine.problem else ""
        raise refuse(
            "not-healthy",
            f"{what} does not work: its machine is {machine.status}{problem}",
            "look at the component's console output",
        )


async def content_digest(url: str, what: str, check: Callable[[], None]) -> str:
    """BLAKE3 of what ``url`` answers, as ``blake3:…``; an error that names ``what`` when it does not answer 200.

    ``check`` is called for every chunk, and raises to give up.
    """
    hasher = blake3()
    try:
        async with asyncio.timeout(CONTENT_WITHIN), client() as http, http.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise refuse(
                    "no-content",
                    f"{what}: its content probe {url} answered {response.status_code}",
                    "see that the component works, then try again",
                )
            async for chunk in response.aiter_bytes():
                check()
                hasher.update(chunk)
    except (httpx.HTTPError, TimeoutError) as error:
        raise refuse(
            "no-content",
            f"{what}: its content probe {url} failed: {type(error).__name__}",
            "see that the component works, then try again",
        ) from error
    return f"blake3:{hasher.hexdigest()}"
