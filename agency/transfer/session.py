"""What both sides of a transfer have in common: streams with a thread each, one end for all of them, and progress."""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future, wait
from functools import partial
from typing import Self, TypeVar

from agency.problems import AgencyError, problem_of, refuse
from agency.transfer.ends import Sink, Source
from agency.transfer.pace import Bandwidth, Share
from agency.transfer.progress import Meter, Progress, Result, Tally
from agency.transfer.wire import PROBLEM, Kind, Lost, PeerRefused, Stopped, Stream, problem_for_peer

T = TypeVar("T")

_TICK = 0.1
"""Seconds, at most, until a cancel is seen."""
_REPORT = 0.5
"""Seconds between reports of progress."""
_GRACE = 1.0
"""Seconds for the true reason to arrive by another stream, when one breaks."""
_LINGER = 0.5
"""Seconds for the other side to hear why we give up."""
_WAIT = 5.0
"""Seconds between signs of life while one side works for long."""
_TO_END = 0.4
"""Seconds that a thread has to end by itself; and once more, when what it waits for was interrupted."""


class Session:
    """One transfer's streams and threads. The thread that makes it directs the others, and is the only one that calls
    ``progress`` and ``cancelled``."""

    def __init__(
        self,
        sockets: Sequence[socket.socket],
        end: Source | Sink,
        *,
        idle: float,
        bandwidth: Bandwidth | None,
        progress: Callable[[Progress], None],
        cancelled: Callable[[], bool],
    ) -> None:
        share = Share(bandwidth) if bandwidth else None
        self.streams = [Stream(each, idle=idle, share=share, check=self.check) for each in sockets]
        self.tallies = [Tally() for _ in sockets]
        self._meter, self._end = Meter(end.size), end
        self._progress, self._cancelled = progress, cancelled
        self._stopped = self._ending = self._complete = False
        self._threads: list[threading.Thread] = []
        self._director = threading.get_ident()
        self._errors: list[BaseException] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        """Whatever went wrong becomes a problem for people, and the other side hears of it."""
        if error is None or not isinstance(error, Exception) or isinstance(error, AgencyError):
            self._close(error)
        else:
            better = AgencyError(problem_of(error))
            self._close(better)
            raise better from error

    def check(self) -> None:
        """Raise if the transfer should not go on."""
        if self._stopped:
            raise Stopped
        ending = self._ending or self._complete
        if threading.get_ident() == self._director and not ending and self._cancelled():
            raise refuse("cancelled", "the transfer was cancelled", "start it again: it goes on from here")

    def run(self, work: Callable[[int], None]) -> None:
        """Do the work of each stream, by its number, in threads of their own; when all have ended, raise the gravest of
        their errors."""
        self._threads = [_started(partial(self._guarded, work, each)) for each in range(len(self.streams))]
        try:
            self._direct()
        except BaseException as error:
            self._see_end(self._threads, error)
            raise
        gravest = min(self._errors, key=lambda error: isinstance(error, Lost), default=None)
        self._see_end(self._threads, gravest)
        if gravest:
            raise gravest

    def aside(self, job: Callable[[], T], signs: Callable[[], None] = lambda: None) -> T:
        """Do what takes long, with ``signs`` of life now and then. A cancel is obeyed meanwhile, and an error of the
        signs raised, unless the job makes the transfer complete all the same."""
        future: Future[T] = Future()
        thread = _started(lambda: _fulfil(future, job))
        said = time.monotonic()
        try:
            while not wait([future], _TICK).done:
                self.check()
                if time.monotonic() - said > _WAIT:
                    said = time.monotonic()
                    signs()
        except BaseException as error:
            self._see_end([thread], error)
            if not self._complete:
                raise
        return future.result()

    def report(self) -> None:
        """Tell how far it is."""
        done, wire = sum(each.sum for each in self.tallies), sum(each.wire for each in self.streams)
        self._progress(self._meter.read(done, wire))

    def result(self, root: bytes, statement: bytes) -> Result:
        """What came of it, now that it is complete."""
        self.report()
        sums = {name: sum(getattr(each, name) for each in self.tallies) for name in ("data", "copied", "same", "zero")}
        wire, seconds = sum(each.wire for each in self.streams), self._meter.seconds
        return Result(self._meter.total, wire=wire, seconds=seconds, root=root, statement=statement, **sums)

    def complete(self) -> None:
        """The content is there: from here on nothing can be cancelled."""
        self._complete = True

    def _see_end(self, threads: list[threading.Thread], error: BaseException | None) -> None:
        """Wait for them to end: by themselves, or as what they wait for is interrupted. Where that cannot be (a disk
        that hangs), nobody else is to wait with us: the other side hears now that it is over."""
        self._stopped = True
        for resort in (self._end.interrupt, lambda: self._close(error)):
            end = time.monotonic() + _TO_END
            for each in threads:
                each.join(max(end - time.monotonic(), 0))
            if any(each.is_alive() for each in threads):
                resort()
        for each in threads:
            each.join()
        self._stopped = False

    def _close(self, error: BaseException | None) -> None:
        """End the streams; tell the other side first if an error is the reason, unless it is the other side's own. A
        stream that a thread still has is cut."""
        self._ending = True
        kept = [stream for stream, thread in zip(self.streams, self._threads, strict=False) if thread.is_alive()]
        ours = [stream for stream in self.streams if stream not in kept]
        for each in kept:
            each.cut()
        tell = isinstance(error, AgencyError) and not isinstance(error, Lost | PeerRefused)
        said = problem_for_peer(error.problem) if isinstance(error, AgencyError) else b""
        for each in ours if tell else ():
            if each.clean:
                each.hurry(_LINGER)
                with contextlib.suppress(Lost):
                    each.write(Kind.RESULT, said, flags=PROBLEM)
        end = time.monotonic() + (_LINGER if tell else 0)
        for each in ours:
            each.close(end)

    def _guarded(self, work: Callable[[int], None], number: int) -> None:
        try:
            work(number)
        except Stopped:
            pass
        except BaseException as error:  # noqa: BLE001 - raised again by the director
            self._errors.append(error)

    def _direct(self) -> None:
        """Watch over the threads until they end, or should: at once, or when one breaks and no better reason comes."""
        reported = broken = time.monotonic()
        while alive := [each for each in self._threads if each.is_alive()]:
            alive[0].join(_TICK)
            self.check()
            now = time.monotonic()
            if not self._errors:
                broken = now
            elif now - broken > _GRACE or not all(isinstance(each, Lost) for each in self._errors):
                return
            if now - reported > _REPORT:
                reported = now
                self.report()


def _started(job: Callable[[], None]) -> threading.Thread:
    """It is done in a thread that the process does not wait for."""
    thread = threading.Thread(target=job, daemon=True)
    thread.start()
    return thread


def _fulfil(future: Future[T], job: Callable[[], T]) -> None:
    try:
        future.set_result(job())
    except BaseException as error:  # noqa: BLE001 - raised again by who waits for it
        future.set_exception(error)
