"""Images of Vendor Modules as streams, in order from the first byte to the last.

An image goes as the file that it is, whatever its format. It is not converted on the way: a qcow2 file's tables may lie
behind the content that they tell of, and a provider wants an image's size and digest before its first byte, which those
of a file made on the way would only be after the last. What is to be converted becomes a file first.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Coroutine, Iterator
from concurrent.futures import CancelledError, Future, wait
from contextlib import suppress
from io import UnsupportedOperation
from typing import Any, TypeVar

from blake3 import blake3

from agency.problems import AgencyError, refuse
from agency.transfer.ends import UNIT
from agency.transfer.manifest import Manifest
from descriptors.base import Digest
from vendor_modules.capabilities import ImageDownload, ImageUpload
from vendor_modules.errors import Unavailable
from vendor_modules.resources import Image, ImageSpec, Key

T = TypeVar("T")

_ATTEMPTS = 5
"""How often a download that breaks is gone on with, without a byte in between."""
_PAUSE = 0.2
"""Seconds before the second attempt without a byte; twice as many before each that follows."""
_HELD = 4
"""Writes that may wait for the provider."""
_GRACE = 0.5
"""Seconds that an upload has to end by itself."""


class ImageSource:
    """An image that a Vendor Module downloads. See :class:`agency.transfer.ends.Resumable`.

    Made where the module's event loop runs, and used by another thread.
    """

    sequential = True

    def __init__(self, module: ImageDownload, image: Image) -> None:
        """``image`` as the module describes it now: it must be the same at the end."""
        self.size = image.size
        self._module, self._image = module, image
        self._loop = asyncio.get_running_loop()
        self._stream: AsyncIterator[bytes] | None = None
        self._taking: Future[Any] | None = None
        self._closed = False
        self._left = b""
        """What has come and was not read yet."""
        self._position = self._reached = 0
        """How far it was read, and how far it has come."""
        self._attempts, self._pause = _ATTEMPTS, _PAUSE
        self._hash = blake3()

    def extents(self) -> Iterator[tuple[int, int]]:
        """All of it: a stream does not tell."""
        if self.size:
            yield 0, self.size

    def read(self, offset: int, length: int) -> bytes:
        """The next of it; a download that breaks is gone on with."""
        if offset != self._position:
            raise _out_of_turn(offset, self._position)
        data = self._taken(self._take(length))
        self._hash.update(data)
        self._position += length
        return data

    def skip(self, data: bytes) -> None:
        """It is not downloaded, and counts for the digest."""
        if self._reached != self._position:
            raise _out_of_turn(self._position, self._reached)
        self._hash.update(data)
        self._position = self._reached = self._position + len(data)

    @property
    def digest(self) -> Digest:
        """BLAKE3 of all that was read."""
        return f"blake3:{self._hash.hexdigest()}"

    def check_unchanged(self) -> None:
        """What was read must be all there is, and have the digest that the provider says; without one, the image must
        be what it was."""
        self._taken(self._check())

    def interrupt(self) -> None:
        """A thread that reads is refused."""
        self._closed = True
        if self._taking is not None:
            self._taking.cancel()

    def close(self) -> None:
        """End the download; a thread that reads is refused."""
        self.interrupt()
        asyncio.run_coroutine_threadsafe(self._hang_up(), self._loop).result()

    def _taken(self, job: Coroutine[Any, Any, T]) -> T:
        """What comes of it, in the event loop."""
        taking: Future[T] = asyncio.run_coroutine_threadsafe(job, self._loop)
        self._taking = taking
        if self._closed:
            taking.cancel()
        try:
            return taking.result()
        except CancelledError as error:
            raise _given_up() from error

    async def _check(self) -> None:
        now = await self._module.describe_image(self._image.id)
        same = (now.size, now.format, now.digest) == (self.size, self._image.format, self._image.digest)
        if same and self._position == self.size:
            same = now.digest in (None, self.digest) and not self._left and await self._next() is None
        if not same:
            raise _changed(self._image)

    async def _take(self, length: int) -> bytes:
        parts, have = [self._left] if self._left else [], len(self._left)
        while have < length:
            chunk = await self._next()
            if chunk is None:
                raise _changed(self._image)
            parts.append(chunk)
            have += len(chunk)
        data = b"".join(parts)
        self._left = data[length:]
        return data[:length]

    async def _next(self) -> bytes | None:
        """The next chunk, from another download where one breaks; None at the end."""
        while True:
            if self._closed:
                raise _given_up()
            if self._stream is None:
                self._stream = self._module.download_image(self._image.id, offset=self._reached)
            try:
                chunk = await anext(self._stream, None)
            except Unavailable:
                await self._hang_up()
                self._attempts -= 1
                if not self._attempts:
                    raise
                await asyncio.sleep(self._pause)
                self._pause *= 2
                continue
            if chunk is not None:
                self._reached, self._attempts, self._pause = self._reached + len(chunk), _ATTEMPTS, _PAUSE
            if self._reached > self.size:
                raise _changed(self._image)
            return chunk

    async def _hang_up(self) -> None:
        stream, self._stream = self._stream, None
        if isinstance(stream, AsyncGenerator):
            with suppress(RuntimeError):  # it is running, and being cancelled, which closes it too
                await stream.aclose()


class ImageSink:
    """An image that a Vendor Module uploads. See :class:`agency.transfer.ends.Sink`.

    Made where the module's event loop runs, and used by another thread, which waits when the provider is slower.
    """

    blank = False
    sequential = True

    def __init__(self, module: ImageUpload, spec: ImageSpec, key: Key) -> None:
        """``spec``: with the size and the digest that the content will have: the module checks them."""
        self.size = spec.size
        self._loop = asyncio.get_running_loop()
        self._moved = threading.Condition()
        self._held: deque[bytes | int] = deque()
        """What was not taken yet: data, or how many zeros."""
        self._position = 0
        self._end: AgencyError | None = None
        """What the provider's side is told where nothing more comes."""
        self._begun = False
        self._more = asyncio.Event()
        self._upload = asyncio.run_coroutine_threadsafe(module.upload_image(spec, self._content, key=key), self._loop)
        self._upload.add_done_callback(lambda _: self._notify())

    def known(self) -> Manifest | None:
        """Nothing."""
        return None

    def write(self, offset: int, data: bytes | memoryview) -> None:
        """The next of it."""
        self._hold(offset, data if isinstance(data, bytes) else bytes(data), len(data))

    def zero(self, offset: int, length: int) -> None:
        """Zeros are content as any other."""
        self._hold(offset, length, length)

    def read(self, offset: int, length: int) -> bytes:
        """What was written is gone: nothing is copied from a sequential sink."""
        raise UnsupportedOperation("what was written to a vendor cannot be read again here")

    def interrupt(self) -> None:
        """The upload is given up."""
        self._no_more(_given_up())
        self._upload.cancel()

    def finish(self, manifest: Manifest) -> None:
        """Wait until the provider has it, and it can be used; :attr:`image` is what the provider says it is."""
        self._no_more(refuse("incomplete", "not all of the content came", "transfer it again"))
        self.image = self._uploaded()

    def leave(self, manifest: Manifest | None) -> None:
        """Give the upload up: the provider has nothing of it that could be used."""
        self._no_more(_given_up())
        wait([self._upload], timeout=_GRACE)
        self._upload.cancel()

    def _uploaded(self) -> Image:
        try:
            return self._upload.result()
        except CancelledError as error:
            raise _given_up() from error

    def _hold(self, offset: int, what: bytes | int, length: int) -> None:
        with self._moved:
            self._moved.wait_for(lambda: len(self._held) < _HELD or self._upload.done())
            if self._upload.done():  # it failed, or the provider had the image already
                self._uploaded()
                return
            if offset != self._position:
                raise _out_of_turn(offset, self._position)
            self._held.append(what)
            self._position += length
        self._loop.call_soon_threadsafe(self._more.set)

    def _no_more(self, end: AgencyError) -> None:
        with self._moved:
            self._end = end
        self._loop.call_soon_threadsafe(self._more.set)

    def _notify(self) -> None:
        with self._moved:
            self._moved.notify_all()

    async def _content(self) -> AsyncIterator[bytes]:
        if self._begun:
            what = "the upload broke, and its content is to be sent again from the beginning"
            raise refuse("incomplete", what, "transfer it again", retryable=True)
        self._begun = True
        given = 0
        while given < self.size:
            self._more.clear()
            if (chunk := self._next()) is None:
                await self._more.wait()
            else:
                given += len(chunk)
                yield chunk

    def _next(self) -> bytes | None:
        """What is next, of zeros no more than a unit; None if it has not come yet."""
        with self._moved:
            if not self._held:
                if self._end is not None:
                    raise self._end
                return None
            what = self._held.popleft()
            self._moved.notify_all()
            if isinstance(what, bytes):
                return what
            if what > UNIT:
                self._held.appendleft(what - UNIT)
            return bytes(min(what, UNIT))


def _given_up() -> AgencyError:
    return refuse("cancelled", "the transfer ended before its content did", "transfer it again")


def _changed(image: Image) -> AgencyError:
    return refuse(
        "source-changed",
        f"image {image.id} is not what the provider said it was",
        "see that it is complete and that nothing changes it; then transfer it again",
    )


def _out_of_turn(offset: int, position: int) -> AgencyError:
    return refuse(
        "out-of-turn",
        f"a stream is at {position}, and {offset} was asked for or brought",
        "transfer it again; if it happens again, report it",
    )
