"""What modules share that speak HTTP to their provider: one client, limits, verified TLS, and errors in our words.

A module says how a request is signed (:meth:`HttpModule._sign`) and where an error's code and words are in an answer
(:meth:`HttpModule._refusal`); the rest is here. Whatever a module reads from an answer, it reads within
:func:`understood`, so that an answer that makes no sense is a :class:`~vendor_modules.errors.ProtocolError`.
"""

from __future__ import annotations

import asyncio
import ssl
from abc import abstractmethod
from base64 import b64encode
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager
from functools import cache
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import httpx
from lxml import etree
from pydantic import AnyHttpUrl, ValidationError

from descriptors.deployment import Kind
from vendor_modules.capabilities import destroy
from vendor_modules.errors import (
    InvalidRequest,
    NotFound,
    ProtocolError,
    TimedOut,
    Unavailable,
    VendorError,
    by_status,
)
from vendor_modules.module import HttpSettings, ModuleSettings, VendorModule
from vendor_modules.resources import Key, Resource
from vendor_modules.services import Services
from vendor_modules.services.credentials import resolve

R = TypeVar("R", bound=Resource)

LARGEST_ANSWER = 32 * 1024 * 1024
"""Bytes of an answer that are read at most; contents of images and objects are streamed, and not limited."""
LONGEST_WORDS = 500
"""Characters of a provider's words that are told: some answer with a whole page of HTML."""
CHUNK = 1024 * 1024


class EndpointSettings(HttpSettings):
    """The settings of a module whose provider is found at a URL."""

    url: AnyHttpUrl
    """Where the provider's API is."""


class HttpModule(VendorModule):
    """A module that speaks HTTP itself. Its ``Settings`` derive from :class:`EndpointSettings`."""

    accept: ClassVar[str] = "application/json"
    """The media types that answers are asked for in."""
    by_code: ClassVar[Mapping[str, type[VendorError]]] = {}
    """Errors by the provider's own codes; what is not here is known by its HTTP status."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, EndpointSettings)  # noqa: S101 - the registry makes them from Settings
        self._base = str(settings.url).rstrip("/")
        self._http = httpx.AsyncClient(
            timeout=httpx.Timeout(30, connect=5),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
            follow_redirects=False,
            trust_env=False,
            verify=_tls(),
            proxy=settings.proxy,
            headers={"accept": self.accept},
        )
        self._creations: dict[str, asyncio.Task[Any]] = {}

    async def _close(self) -> None:
        creations = list(self._creations.values())
        for creation in creations:
            creation.cancel()
        await asyncio.gather(*creations, return_exceptions=True)
        await self._http.aclose()

    # --- for the module ---

    @abstractmethod
    async def _sign(self, request: httpx.Request) -> None:
        """Put into the request what shows who asks."""

    def _refusal(self, response: httpx.Response) -> tuple[str, str]:
        """The provider's code and words for an error, each empty where the answer has none. What it raises because
        the answer looks otherwise is as good as both empty."""
        return "", ""

    async def _basic(self, request: httpx.Request) -> None:
        """HTTP Basic authentication with the vendor's user name and password."""
        account = resolve(await self._credentials())
        pair = f"{account.username}:{account.password.get_secret_value()}"
        request.headers["authorization"] = f"Basic {b64encode(pair.encode()).decode()}"

    async def _ask(self, method: str, path: str, **options: Any) -> httpx.Response:
        """The provider's answer, whole; ``options`` are those of ``httpx.Client.build_request``. An answer that is no
        success is raised as what it means."""
        async with self._answer(method, path, **options) as response:
            size, chunks = 0, []
            async for chunk in response.aiter_bytes():
                size += len(chunk)
                if size > LARGEST_ANSWER:
                    raise ProtocolError(f"the answer has more than {LARGEST_ANSWER} bytes")
                chunks.append(chunk)
        headers = [(n, v) for n, v in response.headers.multi_items() if n not in ("content-encoding", "content-length")]
        return httpx.Response(response.status_code, headers=headers, content=b"".join(chunks))

    async def _stream(self, method: str, path: str, **options: Any) -> AsyncIterator[bytes]:
        """The body of the provider's answer, as it comes."""
        async with self._answer(method, path, **options) as response:
            async for chunk in response.aiter_bytes(CHUNK):
                yield chunk

    @asynccontextmanager
    async def _answer(self, method: str, path: str, **options: Any) -> AsyncIterator[httpx.Response]:
        request = self._http.build_request(method, path if "://" in path else self._base + path, **options)
        await self._sign(request)
        response = await self._http.send(request, stream=True)
        try:
            if not response.is_success:
                raise await self._error_of(response)
            yield response
        finally:
            await response.aclose()

    async def _once(self, key: Key, create: Callable[[], Awaitable[R]]) -> R:
        """The result of ``create``, which looks for the key before it creates. Creations with the same key follow one
        another. One that its caller has given up goes on, and the next one waits for its end: what it made is there
        to be found then."""
        while (earlier := self._creations.get(key)) is not None:
            await asyncio.wait([earlier])
        task: asyncio.Task[R] = asyncio.ensure_future(create())
        self._creations[key] = task
        task.add_done_callback(lambda done: self._ended(key, done))
        return await asyncio.shield(task)

    def _ended(self, key: Key, task: asyncio.Task[Any]) -> None:
        if not task.cancelled():
            task.exception()  # seen, also when nobody waits for it any more
        if self._creations.get(key) is task:
            del self._creations[key]

    async def _sole(self, kind: Kind, resources: Iterable[R], key: Key) -> R | None:
        """The one resource that was made with the key; None if there is none. Where something in between delivered the
        order twice there are several: the others are destroyed."""
        found = sorted((resource for resource in resources if resource.key == key), key=lambda resource: resource.id)
        if len(found) > 1:
            record = await self.services.persistence.resource(self.vendor, kind, key)
            found.sort(key=lambda resource: record is None or resource.id != record.id)
            for other in found[1:]:
                await destroy(self, kind, other.id)
        return found[0] if found else None

    async def _known_keys(self) -> list[Key]:
        """All keys of this vendor that persistence remembers, for :func:`~vendor_modules.labels.key_in`."""
        return [record.key for record in await self.services.persistence.resources(self.vendor)]

    # --- errors ---

    async def _error_of(self, response: httpx.Response) -> VendorError:
        """What an answer means that is no success: by its code, else by its status."""
        await response.aread()
        try:
            code, words = self._refusal(response)
        except (ValueError, KeyError, TypeError, AttributeError, IndexError, ProtocolError):
            code, words = "", ""
        return self._meant(response, code, words)

    def _meant(self, response: httpx.Response, code: str, words: str) -> VendorError:
        detail = " ".join(words.split())[:LONGEST_WORDS] or f"HTTP status {response.status_code}"
        return by_status(response.status_code, detail, response.headers, meant=self.by_code.get(code))

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, httpx.TimeoutException):
            return TimedOut("no answer in time")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return InvalidRequest("the provider's URL cannot be used")
        if isinstance(error, httpx.DecodingError | httpx.TooManyRedirects | httpx.CookieConflict):
            return ProtocolError("the answer makes no sense as HTTP")
        if isinstance(error, httpx.HTTPError | httpx.StreamError):
            return Unavailable(str(error) or type(error).__name__)
        return super()._translate(error)


@cache
def _tls() -> ssl.SSLContext:
    """One for all modules: reading the certificates takes 20 ms."""
    return ssl.create_default_context()


def segment(identifier: str) -> str:
    """An id as one part of a path; :class:`~vendor_modules.errors.NotFound` for one that would lead elsewhere."""
    if identifier in ("", ".", ".."):
        raise NotFound(f"there is nothing with the id {identifier!r}")
    return quote(identifier, safe="")


@contextmanager
def understood(what: str) -> Iterator[None]:
    """Within it an answer is read: what goes wrong there is a :class:`~vendor_modules.errors.ProtocolError` which says
    that the answer is no ``what``, without values, which may be secrets."""
    try:
        yield
    except ValidationError as error:
        raise ProtocolError(f"the answer is no {what}: {words(error)}") from None
    except KeyError as error:
        raise ProtocolError(f"the answer is no {what}: it has no {error.args[0]!r}") from None
    except (TypeError, ValueError, AttributeError, IndexError, ArithmeticError):
        raise ProtocolError(f"the answer is no {what}") from None


def words(error: ValidationError) -> str:
    """What is wrong, without the values."""
    fields = error.errors(include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, field['loc']))}: {field['msg']}" for field in fields)


def json_of(response: httpx.Response) -> Any:
    """The answer as JSON."""
    with understood("JSON"):
        return response.json()


def objects_of(value: Any, what: str) -> list[dict[str, Any]]:
    """A list of objects out of JSON; an object is no empty list, nor is anything else."""
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise ProtocolError(f"the answer is no list of {what}")
    return value


def xml_of(content: bytes, root: str | None = None) -> etree._Element:
    """XML from a provider: no entities, no network, no huge trees; its root's name, if one is given."""
    parser = etree.XMLParser(resolve_entities=False, no_network=True, load_dtd=False, remove_comments=True)
    try:
        tree = etree.fromstring(content, parser)
    except etree.XMLSyntaxError:
        raise ProtocolError("the answer is not XML") from None
    if root is not None and tree.tag != root:
        raise ProtocolError(f"the answer is no {root}")
    return tree
