"""A transfer from one end's view."""

from __future__ import annotations

import socket
import threading
from pathlib import Path
from typing import Any

import pytest

from agency.problems import AgencyError
from agency.transfer.ends import BLOCK, UNIT
from agency.transfer.wire import BEGIN, HEADER, Kind
from agency.transfer.work import End, Terms, receive_content

SIZE = 64 * UNIT


class Met:
    """The other proxy was met: it has begun to send."""

    peer = None

    def __init__(self, stream: socket.socket) -> None:
        self._stream = stream

    def size(self) -> int:
        """Of its content."""
        return SIZE

    def open(self, _size: int) -> list[Any]:
        """The streams."""
        return [self._stream]


def test_a_cancel_is_obeyed_while_what_is_there_is_hashed(tmp_path: Path) -> None:
    """A large part from before is not hashed to its end first, and it stays."""
    (tmp_path / ".disk.part").write_bytes(b"part" * (SIZE // 4))
    asked: list[str] = []

    def cancelled() -> bool:
        """From the first unit on that has been hashed."""
        asked.append(threading.current_thread().name)
        return threading.current_thread() is not threading.main_thread()

    ours, theirs = socket.socketpair()
    with ours:
        ours.sendall(HEADER.pack(Kind.BEGIN, 0, 0, BEGIN.size, 0) + BEGIN.pack(SIZE, BLOCK))
        end = End("write", tmp_path, "disk", "raw")
        with pytest.raises(AgencyError) as caught:
            receive_content("id", end, Met(theirs), None, Terms(scratch=tmp_path, cancelled=cancelled))  # type: ignore[arg-type]
    assert caught.value.problem.code == "cancelled"
    hashers = [name for name in asked if name != threading.main_thread().name]
    assert len(hashers) < SIZE // UNIT
    assert (tmp_path / ".disk.part").stat().st_size == SIZE
