"""The receiving side of a transfer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from agency.transfer.ends import Sink
from agency.transfer.manifest import Manifest
from agency.transfer.pace import Bandwidth
from agency.transfer.progress import Progress, Result


def receive(
    sink: Sink,
    streams: Sequence[socket.socket],
    *,
    testify: Callable[[Manifest], bytes] = lambda _: b"",
    bandwidth: Bandwidth | None = None,
    idle: float = 60,
    scratch: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Receive content over these streams, whose hellos have been heard, and write it. They are closed when this
    returns.

    The sink is finished, or left for another attempt, when this returns or raises. ``testify``: makes the signed
    statement that the sender gets (up to 64 KiB) from the manifest, after the sink is finished. All else is as in
    :func:`agency.transfer.sending.send`.
    """
    raise NotImplementedError
