"""Bandwidth: a limit that transfers share fairly."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

_BURST = 0.05
"""Seconds' worth of bytes that may go at once after a pause."""
_TICK = 0.2


class Bandwidth:
    """So many bytes a second, for all transfers that share it."""

    def __init__(self, rate: float) -> None:
        if rate <= 0:
            raise ValueError(f"a bandwidth of {rate} bytes a second")
        self.rate = rate
        self.chunk = max(1024, min(65536, int(rate * _BURST)))
        """Bytes to ask for at once."""
        self._lock = threading.Lock()
        self._free = time.monotonic()

    def reserve(self, size: int) -> float:
        """When that many bytes may go (:func:`time.monotonic`). First come, first served."""
        with self._lock:
            start = max(self._free, time.monotonic() - _BURST)
            self._free = start + size / self.rate
            return start


class Share:
    """One transfer's share of a bandwidth. Its threads ask one after the other, so that who has more of them does not
    get more: transfers that always have something to send take turns."""

    def __init__(self, bandwidth: Bandwidth) -> None:
        self.chunk = bandwidth.chunk
        self._bandwidth = bandwidth
        self._turn = threading.Lock()

    def take(self, size: int, check: Callable[[], None]) -> None:
        """Wait until that many bytes may go; ``check`` is called now and then, and raises to give up."""
        while not self._turn.acquire(timeout=_TICK):
            check()
        try:
            start = self._bandwidth.reserve(size)
            while (left := start - time.monotonic()) > 0:
                check()
                time.sleep(min(left, _TICK))
        finally:
            self._turn.release()
