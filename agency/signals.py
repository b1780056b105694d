"""Waiting to be asked to stop."""

from __future__ import annotations

import asyncio
import signal


async def stopped() -> None:
    """Wait for SIGINT (Ctrl-C) or SIGTERM."""
    asked = asyncio.Event()
    loop = asyncio.get_running_loop()
    for each in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(each, asked.set)
    await asked.wait()
