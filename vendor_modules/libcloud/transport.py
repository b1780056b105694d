"""How libcloud's drivers reach a provider: straight or through the proxy of the vendor's settings, with a time limit.

Importing this module makes all drivers of the process do so. Drivers make connections of their own, to log in for
example, and not all hand on what they were given: so what holds for a connection is found by its thread, in which a
module's drivers live (:class:`Drivers`). The environment's proxies and ``.netrc`` are not looked at; certificates are
verified.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TypeVar

import requests
from libcloud.common.base import Connection
from libcloud.http import LibcloudConnection
from requests.adapters import HTTPAdapter

from vendor_modules.services.credentials import Credentials

T = TypeVar("T")

_thread = threading.local()
_turn = threading.Lock()
_PATIENCE = 0.02
"""Seconds that a thread waits for its turn at most, before it goes on without."""


class Drivers:
    """The drivers of one thread; made in that thread, at their first use. ``timeout`` is in seconds, for each wait on
    the network."""

    def __init__(self, credentials: Credentials, timeout: float, proxy: str | None) -> None:
        self.timeout = timeout
        self.proxy = proxy
        self.sessions: list[requests.Session] = []
        self._credentials = credentials
        self._made: dict[str, Any] = {}
        _thread.drivers = self

    def get(self, connect: Callable[[Credentials], Any]) -> Any:
        """The driver that ``connect`` makes."""
        name = connect.__name__
        if name not in self._made:
            self._made[name] = connect(self._credentials)
        return self._made[name]

    def run(self, call: Callable[[Any], T], connect: Callable[[Credentials], Any]) -> T:
        """The call's result, on the driver that ``connect`` makes.

        Threads take turns at thinking, and wait for the network together. The interpreter runs one of them at a time
        anyway; with eight that want to run, the event loop's thread, which is one of nine then, would have to wait for
        several of them. Nobody waits long: a driver may wait for something else than the network.
        """
        with _taking_turns():
            return call(self.get(connect))

    def close(self) -> None:
        """Close the connections."""
        for session in self.sessions:
            session.close()


class DirectConnection(LibcloudConnection):
    """A connection that does as its thread's :class:`Drivers` say."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)  # type: ignore[no-untyped-call]
        session: Any = self.session
        session.trust_env = False
        drivers: Drivers | None = getattr(_thread, "drivers", None)
        if drivers is None:
            return
        session.timeout = drivers.timeout
        session.mount("http://", _Limited(drivers.timeout))
        if "cert_file" not in options and "key_file" not in options:
            session.mount("https://", _Limited(drivers.timeout))
        if drivers.proxy:
            self.set_http_proxy(drivers.proxy)  # type: ignore[no-untyped-call]
        drivers.sessions.append(session)

    def request(self, *arguments: Any, **options: Any) -> None:
        """See libcloud. Text that does not say how it is encoded is UTF-8: requests would read XML as Latin-1, and
        ponder long over the rest."""
        super().request(*arguments, **options)  # type: ignore[no-untyped-call]
        answer: Any = self.response
        if "charset" not in answer.headers.get("content-type", ""):
            answer.encoding = "utf-8"


class _Limited(HTTPAdapter):
    """Gives a time limit to requests that come without one, as libcloud's uploads do."""

    def __init__(self, timeout: float) -> None:
        super().__init__()
        self._timeout = timeout

    def send(self, request: Any, stream: Any = False, timeout: Any = None, *rest: Any, **options: Any) -> Any:
        _give()
        try:
            return super().send(request, stream, timeout or self._timeout, *rest, **options)
        finally:
            _take()


def _take() -> None:
    _thread.has_turn = _turn.acquire(timeout=_PATIENCE)


def _give() -> None:
    if getattr(_thread, "has_turn", False):
        _thread.has_turn = False
        _turn.release()


@contextmanager
def _taking_turns() -> Iterator[None]:
    _take()
    try:
        yield
    finally:
        _give()


Connection.conn_class = DirectConnection
