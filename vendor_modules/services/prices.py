"""The prices service: what a provider's sizes cost, for modules whose API does not tell.

:class:`CataloguePrices` asks the offline catalogue (:mod:`vendor_modules.catalog`); :class:`NoPrices` knows none.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

from vendor_modules.catalog import Catalog, CatalogueError, Price
from vendor_modules.errors import Unavailable

T = TypeVar("T")


class Prices(Protocol):
    """Where a module asks for prices. ``provider`` and ``region`` are as in the catalogue: ``ec2`` and ``eu-west-1``.
    Every price has its ``source``, ``digest`` and ``date``; :class:`~vendor_modules.errors.Unavailable` when there is
    no asking."""

    async def price(self, provider: str, region: str, size: str) -> Price | None:
        """The price of a size with Linux, not preemptible; None where it is unknown: nothing is ever free."""

    async def sizes(self, provider: str, region: str) -> list[Price]:
        """The sizes of a region that have a price, the cheapest first. Cores and memory may be None."""


class CataloguePrices:
    """Prices of the catalogue in a folder, made there at first use (a second or two). Nothing blocks the event loop:
    calls run in one thread, one after the other, because many at once would only fight over the interpreter."""

    def __init__(self, folder: Path) -> None:
        self._catalogue = Catalog(folder)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="prices")

    async def price(self, provider: str, region: str, size: str) -> Price | None:
        """See :class:`Prices`."""
        return await self._asked("price", lambda: self._catalogue.price(provider, region, size))

    async def sizes(self, provider: str, region: str) -> list[Price]:
        """See :class:`Prices`."""
        return await self._asked("sizes", lambda: self._catalogue.sizes(provider, region))

    async def _asked(self, operation: str, question: Callable[[], T]) -> T:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, question)
        except CatalogueError as error:
            raise Unavailable(str(error), operation=f"prices: {operation}") from error


class NoPrices:
    """No prices at all."""

    async def price(self, provider: str, region: str, size: str) -> Price | None:
        """See :class:`Prices`."""
        return None

    async def sizes(self, provider: str, region: str) -> list[Price]:
        """See :class:`Prices`."""
        return []
