"""Whatever LXD, pylxd and requests say is told in the words of the error tree."""

from __future__ import annotations

import pytest

from tests.labs.lxd import Lxd
from tests.labs.testbed import services
from vendor_modules import errors
from vendor_modules.errors import VendorError
from vendor_modules.lxd.errors import of_status, translate
from vendor_modules.lxd.module import LxdModule
from vendor_modules.services.credentials import PasswordCredentials

pylxd = pytest.importorskip("pylxd", reason="pip install 'cloud-agency[lxd]'")
requests = pytest.importorskip("requests")

STATUSES = [
    (400, "Invalid devices", errors.InvalidRequest),
    (400, "The instance is already running", errors.Conflict),
    (400, "Storage volume is still in use", errors.Conflict),
    (403, "not authorized", errors.Unauthorized),
    (404, "not found", errors.NotFound),
    (409, "already exists", errors.Conflict),
    (412, "ETag doesn't match", errors.Conflict),
    (429, "slow down", errors.Throttled),
    (500, "write /…: no space left on device", errors.QuotaExceeded),
    (500, "listen tcp 127.0.0.1:30000: bind: address already in use", errors.Unavailable),
    (500, "Failed to run: forkstart", errors.ResourceFailed),
    (503, "LXD is shutting down", errors.Unavailable),
    (504, "too late", errors.TimedOut),
    (418, "a teapot", errors.ProtocolError),
]


@pytest.mark.parametrize(("status", "words", "expected"), STATUSES)
def test_statuses_are_known(status: int, words: str, expected: type[VendorError]) -> None:
    """Each status, with LXD's words where it alone says little, becomes the error that says what to do."""
    error = of_status(status, words)
    assert type(error) is expected
    assert error.detail == words


EXCEPTIONS = [
    (requests.exceptions.ReadTimeout(), errors.TimedOut),
    (requests.exceptions.ConnectionError("Connection refused"), errors.Unavailable),
    (requests.exceptions.SSLError("Fingerprints did not match"), errors.Forbidden),
    (requests.exceptions.InvalidURL("what is this"), errors.InvalidRequest),
    (requests.exceptions.JSONDecodeError("Expecting value", "", 0), errors.ProtocolError),
    (requests.exceptions.ChunkedEncodingError("broke off"), errors.Unavailable),
    (pylxd.exceptions.ClientConnectionFailed("Connection refused"), errors.Unavailable),
    (pylxd.exceptions.ClientConnectionFailed("CERTIFICATE_VERIFY_FAILED"), errors.Forbidden),
]


@pytest.mark.parametrize(("error", "expected"), EXCEPTIONS, ids=lambda value: getattr(value, "__name__", repr(value)))
def test_exceptions_are_known(error: Exception, expected: type[VendorError]) -> None:
    """Each exception of the libraries becomes one of ours; one of somebody else's does not."""
    assert type(translate(error)) is expected
    assert translate(KeyError("ours")) is None


@pytest.mark.integration
async def test_the_server_is_the_one_that_the_settings_name(lab: Lxd, monkeypatch: pytest.MonkeyPatch) -> None:
    """A server with another certificate is not spoken to, whatever bundle of authorities the environment names."""
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", "/there/is/none")
    async with LxdModule("lxd", lab.settings, services(lab.credentials)) as module:
        assert await module.list_machines() == []
    other = lab.settings.model_copy(update={"fingerprint": "ab" * 32})
    async with LxdModule("lxd", other, services(lab.credentials)) as module:
        with pytest.raises(errors.Forbidden):
            await module.list_machines()


@pytest.mark.integration
async def test_the_socket_needs_no_credentials(lab: Lxd) -> None:
    """At LXD's own socket no credentials are needed; over HTTPS a password is none; a missing socket is told."""
    local = lab.settings.model_copy(update={"url": lab.socket, "fingerprint": None})
    async with LxdModule("lxd", local, services(None)) as module:
        assert [image.id for image in await module.list_images()] == ["base"]
    password = PasswordCredentials(username="owner", password="secret")
    async with LxdModule("lxd", lab.settings, services(password)) as module:
        with pytest.raises(errors.Unauthorized, match="certificate"):
            await module.list_images()
    missing = lab.settings.model_copy(update={"url": "/there/is/none"})
    async with LxdModule("lxd", missing, services(None)) as module:
        with pytest.raises(errors.Unavailable, match="no socket"):
            await module.list_images()
