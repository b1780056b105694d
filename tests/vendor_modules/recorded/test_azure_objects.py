"""Azure's blobs: the conformance suite's checks of buckets and objects, on the emulator Azurite."""

from __future__ import annotations

import tracemalloc
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from dataclasses import replace
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests
from pydantic import SecretStr

from descriptors.base import MIB
from tests.labs.azurite import ACCOUNT, KEY, start_azurite
from tests.labs.libcloud_fixtures import examined
from tests.vendor_modules.recorded.test_azure import SETTINGS
from vendor_modules import conformance
from vendor_modules.azure import AzureModule, Blobs
from vendor_modules.capabilities import AccessKeys, ObjectStorage
from vendor_modules.errors import Unsupported
from vendor_modules.libcloud import account
from vendor_modules.services.credentials import Credentials, PasswordCredentials

pytestmark = pytest.mark.integration

CREDENTIALS = PasswordCredentials(username=ACCOUNT, password=SecretStr(KEY))


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the emulator is."""
    with start_azurite(tmp_path_factory.mktemp("azurite")) as address:
        yield address


@pytest.fixture
def subject(url: str) -> conformance.Subject:
    """The module on the emulator, which has no Resource Manager: the account's key is told, not asked for."""
    place = urlsplit(url)

    class OnAzurite(AzureModule):
        def _connect_storage(self, credentials: Credentials) -> Any:
            return Blobs(*account(credentials), secure=False, host=place.hostname, port=place.port)

    settings = AzureModule.Settings.model_validate(SETTINGS)
    known = conformance.Subject(OnAzurite, settings, CREDENTIALS, wire=False, machines_run=False)
    return replace(known, unknown_ids={"bucket": "there-is-none"})


STORAGE = [
    check
    for check in conformance.checks_for(AzureModule)
    if any(issubclass(need, ObjectStorage) for need in check.needs) and not check.wire
]
CHECKS = [check for check in STORAGE if "-name" not in check.name and "namesake" not in check.name]
"""A bucket's name is among the module's known limits."""


@pytest.mark.parametrize("check", CHECKS, ids=str)
async def test_conformance(check: conformance.Check, subject: conformance.Subject) -> None:
    """The module does with buckets and objects what the conformance suite asks."""
    result = await conformance.run_check(check, subject)
    assert result.outcome != "failed", result.reason


async def test_an_abandoned_download_is_closed(subject: conformance.Subject, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who stops reading an object leaves no response open."""
    closed: list[str] = []
    close = requests.Response.close

    def noted(response: requests.Response) -> None:
        closed.append(f"{response.request.method} {urlsplit(response.url).path.rpartition('/')[2]}")
        close(response)

    async def content() -> AsyncIterator[bytes]:
        for _ in range(9):
            yield bytes(1024 * 1024)

    monkeypatch.setattr(requests.Response, "close", noted)
    async with examined(subject.module, SETTINGS, CREDENTIALS) as module:
        assert isinstance(module, AzureModule)
        bucket = await module.create_bucket("left", key="left")
        await module.put_object(bucket.id, "large", content, size=9 * 1024 * 1024)
        pieces = module.get_object(bucket.id, "large")
        assert isinstance(pieces, AsyncGenerator)
        assert len(await anext(pieces)) < 9 * 1024 * 1024
        assert "GET large" not in closed
        await pieces.aclose()
        assert "GET large" in closed
        await module.destroy_bucket(bucket.id)


async def test_content_is_never_held_whole(subject: conformance.Subject) -> None:
    """An object of 96 MiB goes up and comes down in pieces: no more than a few of them are in memory at any time."""
    size, held = 96 * MIB, 24 * MIB

    async def content() -> AsyncIterator[bytes]:
        for _ in range(size // MIB):
            yield bytes(MIB)

    async with examined(subject.module, SETTINGS, CREDENTIALS) as module:
        assert isinstance(module, AzureModule)
        bucket = await module.create_bucket("large", key="large")
        tracemalloc.start()
        try:
            await module.put_object(bucket.id, "large", content, size=size)
            assert tracemalloc.get_traced_memory()[1] < held
            tracemalloc.reset_peak()
            pieces = [len(piece) async for piece in module.get_object(bucket.id, "large")]
            assert tracemalloc.get_traced_memory()[1] < held
        finally:
            tracemalloc.stop()
        assert (sum(pieces), max(pieces) < held) == (size, True)
        await module.destroy_bucket(bucket.id)


async def test_without_a_storage_account() -> None:
    """A vendor whose settings name no storage account has no object storage, and says so."""
    assert not issubclass(AzureModule, AccessKeys)
    async with examined(AzureModule, SETTINGS) as module:
        assert isinstance(module, AzureModule)
        with pytest.raises(Unsupported, match="storage account"):
            await module.list_buckets()
