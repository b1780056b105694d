"""Asking a running component over HTTP: whether it works, and what it holds."""

from __future__ import annotations

import asyncio
import ssl
import time
from functools import cache

import httpx
from blake3 import blake3

from agency.problems import refuse

HEALTHY_WITHIN = 60.0
"""Seconds that a component may take from its start until it says that it works."""
_TIMEOUT = httpx.Timeout(10.0)


_certificates = cache(ssl.create_default_context)
"""To read the certificates takes 20 ms, which would be down time at every probe."""


def client() -> httpx.AsyncClient:
    """An HTTP client that goes straight where it is told: no proxies, no redirects."""
    return httpx.AsyncClient(timeout=_TIMEOUT, trust_env=False, follow_redirects=False, verify=_certificates())


async def await_health(url: str, what: str) -> None:
    """Wait until ``url`` answers 200; after :data:`HEALTHY_WITHIN` seconds raise, with its last answer."""
    deadline, wait, last = time.monotonic() + HEALTHY_WITHIN, 0.02, "nothing"
    async with client() as http:
        while True:
            try:
                response = await http.get(url)
                if response.status_code == httpx.codes.OK:
                    return
                last = f"status {response.status_code}"
            except httpx.HTTPError as error:
                last = type(error).__name__
            if time.monotonic() > deadline:
                raise refuse(
                    "not-healthy",
                    f"{what} does not work: its health probe {url} gave {last} for {HEALTHY_WITHIN:g} s",
                    "look at the component's console output",
                )
            await asyncio.sleep(wait)
            wait = min(wait * 1.5, 1.0)


async def content_digest(url: str, what: str) -> str:
    """BLAKE3 of what ``url`` answers, as ``blake3:…``; an error that names ``what`` when it does not answer 200."""
    hasher = blake3()
    try:
        async with client() as http, http.stream("GET", url) as response:
            if response.status_code != httpx.codes.OK:
                raise refuse(
                    "no-content",
                    f"{what}: its content probe {url} answered {response.status_code}",
                    "see that the component works, then try again",
                )
            async for chunk in response.aiter_bytes():
                hasher.update(chunk)
    except httpx.HTTPError as error:
        raise refuse(
            "no-content",
            f"{what}: its content probe {url} failed: {type(error).__name__}",
            "see that the component works, then try again",
        ) from error
    return f"blake3:{hasher.hexdigest()}"
