"""The sending side of a transfer."""

from __future__ import annotations

import socket
from collections.abc import Callable, Sequence
from pathlib import Path

from agency.transfer.ends import Source
from agency.transfer.pace import Bandwidth
from agency.transfer.progress import Progress, Result


def send(
    source: Source,
    streams: Sequence[socket.socket],
    *,
    compress: bool = True,
    bandwidth: Bandwidth | None = None,
    idle: float = 60,
    scratch: Path | None = None,
    progress: Callable[[Progress], None] = lambda _: None,
    cancelled: Callable[[], bool] = lambda: False,
) -> Result:
    """Send the content over these streams: connected sockets, TLS or plain, on which the hello has been said, in the
    order of their numbers. They are closed when this returns; the source is not.

    ``compress``: whether it may be tried. ``bandwidth``: shared with other transfers. ``idle``: seconds without a byte
    after which the peer counts as gone. ``scratch``: where manifests are, 1/1000 of the size. ``progress`` and
    ``cancelled`` are called in this thread, a few times a second.

    Raises :class:`~agency.problems.AgencyError`: ``cancelled``, ``link-lost`` (worth another attempt),
    ``peer-refused``, ``bad-peer``, whatever the source says, or ``source-changed``.
    """
    raise NotImplementedError
