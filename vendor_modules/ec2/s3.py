"""S3's buckets and objects, by an async client of its protocol.

Neither libcloud nor boto3: both block, so that every object would go through a thread chunk by chunk, and what is
needed of S3 is small. https://docs.aws.amazon.com/AmazonS3/latest/API/Welcome.html
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from base64 import b64encode, urlsafe_b64decode, urlsafe_b64encode
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any
from urllib.parse import quote, unquote_plus
from xml.sax.saxutils import escape

import httpx
from lxml import etree

from vendor_modules.capabilities import Objects
from vendor_modules.ec2.compute import Amazon
from vendor_modules.ec2.errors import refusal
from vendor_modules.errors import (
    Conflict,
    InvalidRequest,
    NotFound,
    ProtocolError,
    TimedOut,
    Unauthorized,
    Unavailable,
    VendorError,
)
from vendor_modules.http import xml_of
from vendor_modules.labels import KEY, NAME, key_in, name_for
from vendor_modules.libcloud import account
from vendor_modules.module import Content, ModuleSettings
from vendor_modules.resources import Bucket, Key, Status, StoredObject
from vendor_modules.services import Services

_CHUNK = 1024 * 1024
_UNSIGNED = "UNSIGNED-PAYLOAD"
_PART = 240
"""Characters of a tag's value: S3 takes 256, of few kinds, so names are in base64."""
_AT_ONCE = 8


class S3(Amazon, Objects):
    """Buckets, their keys and names in tags, and objects of at most 5 GiB."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        self._client: httpx.AsyncClient | None = None

    async def _close(self) -> None:
        await super()._close()
        if self._client:
            await self._client.aclose()

    # --- buckets ---

    async def _create_bucket(self, name: str, key: Key) -> Bucket:
        called = name_for(key, name)
        region = self._settings.region
        place = f"<LocationConstraint>{region}</LocationConstraint>"
        body = "" if region == "us-east-1" else f"<CreateBucketConfiguration>{place}</CreateBucketConfiguration>"
        try:
            await self._s3("PUT", f"/{called}", content=body.encode())
        except Conflict as error:
            if "BucketAlreadyOwnedByYou" not in error.detail:  # it is ours: the name is made from the key
                raise
        encoded = urlsafe_b64encode(name.encode()).decode()
        parts = [encoded[start : start + _PART] for start in range(0, len(encoded), _PART)]
        tags = {KEY: key} | {f"{NAME}-{number}": part for number, part in enumerate(parts)}
        told = "".join(f"<Tag><Key>{name}</Key><Value>{value}</Value></Tag>" for name, value in tags.items())
        await self._s3("PUT", f"/{called}", "tagging", content=f"<Tagging><TagSet>{told}</TagSet></Tagging>".encode())
        return await self._describe_bucket(called)

    async def _describe_bucket(self, bucket_id: str) -> Bucket:
        await self._s3("GET", f"/{_segment(bucket_id)}", "location")
        return await self._bucket(bucket_id, await self._bucket_keys())

    async def _bucket_keys(self) -> list[Key]:
        """Keys that may be in names: a bucket has no tags yet when it has just been made."""
        records = await self.services.persistence.resources(self.vendor)
        return [record.key for record in records if record.kind == "bucket"]

    async def _bucket(self, name: str, keys: list[Key]) -> Bucket:
        tags = await self._tags(name)
        key = tags.get(KEY) or key_in(name, keys)
        found = await self._list_objects(name, "") if key else []  # others' may be huge
        parts = (tags.get(f"{NAME}-{number}", "") for number in range(len(tags)))
        encoded = "".join(parts)
        return Bucket(
            id=name,
            name=urlsafe_b64decode(encoded).decode() if encoded else name,
            key=key,
            status=Status.ACTIVE,
            objects=len(found),
            bytes=sum(stored.size for stored in found),
        )

    async def _tags(self, name: str) -> Mapping[str, str]:
        try:
            answer = await self._s3("GET", f"/{_segment(name)}", "tagging")
        except Unauthorized:
            raise
        except VendorError:  # it has none, or is elsewhere, or is not ours to look at
            return {}
        return {_text(tag, "Key"): _text(tag, "Value") for tag in answer.iterfind(".//{*}Tag")}

    async def _list_buckets(self) -> list[Bucket]:
        answer = await self._s3("GET", "/")
        names = [_text(bucket, "Name") for bucket in answer.iterfind(".//{*}Bucket")]
        keys, turns = await self._bucket_keys(), asyncio.Semaphore(_AT_ONCE)

        async def described(name: str) -> Bucket | None:
            async with turns:
                try:
                    return await self._bucket(name, keys)
                except NotFound:  # gone since
                    return None

        found = await asyncio.gather(*map(described, names))
        return [bucket for bucket in found if bucket]

    async def _destroy_bucket(self, bucket_id: str) -> None:
        path = f"/{_segment(bucket_id)}"
        found = await self._list_objects(bucket_id, "")
        for start in range(0, len(found), 1000):
            keys = "".join(f"<Object><Key>{escape(o.name)}</Key></Object>" for o in found[start : start + 1000])
            await self._s3("POST", path, "delete", content=f"<Delete><Quiet>true</Quiet>{keys}</Delete>".encode())
        await self._s3("DELETE", path)

    # --- objects ---

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        found: list[StoredObject] = []
        query, more = {"encoding-type": "url", "list-type": "2", "prefix": prefix}, ""
        while True:
            page = query | ({"continuation-token": more} if more else {})
            answer = await self._s3("GET", f"/{_segment(bucket_id)}", query=page)
            items = answer.iterfind(".//{*}Contents")  # in their keys, AWS writes a space as +, and a + as %2B
            found += [StoredObject(name=unquote_plus(_text(i, "Key")), size=int(_text(i, "Size"))) for i in items]
            more = answer.findtext("{*}NextContinuationToken") or ""
            if not more:
                return sorted(found, key=lambda stored: stored.name)

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        checked = _measured(content, size)
        async with self._asked("PUT", _path(bucket_id, name), headers=headers, content=checked) as answer:
            await answer.aread()

    async def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        headers = {"range": f"bytes={offset}-"} if offset else {}
        try:
            async with self._asked("GET", _path(bucket_id, name), headers=headers) as answer:
                if answer.status_code != (206 if offset else 200):
                    raise ProtocolError(f"HTTP status {answer.status_code} for a part of an object")
                async for chunk in answer.aiter_raw(_CHUNK):
                    yield chunk
        except InvalidRequest as error:
            if "InvalidRange" not in error.detail:  # it is no longer than that
                raise

    async def _delete_object(self, bucket_id: str, name: str) -> None:
        async with self._asked("DELETE", _path(bucket_id, name)) as answer:
            await answer.aread()

    # --- asking ---

    async def _s3(
        self, method: str, path: str, part: str = "", *, content: bytes = b"", query: Mapping[str, str] | None = None
    ) -> etree._Element:
        """The answer's root, an empty one where there is no answer; ``part`` is what of the bucket is meant."""
        asked = {part: ""} if part else query
        headers = {"content-md5": b64encode(hashlib.md5(content, usedforsecurity=False).digest()).decode()}
        async with self._asked(method, path, query=asked, content=content, headers=headers) as answer:
            body = await answer.aread()
        root = xml_of(body) if body else etree.Element("empty")
        for error in root.iterfind(".//{*}Error"):
            raise refusal(_text(error, "Code"), _text(error, "Message"), 500)
        return root

    @asynccontextmanager
    async def _asked(
        self,
        method: str,
        path: str,
        *,
        query: Mapping[str, str] | None = None,
        headers: Mapping[str, str] | None = None,
        content: Any = b"",
    ) -> AsyncIterator[httpx.Response]:
        line = "&".join(f"{quote(n, safe='-_.~')}={quote(v, safe='-_.~')}" for n, v in sorted((query or {}).items()))
        url = f"{self._s3_url()}{path}{'?' if line else ''}{line}"
        request = self._http().build_request(method, url, headers=headers, content=content)
        await self._sign(request, line)
        answer = await self._http().send(request, stream=True)
        try:
            if not answer.is_success:
                raise _refused(answer, await answer.aread())
            yield answer
        finally:
            await answer.aclose()

    def _http(self) -> httpx.AsyncClient:
        if self._client is None:
            timeout = httpx.Timeout(self.call_timeout, connect=5)
            self._client = httpx.AsyncClient(timeout=timeout, trust_env=False, proxy=self._settings.proxy)
        return self._client

    def _s3_url(self) -> str:
        where = self._settings.objects_endpoint or self._url("s3")
        return str(where).rstrip("/")

    async def _sign(self, request: httpx.Request, query: str) -> None:
        """Signature version 4; the content is not part of it, and is protected by TLS."""
        credentials = await self._credentials()
        if credentials is None or credentials.kind not in self.credential_kinds:
            raise Unauthorized(f"credentials of the kind {' or '.join(self.credential_kinds)} are needed")
        key, secret = account(credentials)
        moment = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        scope = f"{moment[:8]}/{self._settings.region}/s3/aws4_request"
        request.headers["x-amz-date"], request.headers["x-amz-content-sha256"] = moment, _UNSIGNED
        names = ("host", "x-amz-content-sha256", "x-amz-date")
        told = "".join(f"{name}:{request.headers[name]}\n" for name in names)
        path = request.url.raw_path.decode().partition("?")[0]
        canonical = "\n".join((request.method, path, query, told, ";".join(names), _UNSIGNED))
        signed = "\n".join(("AWS4-HMAC-SHA256", moment, scope, hashlib.sha256(canonical.encode()).hexdigest()))
        signing = f"AWS4{secret}".encode()
        for part in scope.split("/"):
            signing = hmac.digest(signing, part.encode(), "sha256")
        signature = hmac.digest(signing, signed.encode(), "sha256").hex()
        request.headers["authorization"] = (
            f"AWS4-HMAC-SHA256 Credential={key}/{scope}, SignedHeaders={';'.join(names)}, Signature={signature}"
        )

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, httpx.TimeoutException):
            return TimedOut("no answer in time")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return InvalidRequest("the object store's URL cannot be used")
        if isinstance(error, httpx.HTTPError | httpx.StreamError):
            return Unavailable(str(error) or type(error).__name__)
        return super()._translate(error)


async def _measured(content: Content, size: int) -> AsyncIterator[bytes]:
    """The content, which must have that size: found out before its last bytes are sent, so that nothing is stored."""
    sent, held = 0, b""
    async for chunk in content():
        if held:
            yield held
        held, sent = chunk, sent + len(chunk)
        if sent > size:
            break
    if sent != size:
        raise InvalidRequest(f"the content has {sent} bytes, and {size} were declared")
    if held:
        yield held


def _refused(answer: httpx.Response, body: bytes) -> VendorError:
    status, later = answer.status_code, answer.headers.get("retry-after", "")
    try:
        root = xml_of(body)
    except ProtocolError:
        return refusal("", f"HTTP status {status}", status, later)
    return refusal(_text(root, "Code"), _text(root, "Message") or f"HTTP status {status}", status, later)


def _text(element: etree._Element, name: str) -> str:
    return element.findtext(f".//{{*}}{name}") or ""


def _segment(name: str) -> str:
    if name in ("", ".", ".."):
        raise NotFound(f"there is no bucket {name!r}")
    return quote(name, safe="-_.~")


def _path(bucket_id: str, name: str) -> str:
    """Dots that stand alone between slashes would lead elsewhere."""
    parts = [quote(part, safe="-_.~") for part in name.split("/")]
    safe = [part.replace(".", "%2E") if part in (".", "..") else part for part in parts]
    return f"/{_segment(bucket_id)}/{'/'.join(safe)}"
