"""Fetches an image from a toy cloud to a spool, and dies on the way: what it leaves is left by a process that is gone.

python -m tests.agency.relocation.fetching SPOOL
"""

from __future__ import annotations

import asyncio
import os
import random
import sys
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

from agency.events import Events
from agency.relocation.migrators.content import Fetch
from agency.relocation.workshop import Output, Run
from agency.trust.keys import SiteKey, TrustedKeys
from agency.trust.replays import Replays
from agency.trust.site import Site
from descriptors.base import MIB
from descriptors.deployment import DeployedResource
from descriptors.relocation import Task
from tests.agency.relocation.test_adapt import run_at
from tests.agency.toys import Cloud, CloudModule, toy_module
from vendor_modules.resources import DiskFormat

KILLED = 77
DEADLY = 6
"""The MiB at which the process dies: among zeros."""
_CHANCE = random.Random(7)  # noqa: S311 - the same each time
CONTENT = _CHANCE.randbytes(4 * MIB) + bytes(4 * MIB) + _CHANCE.randbytes(MIB + 99)
TASK = Task(name="fetch-volume-data", migrator="fetch", vendor="alpha", subject="data", needs=("bundle",))
KEY = SiteKey.generate("here.test")


class Watched(CloudModule):
    """A toy cloud's module that remembers from where it was asked to download."""

    asked: list[int]
    deadly: int | None = None

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        self.asked.append(offset)
        async for chunk in super()._download_image(image_id, offset):
            if self.deadly is not None and offset >= self.deadly * MIB:
                os._exit(KILLED)
            offset += len(chunk)
            yield chunk


async def prepared(spool: Path) -> tuple[Watched, Run]:
    """A cloud with an image of the content, and an operation that is to fetch it."""
    plain = toy_module(Cloud())
    module = Watched(plain.vendor, plain.settings, plain.services)
    module.cloud, module.asked = plain.cloud, []
    image = await module._keep_image("data", "bundle", DiskFormat.RAW, CONTENT)
    run = run_at(spool, in_disk=False, operation="operation")
    site = Site(KEY, TrustedKeys([(KEY.name, KEY.public)]), Replays(), None)  # type: ignore[arg-type]
    events = Events(None)  # type: ignore[arg-type]
    workshop = replace(run.workshop, modules={"alpha": module}, events=events, site=site)
    made = DeployedResource(
        kind="image", id=image.id, name="bundle", vendor="alpha", agreement="a", key="bundle", resource="data"
    )
    return module, Run(workshop, run.order, {"bundle": Output(created=made)})


async def die(spool: Path) -> None:
    """Fetch, and die."""
    module, run = await prepared(spool)
    module.deadly = DEADLY
    await Fetch().run(TASK, run)


if __name__ == "__main__":
    asyncio.run(die(Path(sys.argv[1])))
