"""The replay guard: remembers the nonces of the tokens that were taken, until they expire."""

from __future__ import annotations

import threading
from dataclasses import dataclass

from blake3 import blake3

from agency.trust.untrusted import Untrusted

CAPACITY = 50_000
"""Tokens remembered, each in about 200 bytes. When there are more, the first that came are forgotten, and whatever is
as old as one that was forgotten is refused from then on: nothing that was taken once is taken again."""
_KEEP = 0.75
"""The part of the capacity that stays when room is made, so that it is seldom made."""
_FEW = 1_000
"""Tokens that are not worth a look whether they have expired."""


@dataclass(frozen=True, slots=True)
class _Taken:
    issued: int
    expires: int
    fingerprint: bytes


class Replays:
    """What was taken."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self._capacity = capacity
        self._lock = threading.Lock()  # verifying is done in threads, too
        self._taken: dict[bytes, _Taken] = {}
        self._look_at = min(_FEW, capacity)
        """How many there are when it is looked for those that have expired."""
        self._forgotten = 0
        """The latest moment at which something that is forgotten, though not expired, was signed."""

    def take(
        self, kid: str, nonce: str, *, token: str, conversation: str, issued: int, expires: int, now: float
    ) -> bool:
        """Take a token that has not expired. True when this very token was taken before in this very conversation, and
        so is a repetition and no replay. :class:`Untrusted` (``replayed``, ``too-old``) when it must not be taken."""
        name = _hash(kid, nonce)
        fingerprint = _hash(token, conversation)
        with self._lock:
            known = self._taken.get(name)
            if known is None:
                self._remember(name, _Taken(issued, expires, fingerprint), now)
                return False
        if known.fingerprint != fingerprint:
            raise Untrusted("replayed", "its nonce was used before, in another conversation or another document")
        return True

    def __len__(self) -> int:
        return len(self._taken)

    def _remember(self, name: bytes, taken: _Taken, now: float) -> None:
        if taken.issued <= self._forgotten:
            raise Untrusted("too-old", "it is older than what is remembered of tokens that were used")
        if len(self._taken) >= self._look_at:
            self._make_room(now)
        self._taken[name] = taken

    def _make_room(self, now: float) -> None:
        self._taken = {name: taken for name, taken in self._taken.items() if taken.expires > now}
        if self._look_at == self._capacity:
            for name in list(self._taken)[: max(0, len(self._taken) - int(self._capacity * _KEEP))]:
                self._forgotten = max(self._forgotten, self._taken.pop(name).issued)
        # when there are twice as many, half of the work of looking has been of use
        self._look_at = min(self._capacity, max(_FEW, 2 * len(self._taken)))


def _hash(*parts: str) -> bytes:
    return blake3("\n".join(parts).encode()).digest(length=16)
