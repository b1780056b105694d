"""Services as libcloud recorded them: the answers in its wheel (``libcloud/test``), given to our modules.

Only the last layer is replaced: requests go through libcloud's driver and connection and our transport, and then to the
recording instead of the network. A recording answers the same whatever was asked before; a test in which something
changes says so with :attr:`Recording.edit`. What was sent is in :attr:`Recording.requests`. A request that was never
recorded makes the test fail, unless the test answers it itself.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import import_module
from importlib.machinery import SourceFileLoader
from importlib.util import module_from_spec, spec_from_loader
from io import BytesIO
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlsplit

import libcloud
import pytest
import requests
from libcloud.common.base import Connection
from pydantic import SecretStr
from requests.adapters import HTTPAdapter
from urllib3 import HTTPResponse

from vendor_modules.conformance.subject import Subject
from vendor_modules.conformance.watching import FixedCredentials, RecordingLog, WatchingPersistence
from vendor_modules.libcloud.transport import DirectConnection
from vendor_modules.module import VendorModule
from vendor_modules.services import Services
from vendor_modules.services.credentials import Credentials, PasswordCredentials
from vendor_modules.services.prices import NoPrices, Prices
from vendor_modules.services.serialization import JsonSerialization

FIXTURES = Path(libcloud.__file__).parent / "test" / "compute" / "fixtures"
PASSWORD = "a-password-in-no-recording"
CREDENTIALS = PasswordCredentials(username="user", password=SecretStr(PASSWORD))


@dataclass(frozen=True)
class Request:
    """What a module sent. ``query`` are the parameters of the URL; ``body`` is text."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: str


@dataclass
class Answer:
    """What the service says to a request."""

    status: int
    body: str
    headers: dict[str, str]
    known: bool = True
    """Whether it was recorded, or the test has given it."""

    def give(self, status: int, body: str = "") -> None:
        """Say this instead of what was recorded."""
        self.status, self.body, self.known = status, body, True


class Recording(HTTPAdapter):
    """A service that answers as the mock class of one of libcloud's tests says."""

    def __init__(self, mock: Any) -> None:
        super().__init__()
        self.mock = mock
        self.requests: list[Request] = []
        self.unknown: list[str] = []
        self.verified: list[str | bool] = []
        """For each request, what was to vouch for the server: False would be nothing."""
        self.edit: Callable[[Request, Answer], None] = lambda request, answer: None
        """Called with each answer before it is given; it may change it."""

    def sent(self, method: str, path: str = "", **query: str) -> list[Request]:
        """The requests with that method, to paths that end so, with these parameters among others."""
        found = [request for request in self.requests if request.method == method and request.path.endswith(path)]
        return [request for request in found if query.items() <= request.query.items()]

    def send(self, request: Any, *_: Any, verify: str | bool = True, **__: Any) -> requests.Response:
        """Answer a request."""
        self.verified.append(verify)
        url, body = urlsplit(request.url), request.body or ""
        text = body.decode() if isinstance(body, bytes) else body
        query = dict(parse_qsl(url.query, keep_blank_values=True))
        asked = Request(request.method, url.path, query, dict(request.headers), text)
        self.requests.append(asked)
        unknown = ""
        try:
            status, told, headers, _reason = self.mock._get_request(
                request.method, request.path_url, text, request.headers.copy()
            )
        except (AttributeError, TypeError, OSError) as error:  # no such method, no such file, or no answer from it
            unknown = f"{request.method} {request.path_url}: {error}"
            status, told, headers = 404, "", {}
        said = {name: value for name, value in headers.items() if not name.lower().startswith("content-")}
        answer = Answer(int(status), told or "", said, not unknown)  # some mocks answer with the request's headers
        self.edit(asked, answer)
        if not answer.known:
            self.unknown.append(unknown)
        given = BytesIO(answer.body.encode())
        raw = HTTPResponse(given, headers=answer.headers, status=answer.status, preload_content=False)
        return self.build_response(request, raw)


def recorded(folder: str, file: str) -> str:
    """The text of a recorded answer."""
    return (FIXTURES / folder / file).read_text(encoding="utf-8")


@contextmanager
def replay(test: str, mock: str, **attributes: Any) -> Iterator[Recording]:
    """Let all drivers of libcloud's speak to the class ``mock`` of libcloud's test module ``test``, until the end.
    ``attributes`` of its instance choose among the recordings."""
    module = _test_module(test)
    instance = getattr(module, mock)()
    for name, value in attributes.items():
        setattr(instance, name, value)
    recording = Recording(instance)

    class Replayed(DirectConnection):
        def __init__(self, *arguments: Any, **options: Any) -> None:
            super().__init__(*arguments, **options)
            self.session.mount("http://", recording)
            self.session.mount("https://", recording)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Connection, "conn_class", Replayed)
        yield recording
    assert recording.unknown == [], "requests that were never recorded"


def _test_module(name: str) -> Any:
    """One of libcloud's test modules; they want a ``secrets.py``, which the wheel has only a sample of."""
    if "libcloud.test.secrets" not in sys.modules:
        sample = Path(libcloud.__file__).parent / "test" / "secrets.py-dist"
        loader = SourceFileLoader("libcloud.test.secrets", str(sample))
        spec = spec_from_loader(loader.name, loader)
        assert spec is not None
        made = module_from_spec(spec)
        exec(compile(sample.read_bytes(), str(sample), "exec"), vars(made))  # noqa: S102 - without a .pyc beside it
        sys.modules[loader.name] = made
    return import_module(f"libcloud.test.compute.{name}")


def examined(
    kind: type[VendorModule],
    settings: dict[str, Any],
    credentials: Credentials = CREDENTIALS,
    prices: Prices | None = None,
    **changes: Any,
) -> VendorModule:
    """A module with services that remember what it did; ``changes`` are made to its class variables."""
    services = Services(
        FixedCredentials(credentials), WatchingPersistence(), RecordingLog(), JsonSerialization(), prices or NoPrices()
    )
    adapted = type(kind.__name__, (kind,), {"attempts": 1, "settle_timeout": 2.0, **changes})
    return adapted("examined", kind.Settings(**settings), services)


def subject(
    kind: type[VendorModule], settings: dict[str, Any], credentials: Credentials = CREDENTIALS, **more: Any
) -> Subject:
    """The module as the conformance suite examines it, as far as a recording can be examined. What has not settled
    after five seconds never will."""
    adapted = type(kind.__name__, (kind,), {"__doc__": kind.__doc__, "settle_timeout": 5.0})
    return Subject(adapted, kind.Settings(**settings), credentials, wire=False, machines_run=False, **more)
