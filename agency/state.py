"""The state directory, opened: the store, the credentials in it, and the services of Vendor Modules made from both."""

from __future__ import annotations

import fcntl
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import structlog

from agency.places import PRICES
from agency.problems import refuse
from agency.settings import Settings
from agency.store.credentials import Cipher, EncryptedCredentials
from agency.store.keyring import Keyring
from agency.store.persistence import StorePersistence
from agency.store.store import Store
from vendor_modules.services import Services
from vendor_modules.services.prices import CataloguePrices
from vendor_modules.services.serialization import JsonSerialization


def make(state: Path) -> None:
    """Make the state directory, for its owner only, if it is not there; refuses a place where it cannot be."""
    try:
        state.mkdir(mode=0o700, parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError, PermissionError) as error:
        message = f"{state} cannot be the state directory: {error.strerror}"
        raise refuse("bad-state-directory", message, "name another directory with --state") from None


@contextmanager
def alone(state: Path) -> Iterator[None]:
    """Hold the state directory: two agencies in one would carry out every operation twice."""
    make(state)
    with (state / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise refuse(
                "already-running",
                f"an agency runs in {state} already",
                "use it, stop it, or name another directory with --state",
            ) from None
        yield


@asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Store, EncryptedCredentials]]:
    """The store and the credentials, until the block ends."""
    make(settings.state)
    async with Store.open(settings.store_url()) as store:
        yield store, EncryptedCredentials(store, Cipher(Keyring(settings.state / "master.key").key()))


def services(store: Store, credentials: EncryptedCredentials, state: Path) -> Services:
    """The services of a module, on the agency's store and the price catalogue below its state directory."""
    log = structlog.get_logger("agency")
    prices = CataloguePrices(state / PRICES)
    return Services(credentials, StorePersistence(store), log, JsonSerialization(), prices)
