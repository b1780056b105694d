"""What the parts of the module share: the pool of clients, and the login."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import Future
from typing import ClassVar, TypeVar

import requests

from vendor_modules.blocking import Pool
from vendor_modules.errors import ProtocolError, TimedOut, Unauthorized, VendorError
from vendor_modules.module import ModuleSettings, PriceSource, VendorModule
from vendor_modules.openstack.client import CHUNK, Client, Dialect, Plugin, plugin_for
from vendor_modules.openstack.errors import Refused, translate
from vendor_modules.openstack.settings import OpenStackSettings
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials

T = TypeVar("T")


class Cloud(VendorModule):
    """An OpenStack cloud, whatever services it has."""

    Settings = OpenStackSettings
    credential_kinds = ("password", "access-key", "external")
    prices = PriceSource.SETTINGS
    call_timeout: ClassVar[float] = 60.0
    settle_timeout: ClassVar[float] = 600.0
    """Big images and volumes are copied between services, and slow hosts boot for minutes."""
    dialect: ClassVar[Dialect] = Dialect()

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, OpenStackSettings)  # noqa: S101 - the registry makes them from Settings
        self.cloud = settings
        self._pool: Pool[Client] = Pool(lambda: Client(settings, self.call_timeout, self.dialect), Client.close)
        self._plugin: Plugin = None
        self._login = asyncio.Lock()

    async def _close(self) -> None:
        await self._pool.close()

    async def _run(self, call: Callable[[Client], T], *, key: str | None = None, repeatable: bool = True) -> T:
        """The result of a call, made in the pool; calls with one key follow one another. A call that is refused because
        its token has expired is made once more, with a new login, unless it is not ``repeatable``."""
        plugin = await self._identity()
        try:
            return await self._run_as(plugin, call, key)
        except Exception as error:
            if not isinstance(translate(error), Unauthorized):
                raise
            if self._plugin is plugin:
                self._plugin = None  # the credentials are asked for anew, for they may have been changed
            if not (repeatable and isinstance(error, Refused)):
                raise
        return await self._run_as(await self._identity(), call, key)

    async def _run_as(self, plugin: Plugin, call: Callable[[Client], T], key: str | None) -> T:
        def logged_in(client: Client) -> T:
            client.log_in(plugin)
            try:
                return call(client)
            except requests.RequestException:
                raise  # some are ValueErrors
            except (KeyError, TypeError, AttributeError, IndexError, ValueError) as error:
                raise ProtocolError(f"the answer makes no sense: {type(error).__name__}") from error

        return await self._pool.run(logged_in, key=key)

    async def _identity(self) -> Plugin:
        async with self._login:
            if self._plugin is None:
                self._plugin = self._plugin_for(await self._credentials())
            return self._plugin

    def _plugin_for(self, credentials: Credentials | None) -> Plugin:
        return plugin_for(self.cloud, credentials)

    def _translate(self, error: Exception) -> VendorError | None:
        return translate(error) or super()._translate(error)

    # --- content ---

    async def _send(self, content: AsyncIterator[bytes], send: Callable[[Client, Iterator[bytes]], T]) -> T:
        """Have ``send`` read content that is made on the event loop; given up, it breaks the connection off."""
        loop, given_up = asyncio.get_running_loop(), threading.Event()
        awaited: list[Future[bytes]] = []
        problem: list[Exception] = []

        async def following() -> bytes:
            return await anext(content, b"")

        def chunks() -> Iterator[bytes]:
            while True:
                awaited[:] = [asyncio.run_coroutine_threadsafe(following(), loop)]
                if given_up.is_set():
                    raise TimedOut("given up")
                try:
                    chunk = awaited[0].result()
                except Exception as error:
                    problem.append(error)
                    raise
                if not chunk:
                    return
                yield chunk

        try:
            return await self._run(lambda client: send(client, chunks()), repeatable=False)
        except Exception:
            if problem:  # what went wrong was the content, however the library words that
                raise problem[0] from None
            raise
        finally:
            given_up.set()
            for future in awaited:  # its thread must not wait for a loop that may end
                future.cancel()

    async def _received(self, response: requests.Response, skipped: int = 0) -> AsyncIterator[bytes]:
        """The body of a response, without its first bytes, in chunks; ends early only with an error."""
        try:
            chunks = response.iter_content(CHUNK)
            while chunk := await self._pool.run(lambda _: next(chunks, b"")):
                if skipped < len(chunk):
                    yield chunk[skipped:]
                skipped = max(skipped - len(chunk), 0)
        finally:
            response.close()
