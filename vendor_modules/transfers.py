"""Content on its way to a provider, held against what was declared of it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

from blake3 import blake3

from vendor_modules.errors import InvalidRequest
from vendor_modules.module import Content
from vendor_modules.resources import ImageSpec


async def verified(content: Content, spec: ImageSpec) -> AsyncIterator[bytes]:
    """The content in its chunks; :class:`~vendor_modules.errors.InvalidRequest` before the last one when all of them
    together are not what the specification says."""
    hasher, size, held = blake3(), 0, b""
    async for chunk in content():
        if held:
            yield held
        held, size = chunk, size + len(chunk)
        await asyncio.to_thread(hasher.update, chunk)
        if size > spec.size:
            break
    if size != spec.size or f"blake3:{hasher.hexdigest()}" != spec.digest:
        raise InvalidRequest(f"the content is not what was declared: {size} bytes, blake3:{hasher.hexdigest()}")
    if held:
        yield held
