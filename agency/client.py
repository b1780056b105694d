"""The command line's side of the API."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

Json = dict[str, Any]

_PATIENCE = httpx.Timeout(120.0, connect=5.0)


class Unreachable(Exception):
    """No agency answers; the text says which."""


class Refused(Exception):
    """The agency refused, or the work failed. Carries the problem."""

    def __init__(self, problem: Json) -> None:
        super().__init__(problem["message"])
        self.problem = problem


class Client:
    """Talks to the agency that runs in a state directory."""

    def __init__(self, state: Path) -> None:
        file = state / "api.json"
        try:
            known = json.loads(file.read_text())
            headers = {"Authorization": f"Bearer {known['token']}"}
            self._http = httpx.Client(base_url=known["url"], headers=headers, timeout=_PATIENCE, trust_env=False)
        except OSError:
            raise Unreachable(f"no agency runs in {state}") from None
        except (ValueError, KeyError, TypeError, httpx.InvalidURL):
            raise Unreachable(f"{file} does not say where an agency runs") from None
        self._state = state

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def get(self, path: str, **query: Any) -> Json:
        """The answer to a query."""
        return self._send("GET", path, params=_given(query))

    def text(self, path: str, **query: Any) -> str:
        """The answer to a query that is a document's text."""
        try:
            response = self._http.get(path, params=query)
        except httpx.TransportError as error:
            raise self._lost(error) from error
        return response.text if response.is_success else str(self._read(response))

    def post(self, path: str, *, content: str | None = None, **query: Any) -> Json:
        """The answer to a short action."""
        return self._send("POST", path, content=content, params=_given(query))

    def put(self, path: str, content: bytes) -> Json:
        """Bring content in."""
        return self._send("PUT", path, content=content)

    def follow(self, path: str, on_event: Callable[[Json], None], **query: Any) -> Json:
        """Do long work and return its result; ``on_event`` sees what happens meanwhile."""
        try:
            with self._http.stream(
                "POST", path, params=_given(query), timeout=httpx.Timeout(None, connect=5.0)
            ) as response:
                if response.headers.get("content-type", "") != "application/x-ndjson":
                    response.read()
                    return self._read(response)
                for line in response.iter_lines():
                    message = json.loads(line)
                    if "event" in message:
                        on_event(message["event"])
                    elif "problem" in message:
                        raise Refused(message["problem"])
                    else:
                        result: Json = message["result"]
                        return result
        except httpx.ConnectError as error:
            raise self._lost(error) from error
        except httpx.TransportError:
            pass
        raise Unreachable("the agency ended before the work did; when it runs again, it goes on with the work")

    def _send(self, method: str, path: str, **options: Any) -> Json:
        try:
            return self._read(self._http.request(method, path, **options))
        except httpx.TransportError as error:
            raise self._lost(error) from error

    def _lost(self, error: Exception) -> Unreachable:
        return Unreachable(f"the agency in {self._state} does not answer ({type(error).__name__})")

    @staticmethod
    def _read(response: httpx.Response) -> Json:
        if response.is_success:
            try:
                answer: Json = response.json()
            except ValueError:
                raise Unreachable(f"what answers at {response.request.url} is no agency") from None
            return answer
        try:
            raise Refused(response.json()["problem"])
        except (ValueError, KeyError, TypeError):
            message = f"the agency answered {response.status_code} to {response.request.method} {response.url.path}"
            from agency.problems import refuse

            error = refuse("api-error", message, "see agency.log in the state directory")
            raise Refused(error.problem.model_dump(mode="json")) from None


def _given(query: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in query.items() if value is not None}
