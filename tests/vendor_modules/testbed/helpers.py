"""What the testbed's tests share."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import httpx
from blake3 import blake3

from descriptors.machine import MachineManifest
from vendor_modules.module import Content
from vendor_modules.resources import Attachment, DiskFormat, ImageSpec, MachineSpec, UserData

SERVE = "python3 -m http.server --bind $HOST $PORT"
"""To be used in a shell's command line."""


def machine(
    start: str | None = f"sh -c 'exec {SERVE}'",
    *,
    name: str = "web",
    files: dict[str, bytes] | None = None,
    install: tuple[str, ...] = (),
    volumes: dict[str, str] | None = None,
    **fields: Any,
) -> MachineSpec:
    """A machine that serves its files over HTTP, unless it is told to start something else."""
    return MachineSpec(
        name=name,
        image=fields.pop("image", "base"),
        size=fields.pop("size", "small"),
        user_data=UserData(files=files or {}, manifest=MachineManifest(start=start, install=install)),
        volumes=tuple(Attachment(volume=volume, device=device) for device, volume in (volumes or {}).items()),
        **fields,
    )


def image(data: bytes, format_: DiskFormat = DiskFormat.RAW, name: str = "disk") -> tuple[ImageSpec, Content]:
    """An image to upload, and its content in chunks that end at no round number."""

    async def content() -> AsyncIterator[bytes]:
        for start in range(0, len(data), 300_001):
            yield data[start : start + 300_001]

    return ImageSpec(name=name, format=format_, size=len(data), digest=digest(data)), content


def digest(data: bytes) -> str:
    """The data's digest as images carry it."""
    return f"blake3:{blake3(data).hexdigest()}"


async def get(host: str | None, port: int | None, path: str = "/") -> httpx.Response:
    """Read a path of a machine's service, on a connection of its own."""
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        return await client.get(f"http://{host}:{port}{path}")


async def eventually(condition: Any, seconds: float = 60.0) -> None:
    """Wait until the condition (a function) is true; fail after so many seconds."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not condition():
        assert asyncio.get_running_loop().time() < deadline, "it did not come about in time"
        await asyncio.sleep(0.02)
