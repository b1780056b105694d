"""The suite's faults in the middle of transfers: modules that lose content there are caught, on a real cloud."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import httpx
import pytest
import pytest_asyncio

from tests.labs.testbed import PASSWORD, USERNAME, start_cloud
from vendor_modules import conformance
from vendor_modules.errors import ResourceFailed, VendorError
from vendor_modules.module import Content
from vendor_modules.resources import Image, ImageSpec
from vendor_modules.services.credentials import PasswordCredentials
from vendor_modules.testbed.module import TestbedModule, TestbedSettings

BROKEN: list[tuple[str, str, type[TestbedModule]]] = []
CHECKS = {check.name: check for check in conformance.checks_for(TestbedModule)}
_LOST = (httpx.HTTPError, VendorError)


def caught_by(name: str, words: str) -> Any:
    """Note a broken module, the check that must fail on it, and words of the reason."""

    def note(module: type[TestbedModule]) -> type[TestbedModule]:
        BROKEN.append((name, words, module))
        return module

    return note


@caught_by("broken-download-can-be-gone-on-with", "the transfer ended without an error after")
class TakesTheBeginningForTheImage(TestbedModule):
    """Ends a download when the line does."""

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        try:
            async for chunk in super()._download_image(image_id, offset):
                yield chunk
        except _LOST:
            return


@caught_by("broken-reading-can-be-gone-on-with", "the transfer ended without an error after")
class TakesTheBeginningForTheObject(TestbedModule):
    """Ends reading when the line does."""

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        try:
            async for chunk in super()._get_object(bucket_id, name, offset):
                yield chunk
        except _LOST:
            return


@caught_by("broken-upload-is-repeated", "it ended with ResourceFailed")
class UploadsOnce(TestbedModule):
    """Takes a broken upload for a failure for good."""

    async def _upload_image(self, spec: ImageSpec, content: Content, key: str) -> Image:
        try:
            return await super()._upload_image(spec, content, key)
        except httpx.HTTPError as error:
            raise ResourceFailed("the upload failed") from error


@caught_by("broken-writing-is-repeated", "NotFound")
class WritesOrNot(TestbedModule):
    """Does not tell that nothing was written."""

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        if not hasattr(self, "tried"):
            self.tried = True
            try:
                await super()._put_object(bucket_id, name, content, size)
            except _LOST:
                return


@caught_by("object-is-stored-although-the-answer-is-lost", "Unavailable")
class StoresOnce(TestbedModule):
    """Never stores again."""

    attempts = 1


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def url(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[str]:
    """Where a cloud is."""
    async with start_cloud(tmp_path_factory.mktemp("cloud")) as cloud:
        yield cloud.url


@pytest.mark.integration
@pytest.mark.parametrize(("name", "words", "module"), BROKEN, ids=lambda value: getattr(value, "__name__", ""))
async def test_broken_module_is_caught(url: str, name: str, words: str, module: type[TestbedModule]) -> None:
    """The check that is for it fails on the broken module, and says what is wrong."""
    login = PasswordCredentials.model_validate({"username": USERNAME, "password": PASSWORD})
    subject = conformance.Subject(module, TestbedSettings.model_validate({"url": url}), login)
    result = await conformance.run_check(CHECKS[name], subject)
    assert result.outcome == "failed"
    assert words in result.reason
