"""A transfer proxy: takes the streams of its data port, and carries out the transfers that its tokens mean.

Everything here blocks, in threads: one for each transfer, one for each new stream until it has said what it is for.
"""

from __future__ import annotations

import math
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

import structlog

from agency.problems import AgencyError, problem_of, refuse
from agency.transfer import identity
from agency.transfer.formats.opening import check_format
from agency.transfer.identity import FOLDER, Peer
from agency.transfer.ledger import Ledger, State, Transfer
from agency.transfer.manifest import root_text
from agency.transfer.meeting import PATIENCE, Called, Calling, Hello, hear
from agency.transfer.pace import Bandwidth
from agency.transfer.places import below
from agency.transfer.progress import Progress
from agency.transfer.witness import Witness
from agency.transfer.work import End, Meeting, Terms, carry, root_of
from descriptors.base import utc_now

MAX_UNKNOWN = 64
"""Connections that have not yet said what they are for."""
MAX_STREAMS = 12
"""Of all transfers together: each takes up to 3 MiB of memory."""
_PLACE = re.compile(r"/proc/\d+/fd/\d+\S*")

log = structlog.get_logger("agency.transfer")


@dataclass(frozen=True)
class Limits:
    """What a proxy takes on."""

    transfers: int = 4
    """At once; whoever comes then is refused, and may try again."""
    rate: float | None = None
    """Bytes a second, all transfers together."""
    compress: bool = True


@dataclass
class _Job:
    """A transfer under way."""

    streams: int
    progress: Progress | None = None
    cancelled: threading.Event = field(default_factory=threading.Event)


@dataclass
class _Gathering:
    """Streams of a transfer, of which some have come."""

    until: float
    hellos: dict[int, Hello] = field(default_factory=dict)


class Proxy:
    """One proxy. Its methods may be called from any thread."""

    def __init__(self, state: Path, root: Path, witness: Witness, limits: Limits) -> None:
        """``state``: the directory that `agency transfer init` has written to; ``root``: where the files are."""
        self.name = witness.name
        self._root = root
        self._witness = witness
        self._scratch = state / FOLDER
        self._accepting, self.calling = identity.accepting(state), identity.calling(state)
        self._ledger = Ledger(self._scratch)
        self._limits = limits
        self._bandwidth = None if limits.rate is None else Bandwidth(limits.rate)
        self._unknown = threading.BoundedSemaphore(MAX_UNKNOWN)
        self._lock = threading.Lock()
        self._stopping = False
        self._jobs: dict[str, _Job] = {}
        self._gatherings: dict[bytes, _Gathering] = {}
        self._verifying: set[str] = set()

    # --- what a local administrator, or who has a token, may ask ---

    def issue(
        self,
        direction: Literal["read", "write"],
        file: str,
        *,
        peer: str,
        format: str,  # noqa: A002
        most: int | None,
        lifetime: timedelta,
        base: str | None = None,
    ) -> tuple[Transfer, bytes]:
        """A token, and what it means. Refused for names that can be none, and where there is nothing to read."""
        check_format(format)
        if base is not None and direction == "read":
            raise refuse("no-base", "a base is what a file that is written begins from", "leave it out to read")
        for each, is_read in ((file, direction == "read"), *([(base, True)] if base is not None else [])):
            with below(self._root, each) as (directory, name):
                if is_read and not (directory / name).exists():
                    raise refuse("no-such-file", f"there is no {name} to read", "put it below the root")
        transfer, token = self._ledger.issue(direction, file, format, peer, most, lifetime, base)
        log.info("transfer allowed", id=transfer.id, direction=direction, file=file, peer=peer)
        return transfer, token

    def transfers(self) -> list[Transfer]:
        """All of them, the newest last."""
        return self._ledger.all()

    def get(self, id_: str) -> Transfer:
        """One of them."""
        return self._ledger.get(id_)

    def meant(self, token: bytes) -> Transfer:
        """What a token means."""
        return self._ledger.find(token)

    def progress(self, id_: str) -> Progress | None:
        """How far a transfer is; None where nothing can be said."""
        job = self._jobs.get(id_)
        return job.progress if job else None

    def start(self, token: bytes, address: tuple[str, int], theirs: bytes, streams: int) -> Transfer:
        """Begin the transfer that the token means, by connecting to the proxy at that address (its host and data port)
        with the token that it has issued."""
        transfer, job = self._begin(token, streams)
        calling = Calling(address, theirs, self.calling, streams, lambda peer: _check_peer(transfer, peer))
        threading.Thread(target=self._run, args=(transfer, job, calling), daemon=True).start()
        return transfer

    def cancel(self, id_: str) -> Transfer:
        """End the transfer, whose token is worth nothing from now on. What has arrived of it stays where it is."""
        with self._lock:
            transfer = self._ledger.get(id_)
            if transfer.state is State.COMPLETE:
                raise refuse("too-late", f"the transfer {id_} is complete", "nothing need be done")
            if job := self._jobs.get(id_):
                job.cancelled.set()
            log.info("transfer cancelled", id=id_)
            return self._ledger.change(id_, state=State.CANCELLED)

    def verification(self, id_: str) -> dict[str, Any]:
        """Read the transfer's file again, all of it; says whether it is what was transferred, and its size and root."""
        transfer = self._ledger.get(id_)
        if transfer.state is not State.COMPLETE:
            raise refuse("not-complete", f"the transfer is {transfer.state}", "wait until it is complete")
        with self._lock:
            if id_ in self._verifying or len(self._verifying) >= self._limits.transfers:
                raise _busy("is verifying that, or as much as it can,")
            self._verifying.add(id_)
        try:
            with below(self._root, transfer.file) as (directory, name):
                end = End(transfer.direction, directory, name, transfer.format)
                size, root = root_of(end, self._scratch, lambda: self._stopping)
        finally:
            self._verifying.discard(id_)
        return {"size": size, "root": root, "same": (size, root) == (transfer.size, transfer.root)}

    def stop(self) -> None:
        """Break off what runs, in order: it can be gone on with."""
        with self._lock:
            self._stopping = True
            self._hang_up_before(math.inf)
            for job in self._jobs.values():
                job.cancelled.set()
        end = time.monotonic() + PATIENCE
        while self._jobs and time.monotonic() < end:
            time.sleep(0.05)
        self._ledger.close()

    # --- the data port ---

    def listen(self, listener: socket.socket) -> None:
        """Take the streams that come there, until it is closed. Gives back at once."""
        threading.Thread(target=self._accept, args=(listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            try:
                connection, address = listener.accept()
            except OSError:
                if listener.fileno() < 0:
                    return
                time.sleep(0.1)  # no file descriptors, such things
                continue
            if not self._unknown.acquire(blocking=False):
                connection.close()
                continue
            threading.Thread(target=self._meet, args=(connection, address[0]), daemon=True).start()

    def _meet(self, connection: socket.socket, address: str) -> None:
        """A new stream: when it is the last one of a transfer, carry that out."""
        try:
            hello = hear(connection, self._accepting)
        except (AgencyError, OSError) as error:
            log.info("a stream is turned away", address=address, reason=str(error))
            return
        finally:
            self._unknown.release()
        try:
            _check_peer(self._ledger.find(hello.token), hello.peer)
            called = self._gathered(hello)
        except Exception as error:  # noqa: BLE001 - whatever it is, the stream must not stay
            problem = problem_of(error)
            with closing(Called([hello])) as turned_away:
                turned_away.refuse(problem)
            log.info("a stream is turned away", address=address, peer=hello.peer.name, code=problem.code)
            return
        if called:
            self._answer(hello.token, called)

    def _gathered(self, hello: Hello) -> Called | None:
        """All streams of a transfer, when this is the last one to come. Those that wait in vain are hung up on."""
        with self._lock:
            if self._stopping:
                raise _busy("is being stopped, and takes nothing")
            now = time.monotonic()
            self._hang_up_before(now)
            gathering = self._gatherings.setdefault(hello.token, _Gathering(now + PATIENCE))
            first = next(iter(gathering.hellos.values()), hello)
            if hello.number in gathering.hellos or _same(first) != _same(hello):
                raise refuse("bad-peer", "streams of one transfer that do not fit each other", "start it again")
            gathering.hellos[hello.number] = hello
            if len(gathering.hellos) < hello.of:
                return None
            del self._gatherings[hello.token]
            return Called(list(gathering.hellos.values()))

    def _hang_up_before(self, moment: float) -> None:
        """On streams that have waited in vain for others, until then."""
        for token in [token for token, each in self._gatherings.items() if each.until < moment]:
            for late in self._gatherings.pop(token).hellos.values():
                late.stream.close()

    def _answer(self, token: bytes, called: Called) -> None:
        try:
            self._break_off(self._ledger.find(token).id)
            transfer, job = self._begin(token, called.streams)
        except Exception as error:  # noqa: BLE001 - whatever it is, the streams must not stay
            with closing(called):
                called.refuse(problem_of(error))
            return
        self._run(transfer, job, called)

    # --- a transfer ---

    def _break_off(self, id_: str) -> None:
        """End an attempt whose peer has come again: it has noticed before us that the link is gone."""
        if job := self._jobs.get(id_):
            job.cancelled.set()
            end = time.monotonic() + PATIENCE
            while id_ in self._jobs and time.monotonic() < end:
                time.sleep(0.05)

    def _begin(self, token: bytes, streams: int) -> tuple[Transfer, _Job]:
        """Take the token, if there is room for another transfer of so many streams."""
        with self._lock:
            if self._stopping:
                raise _busy("is being stopped, and takes nothing")
            taken = sum(job.streams for job in self._jobs.values())
            if len(self._jobs) >= self._limits.transfers or taken + streams > MAX_STREAMS:
                raise _busy(f"has {len(self._jobs)} transfers with {taken} streams under way, and takes no more,")
            transfer = self._ledger.begin(token)
            job = self._jobs[transfer.id] = _Job(streams)
        return transfer, job

    def _run(self, transfer: Transfer, job: _Job, meeting: Meeting) -> None:
        """Carry out a transfer that has begun, and note what came of it."""
        log.info("transfer begins", id=transfer.id, direction=transfer.direction, file=transfer.file)

        def progress(now: Progress) -> None:
            job.progress = now

        terms = Terms(self._scratch, self._limits.compress, self._bandwidth, progress, job.cancelled.is_set)
        outcome: dict[str, Any]
        try:
            with closing(meeting), _told(meeting), self._end(transfer) as end:
                result, statement = carry(transfer.id, end, meeting, self._witness, terms)
            outcome = {
                "state": State.COMPLETE,
                "size": result.size,
                "wire": result.wire,
                "root": root_text(result.root),
                "statement": statement,
            }
        except Exception as error:  # noqa: BLE001 - whatever it is, the transfer has ended
            problem = problem_of(error)
            words = _PLACE.sub(transfer.file, problem.message)
            outcome = {"state": State.BROKEN, "problem": f"{words} ({problem.code})"}
            if job.progress:
                outcome |= {"size": job.progress.total, "wire": job.progress.wire}
        with self._lock:
            if self._ledger.get(transfer.id).state is State.CANCELLED and outcome["state"] is not State.COMPLETE:
                outcome["state"] = State.CANCELLED
            self._ledger.change(transfer.id, finished=utc_now(), **outcome)
            del self._jobs[transfer.id]
        log.info("transfer ends", id=transfer.id, state=outcome["state"], problem=outcome.get("problem"))

    @contextmanager
    def _end(self, transfer: Transfer) -> Iterator[End]:
        """The content that a transfer is about, as long as inside."""
        with ExitStack() as inside:
            directory, name = inside.enter_context(below(self._root, transfer.file))
            base = transfer.base and Path(*inside.enter_context(below(self._root, transfer.base)))
            yield End(transfer.direction, directory, name, transfer.format, transfer.most, base or None)


def _same(hello: Hello) -> tuple[Peer, int, int]:
    """What is the same for all streams of a transfer."""
    return hello.peer, hello.of, hello.size


def _check_peer(transfer: Transfer, peer: Peer) -> None:
    if not peer.answers_to(transfer.peer):
        raise refuse(
            "wrong-peer",
            f"the token is for another proxy than {peer.name}",
            "ask for one that is issued for that proxy's name or fingerprint",
        )


def _busy(why: str) -> AgencyError:
    message = f"the transfer proxy {why} for the moment"
    return refuse("busy", message, "try again later", retryable=True)


@contextmanager
def _told(meeting: Meeting) -> Iterator[None]:
    """What goes wrong before the streams are in use, the other proxy is told: that, and not where our files are."""
    try:
        yield
    except Exception as error:
        problem = problem_of(error)
        meeting.refuse(problem.model_copy(update={"message": _PLACE.sub("its file", problem.message)}))
        raise
