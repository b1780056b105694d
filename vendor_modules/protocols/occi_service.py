"""A service that speaks OCCI 1.2: what it knows (:meth:`OcciService.discover`), what it has, and changes to that.

It knows nothing of machines or volumes: the vendor module does, and whatever looks into a running service.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

import httpx

from descriptors.standards import occi
from vendor_modules.errors import InvalidRequest, NotFound, ProtocolError
from vendor_modules.http import json_of, understood

Ask = Callable[..., Awaitable[httpx.Response]]
"""Asks the service: method, path, and options of ``httpx.Client.build_request``."""
QUERY_INTERFACES = ("/-/", "/.well-known/org/ogf/occi/-/")
USER_AGENT = "cloud-agency OCCI/1.2"
_ACCEPTED = {
    occi.PLAIN: "text/plain",
    occi.HEADERS: "text/occi",
    occi.JSON: "application/occi+json, application/json;q=0.9",
}


class OcciService:
    """One service. ``base`` is the path of its root, ``rendering`` the media type that is sent and asked for, and
    ``page`` how many entities of a collection are asked for at a time; None: all at once."""

    def __init__(self, ask: Ask, base: str, rendering: str, page: int | None = None) -> None:
        self._ask = ask
        self._base = base.rstrip("/")
        self._rendering = rendering
        self._page = page

    async def discover(self) -> list[occi.Category]:
        """All kinds, mixins and actions that the service knows."""
        try:
            response = await self._send("GET", QUERY_INTERFACES[0])
        except NotFound:
            response = await self._send("GET", QUERY_INTERFACES[1])
        with understood("list of OCCI categories"):
            if _is_json(response):
                return occi.categories_from_json(json_of(response))
            return occi.categories_of(_headers(response))

    async def entity(self, location: str) -> occi.Entity:
        """The entity at a location."""
        response = await self._send("GET", location)
        with understood("OCCI entity"):
            return (
                occi.entity_from_json(json_of(response)) if _is_json(response) else occi.entity_of(_headers(response))
            )

    async def collection(self, location: str) -> dict[str, occi.Entity]:
        """The entities of a kind, found at the kind's location, by their own locations."""
        found: dict[str, occi.Entity] = {}
        number = 1
        while True:
            query = f"?page={number}&number={self._page}" if self._page else ""
            fresh = await self._listed(location, query)
            if not fresh.keys() - found.keys() or not self._page:
                return found | fresh
            found |= fresh
            number += 1

    async def _listed(self, location: str, query: str) -> dict[str, occi.Entity]:
        response = await self._send("GET", location + query)
        with understood("OCCI collection"):
            if _is_json(response):
                entities = occi.entities_from_json(json_of(response))
                ids = [str(entity.attributes["occi.core.id"]).removeprefix("urn:uuid:") for entity in entities]
                return {f"{self.path(location)}{identifier}": e for identifier, e in zip(ids, entities, strict=True)}
            if response.headers.get("content-type", "").startswith(occi.URIS):
                locations = occi.uris_in(response.text)
            else:
                locations = occi.locations_of(_headers(response))
        read = await asyncio.gather(*(self._if_there(one) for one in locations))
        return {self.path(one): entity for one, entity in zip(locations, read, strict=True) if entity is not None}

    async def _if_there(self, location: str) -> occi.Entity | None:
        try:
            return await self.entity(location)
        except NotFound:  # gone since it was listed
            return None

    async def create(self, location: str, entity: occi.Entity) -> str:
        """Create an entity in a collection; returns its location."""
        response = await self._send("POST", location, entity)
        with understood("OCCI answer to a creation"):
            if given := response.headers.get("location") or response.headers.get("x-occi-location"):
                return self.path(given)
            if _is_json(response):
                made = occi.entity_from_json(json_of(response))
            elif locations := occi.locations_of(headers := _headers(response)):
                return self.path(locations[0])
            else:
                made = occi.entity_of(headers)
            return f"{self.path(location)}{str(made.attributes['occi.core.id']).removeprefix('urn:uuid:')}"

    async def invoke(self, location: str, invocation: occi.Invocation) -> None:
        """Invoke an action on the entity at a location."""
        with _said():
            term = occi.split_type(invocation.action)[1]
        await self._send("POST", f"{location}?action={term}", invocation)

    async def delete(self, location: str) -> None:
        """Delete the entity at a location."""
        await self._send("DELETE", location)

    def path(self, location: str) -> str:
        """A location as a path below the service's root; other hosts' are taken for the service's own, which may know
        itself under another name."""
        path = urlsplit(location).path
        if self._base and path.startswith(f"{self._base}/"):
            path = path[len(self._base) :]
        if not path.startswith("/") or "/../" in f"{path}/":
            raise ProtocolError("the answer has a location that is none")
        return path

    def reference(self, location: str) -> str:
        """A location as the service itself writes it, to be put into what is sent."""
        return self._base + self.path(location)

    async def _send(
        self, method: str, location: str, thing: occi.Entity | occi.Invocation | None = None
    ) -> httpx.Response:
        path, mark, query = location.partition("?")
        headers, content = {"accept": _ACCEPTED[self._rendering], "user-agent": USER_AGENT}, b""
        if thing is not None:
            headers["content-type"] = self._rendering
            with _said():
                if self._rendering == occi.JSON:
                    content = json.dumps(occi.json_of(thing)).encode()
                elif self._rendering == occi.PLAIN:
                    content = occi.body_of(occi.headers_of(thing)).encode()
                else:
                    headers |= occi.joined(occi.headers_of(thing))
        return await self._ask(method, self.path(path) + mark + query, content=content, headers=headers)


@contextmanager
def _said() -> Iterator[None]:
    """Within it something is put into OCCI's words."""
    try:
        yield
    except occi.OcciError as error:
        raise InvalidRequest(str(error)) from None


def _is_json(response: httpx.Response) -> bool:
    return response.headers.get("content-type", "").partition(";")[0].strip() in (occi.JSON, "application/json")


def _headers(response: httpx.Response) -> list[occi.Header]:
    """The OCCI headers of an answer, wherever they are."""
    kind = response.headers.get("content-type", "").partition(";")[0].strip()
    if kind == occi.HEADERS:
        known = ("category", "link", "x-occi-attribute", "x-occi-location")
        pairs = [(name, value) for name, value in response.headers.multi_items() if name in known]
        return [header for name, value in pairs for header in occi.values_in(name, value)]
    if kind not in (occi.PLAIN, "text/occi+plain"):
        raise ProtocolError(f"the answer is no OCCI, but {kind or 'of no type'}")
    return occi.headers_in(response.text)
