"""A recorded service that remembers what was asked of it: its answers are libcloud's recordings, changed as a service
changes them.

Give :class:`Routes` to :func:`tests.labs.libcloud_fixtures.replay` as ``_get_request``: it answers in place of
libcloud's mock class, whose recordings stay the same whatever happens.
"""

from __future__ import annotations

import json
import re
import threading
from collections.abc import Callable, Iterable
from itertools import count
from typing import Any

from tests.labs.libcloud_fixtures import recorded
from vendor_modules import conformance
from vendor_modules.module import VendorModule

Handler = Callable[..., tuple[int, Any]]
Told = tuple[int, str, dict[str, str], str]


class Routes:
    """Answers requests by the first route that fits. A request that no route fits was never recorded."""

    numbers = count(7001)
    """Ids for what is created."""

    def __init__(self, folder: str) -> None:
        self._folder = folder
        self._routes: list[tuple[str, re.Pattern[str], Handler]] = []
        self._lock = threading.Lock()

    def on(self, method: str, path: str, handler: Handler) -> None:
        """Let ``handler`` answer requests to paths that match ``path``, a regular expression: it is given the groups,
        and the JSON (or text) that was sent, and returns a status and what is said in JSON (None for nothing)."""
        self._routes.append((method, re.compile(path), handler))

    def recorded(self, file: str) -> Any:
        """What a recording says."""
        return json.loads(recorded(self._folder, file))

    def __call__(self, method: str, url: str, body: Any = None, headers: Any = None) -> Told:
        with self._lock:
            if refused := self.refuse(headers):
                return refused[0], json.dumps(refused[1]), {}, ""
            for wanted, pattern, handler in self._routes:
                if wanted == method and (match := pattern.fullmatch(url.split("?")[0])):
                    try:
                        status, told = handler(*match.groups(), _read(body))
                    except Refused as refusal:
                        status, told = refusal.args
                    return status, "" if told is None else json.dumps(told), {}, ""
        raise AttributeError(f"{method} {url} was never recorded")

    def refuse(self, headers: Any) -> tuple[int, Any] | None:
        """The answer to a request that is not let in."""
        return None


def _read(body: Any) -> Any:
    """What was sent: None, JSON, or text."""
    return json.loads(body) if body and body[0] in "{[" else body or None


class Refused(Exception):
    """Raised by handlers: a status, and what is said in JSON."""


def checks_for(module: type[VendorModule], without: Iterable[str]) -> list[conformance.Check]:
    """The conformance suite's checks that a recording can be asked, ``without`` those whose names contain one of these:
    what the module's known limits say that it does not do."""
    unable = tuple(without)
    checks = [check for check in conformance.checks_for(module) if not check.wire]
    return [check for check in checks if not any(part in check.name for part in unable)]
