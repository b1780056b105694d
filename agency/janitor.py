"""The janitor: what could not be removed when it should have been is tried again until it is gone; agreements
whose time is over end."""

from __future__ import annotations

import asyncio
import itertools
import re
from dataclasses import dataclass

import structlog

from agency import agreements
from agency.problems import problem_of
from agency.relocation.workshop import Workshop
from agency.store.store import Cleanup
from descriptors.base import utc_now
from descriptors.deployment import Deployment
from vendor_modules.capabilities import inventory, release
from vendor_modules.errors import Unavailable, VendorError
from vendor_modules.module import VendorModule

log = structlog.get_logger("agency")

PERIOD = 1.0
"""Seconds between two rounds while something is to be cleaned up, at first; they grow apart while nothing succeeds."""
LONGEST_PERIOD = 15.0

OUR_KEY = re.compile(r"^(deployment|plan)-[0-9a-f]{16}/")
"""The idempotency keys that this agency gives: an operation's id, and a task's name."""


@dataclass(frozen=True)
class Leak:
    """A resource of ours at a vendor that belongs to no live deployment and no operation under way."""

    vendor: str
    kind: str
    id: str
    key: str


async def keep_tidy(workshop: Workshop) -> None:
    """Work off pending clean-ups and bring agreements up to date, for ever."""
    wait = PERIOD
    while True:
        await asyncio.sleep(wait)
        try:
            await agreements.tend(workshop, utc_now())
            wait = PERIOD if await _round(workshop) else min(wait * 2, LONGEST_PERIOD)
        except Exception as error:
            log.error("janitor stumbled", exc_info=error)


async def _round(workshop: Workshop) -> bool:
    """Try every pending clean-up once; returns whether it is worth to come back soon."""
    pending = await workshop.store.cleanups()
    away: set[str] = set()  # a vendor out of reach is not tried again in the same round
    done = [await _clean_up(workshop, cleanup, away) for cleanup in pending]
    return any(done) or not pending


async def _clean_up(workshop: Workshop, cleanup: Cleanup, away: set[str]) -> bool:
    module = workshop.modules.get(cleanup.vendor)
    if module is None or cleanup.vendor in away:
        return False
    try:
        count = await release(module, cleanup.kind, cleanup.key)
    except Exception as error:  # noqa: BLE001 - it is tried again
        if isinstance(error, Unavailable):
            away.add(cleanup.vendor)
        await workshop.store.cleanup_failed(cleanup.id, problem_of(error).message)
        return False
    await workshop.store.cleanup_done(cleanup.id)
    log.info("cleaned up", vendor=cleanup.vendor, kind=cleanup.kind, key=cleanup.key, count=count)
    return True


async def find_leaks(workshop: Workshop) -> list[Leak]:
    """Ask every vendor what it holds, and name what is ours and serves nothing. Vendors out of reach are left out.

    Operations go on meanwhile: what served something before the vendors were asked, or does after, has not leaked.
    """
    known, active = await _in_use(workshop)
    held = await asyncio.gather(*(_held(vendor, module) for vendor, module in workshop.modules.items()))
    known_after, active_after = await _in_use(workshop)
    return [
        leak
        for leak in itertools.chain.from_iterable(held)
        if OUR_KEY.match(leak.key)
        and leak.key.partition("/")[0] not in active | active_after
        and (leak.vendor, leak.kind, leak.id) not in known | known_after
    ]


async def _in_use(workshop: Workshop) -> tuple[set[tuple[str, str, str]], set[str]]:
    """What belongs to deployments, and the operations under way. One that ends between the two has written its
    deployment by then: so the operations are looked at first."""
    active = set(workshop.busy.values())
    deployments = await workshop.store.all(Deployment)
    return {(r.vendor, r.kind, r.id) for deployment in deployments for r in deployment.resources}, active


async def _held(vendor: str, module: VendorModule) -> list[Leak]:
    """All that the vendor holds, as leaks, if they are any."""
    try:
        return [Leak(vendor, kind, resource.id, resource.key) for kind, resource in await inventory(module)]
    except VendorError as error:
        log.warning("vendor not audited", vendor=vendor, error=str(error))
        return []
