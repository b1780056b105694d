"""The Vendor Module of the Portable Testbed Cluster: it knows the cloud by its URL, and nothing else of it."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from datetime import datetime
from functools import cache
from typing import Any, ClassVar, TypeVar
from urllib.parse import quote

import httpx
from pydantic import AnyHttpUrl, ValidationError

from descriptors.base import MIB
from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.capabilities import (
    AccessKeys,
    Addresses,
    Attachments,
    Consoles,
    Endpoints,
    ImageDownload,
    ImageUpload,
    KeyPairs,
    LoadBalancers,
    MachineBundle,
    Objects,
    Power,
    Quotas,
    SecurityGroups,
    Snapshots,
    UsageReports,
    VolumeBundle,
)
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    TimedOut,
    Unauthorized,
    Unavailable,
    Unsupported,
    VendorError,
    by_status,
)
from vendor_modules.module import Content, HttpSettings, ModuleSettings, PriceSource, Proof
from vendor_modules.resources import (
    AccessKey,
    Address,
    Bucket,
    Catalogue,
    DiskFormat,
    Image,
    ImageSpec,
    Key,
    KeyPair,
    LoadBalancer,
    Machine,
    MachineSpec,
    Quota,
    Rule,
    SecurityGroup,
    Snapshot,
    Status,
    StoredObject,
    Usage,
    Value,
    Volume,
    VolumeSpec,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import resolve
from vendor_modules.testbed.wire import (
    Associate,
    Attach,
    Balance,
    Console,
    CreateAccessKey,
    CreateKeyPair,
    CreateLoadBalancer,
    CreateMachine,
    CreateSecurityGroup,
    Named,
    Token,
)
from vendor_modules.transfers import verified

T = TypeVar("T")
V = TypeVar("V", bound=Value)
M = TypeVar("M", int, str)


@cache
def _tls() -> ssl.SSLContext:
    """One for all modules: reading the certificates takes 20 ms."""
    return ssl.create_default_context()


_BY_CODE: dict[str, type[VendorError]] = {
    "unauthorized": Unauthorized,
    "forbidden": Forbidden,
    "not-found": NotFound,
    "conflict": Conflict,
    "quota-exceeded": QuotaExceeded,
    "insufficient-storage": QuotaExceeded,
    "too-large": InvalidRequest,
    "no-such-service": Unsupported,
}


_FORMATS = (DiskFormat.BUNDLE, DiskFormat.RAW, DiskFormat.QCOW2)
_STOPPED = (Requirement.STOPPED,)


class TestbedSettings(HttpSettings):
    """Where the cloud is."""

    __test__: ClassVar[bool] = False  # they are no test, whatever pytest makes of the name

    url: AnyHttpUrl
    """The URL that the cloud printed when it was ready, such as ``http://127.0.0.1:21142``."""


class TestbedModule(
    Power,
    Consoles,
    Endpoints,
    Attachments,
    ImageUpload,
    ImageDownload,
    MachineBundle,
    VolumeBundle,
    Snapshots,
    KeyPairs,
    SecurityGroups,
    Addresses,
    LoadBalancers,
    Objects,
    AccessKeys,
    UsageReports,
    Quotas,
):
    """The Portable Testbed Cluster."""

    __test__ = False  # see above

    title = "Portable Testbed Cluster"
    proof = Proof.LIVE
    proven_by = "The conformance suite, on a running cloud, with faults injected between it and the module."
    known_limits = (
        "It is a cloud on one desk: its public addresses and load balancers, too, are on the loopback interface.",
        "There are no private networks: machines reach each other, whatever their security groups say.",
        "What machines can be made from depends on how the cloud runs them: as confined processes from bundles only, "
        "with qemu from RAW and QCOW2 images too; another image is refused with InvalidRequest.",
        "Key pairs are kept, and no machine can be logged in to.",
        "A rule of a security group admits its peers to the machine's one service, whatever the rule's port.",
    )
    abilities: ClassVar = {
        "reboot_machine": Ability(Support.EMULATED, note="stopped, then started"),
        "attach_volume": Ability(requires=_STOPPED),
        "detach_volume": Ability(requires=_STOPPED),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "create_volume": Ability(formats=(DiskFormat.RAW,), note="empty, from a RAW image, or from a snapshot"),
        "create_snapshot": Ability(
            requires=_STOPPED, note="a volume that is attached to no machine can be copied, too"
        ),
        "upload_image": Ability(formats=_FORMATS),
        "download_image": Ability(formats=_FORMATS),
        "bundle_machine": Ability(
            requires=_STOPPED,
            formats=_FORMATS,
            note="a bundle; of a machine made from a RAW or QCOW2 image, such an image",
        ),
        "bundle_volume": Ability(
            requires=_STOPPED,
            formats=(DiskFormat.RAW,),
            note="a volume that is attached to no machine can be copied, too",
        ),
        "destroy_security_group": Ability(requires=(Requirement.UNUSED,)),
        "create_load_balancer": Ability(
            note="it has an address of its own in 127.0.0.0/8, and reaches machines whatever their security groups say"
        ),
        "put_object": Ability(note="a name has at most 1024 bytes of UTF-8, none of them zero"),
    }
    prices = PriceSource.LIVE
    Settings = TestbedSettings
    credential_kinds = ("password", "external")
    settle_timeout: ClassVar[float] = 300.0
    """A machine's first start runs its install commands, and big images take a while."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, TestbedSettings)  # noqa: S101 - the registry makes them from Settings
        self._http = httpx.AsyncClient(
            base_url=f"{str(settings.url).rstrip('/')}/v1",
            timeout=httpx.Timeout(30, connect=5),
            limits=httpx.Limits(max_connections=32, max_keepalive_connections=8),
            follow_redirects=False,
            proxy=settings.proxy,
            trust_env=False,
            verify=_tls(),
        )
        self._token: str | None = None
        self._login = asyncio.Lock()

    async def _close(self) -> None:
        await self._http.aclose()

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        return _parsed(Catalogue, await self._ask("GET", "/catalogue"))

    async def _quotas(self) -> list[Quota]:
        return [_parsed(Quota, item) for item in _items(await self._ask("GET", "/quotas"))]

    async def _usage(self, since: datetime | None) -> list[Usage]:
        query = {"since": since.isoformat()} if since else {}
        answer = await self._ask("GET", "/usage", params=query)
        return [_parsed(Usage, item) for item in _items(answer)]

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return _parsed(Machine, await self._order("/instances", _made(CreateMachine, **spec.model_dump()), key))

    async def _describe_machine(self, machine_id: str) -> Machine:
        return _parsed(Machine, await self._ask("GET", _at("instances", machine_id)))

    async def _list_machines(self) -> list[Machine]:
        return await self._all("/instances", Machine)

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._ask("DELETE", _at("instances", machine_id))

    async def _start_machine(self, machine_id: str) -> None:
        await self._ask("POST", _at("instances", machine_id, "start"))

    async def _stop_machine(self, machine_id: str) -> None:
        await self._ask("POST", _at("instances", machine_id, "stop"))

    async def _console(self, machine_id: str) -> str:
        answer = await self._ask("GET", _at("instances", machine_id, "console"))
        return _parsed(Console, answer).output

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        return _parsed(Image, await self._order(_at("instances", machine_id, "bundle"), _made(Named, name=name), key))

    # --- volumes ---

    async def _create_volume(self, spec: VolumeSpec, key: Key) -> Volume:
        return _parsed(Volume, await self._order("/volumes", spec, key))

    async def _describe_volume(self, volume_id: str) -> Volume:
        return _parsed(Volume, await self._ask("GET", _at("volumes", volume_id)))

    async def _list_volumes(self) -> list[Volume]:
        return await self._all("/volumes", Volume)

    async def _destroy_volume(self, volume_id: str) -> None:
        await self._ask("DELETE", _at("volumes", volume_id))

    async def _attach_volume(self, volume_id: str, machine_id: str, device: str) -> None:
        await self._ask("POST", _at("volumes", volume_id, "attach"), _made(Attach, machine=machine_id, device=device))

    async def _detach_volume(self, volume_id: str) -> None:
        await self._ask("POST", _at("volumes", volume_id, "detach"))

    async def _bundle_volume(self, volume_id: str, name: str, key: Key) -> Image:
        return _parsed(Image, await self._order(_at("volumes", volume_id, "bundle"), _made(Named, name=name), key))

    async def _create_snapshot(self, volume_id: str, name: str, key: Key) -> Snapshot:
        return _parsed(
            Snapshot, await self._order(_at("volumes", volume_id, "snapshots"), _made(Named, name=name), key)
        )

    async def _describe_snapshot(self, snapshot_id: str) -> Snapshot:
        return _parsed(Snapshot, await self._ask("GET", _at("snapshots", snapshot_id)))

    async def _list_snapshots(self) -> list[Snapshot]:
        return await self._all("/snapshots", Snapshot)

    async def _destroy_snapshot(self, snapshot_id: str) -> None:
        await self._ask("DELETE", _at("snapshots", snapshot_id))

    # --- images ---

    async def _describe_image(self, image_id: str) -> Image:
        return _parsed(Image, await self._ask("GET", _at("images", image_id)))

    async def _list_images(self) -> list[Image]:
        return await self._all("/images", Image)

    async def _destroy_image(self, image_id: str) -> None:
        await self._ask("DELETE", _at("images", image_id))

    async def _upload_image(self, spec: ImageSpec, content: Content, key: Key) -> Image:
        image = _parsed(Image, await self._order("/images", spec, key))
        if image.status is Status.PENDING:
            path = _at("images", image.id, "content")
            image = _parsed(Image, await self._transfer(path, lambda: verified(content, spec), spec.size))
        if (image.size, image.digest) != (spec.size, spec.digest):
            raise ProtocolError(f"image {image.id} is not the one that was sent: {image.size} bytes, {image.digest}")
        return image

    async def _download_image(self, image_id: str, offset: int) -> AsyncIterator[bytes]:
        image = await self._describe_image(image_id)
        if offset >= image.size:
            return
        async for chunk in self._content(_at("images", image_id, "content"), offset):
            yield chunk

    # --- network ---

    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        return _parsed(
            KeyPair, await self._order("/key-pairs", _made(CreateKeyPair, name=name, public_key=public_key), key)
        )

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        return _parsed(KeyPair, await self._ask("GET", _at("key-pairs", key_pair_id)))

    async def _list_key_pairs(self) -> list[KeyPair]:
        return await self._all("/key-pairs", KeyPair)

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._ask("DELETE", _at("key-pairs", key_pair_id))

    async def _create_security_group(self, name: str, rules: tuple[Rule, ...], key: Key) -> SecurityGroup:
        order = _made(CreateSecurityGroup, name=name, rules=rules)
        return _parsed(SecurityGroup, await self._order("/security-groups", order, key))

    async def _describe_security_group(self, group_id: str) -> SecurityGroup:
        return _parsed(SecurityGroup, await self._ask("GET", _at("security-groups", group_id)))

    async def _list_security_groups(self) -> list[SecurityGroup]:
        return await self._all("/security-groups", SecurityGroup)

    async def _destroy_security_group(self, group_id: str) -> None:
        await self._ask("DELETE", _at("security-groups", group_id))

    async def _create_address(self, name: str, key: Key) -> Address:
        return _parsed(Address, await self._order("/addresses", _made(Named, name=name), key))

    async def _describe_address(self, address_id: str) -> Address:
        return _parsed(Address, await self._ask("GET", _at("addresses", address_id)))

    async def _list_addresses(self) -> list[Address]:
        return await self._all("/addresses", Address)

    async def _associate_address(self, address_id: str, machine_id: str | None) -> None:
        order = _made(Associate, machine=machine_id)
        address = _parsed(Address, await self._ask("POST", _at("addresses", address_id, "associate"), order))
        if address.machine != machine_id:
            raise ProtocolError(f"address {address_id} was to lead to {machine_id}, and leads to {address.machine}")

    async def _destroy_address(self, address_id: str) -> None:
        await self._ask("DELETE", _at("addresses", address_id))

    async def _create_load_balancer(self, name: str, port: int, machines: tuple[str, ...], key: Key) -> LoadBalancer:
        order = _made(CreateLoadBalancer, name=name, port=port, machines=machines)
        return _parsed(LoadBalancer, await self._order("/load-balancers", order, key))

    async def _describe_load_balancer(self, balancer_id: str) -> LoadBalancer:
        return _parsed(LoadBalancer, await self._ask("GET", _at("load-balancers", balancer_id)))

    async def _list_load_balancers(self) -> list[LoadBalancer]:
        return await self._all("/load-balancers", LoadBalancer)

    async def _balance(self, balancer_id: str, machines: tuple[str, ...]) -> None:
        order = _made(Balance, machines=machines)
        balancer = _parsed(LoadBalancer, await self._ask("POST", _at("load-balancers", balancer_id, "balance"), order))
        if balancer.machines != machines:
            raise ProtocolError(f"load balancer {balancer_id} leads to {balancer.machines}, not to {machines}")

    async def _destroy_load_balancer(self, balancer_id: str) -> None:
        await self._ask("DELETE", _at("load-balancers", balancer_id))

    # --- object storage ---

    async def _create_bucket(self, name: str, key: Key) -> Bucket:
        return _parsed(Bucket, await self._order("/buckets", _made(Named, name=name), key))

    async def _describe_bucket(self, bucket_id: str) -> Bucket:
        return _parsed(Bucket, await self._ask("GET", _at("buckets", bucket_id)))

    async def _list_buckets(self) -> list[Bucket]:
        return await self._all("/buckets", Bucket)

    async def _destroy_bucket(self, bucket_id: str) -> None:
        await self._ask("DELETE", _at("buckets", bucket_id))

    async def _create_access_key(self, bucket_id: str, internal: bool, key: Key) -> AccessKey:
        path = _at("buckets", bucket_id, "access-keys")
        return _parsed(AccessKey, await self._order(path, CreateAccessKey(internal=internal), key))

    async def _describe_access_key(self, key_id: str) -> AccessKey:
        return _parsed(AccessKey, await self._ask("GET", _at("access-keys", key_id)))

    async def _list_access_keys(self) -> list[AccessKey]:
        return await self._all("/access-keys", AccessKey)

    async def _destroy_access_key(self, key_id: str) -> None:
        await self._ask("DELETE", _at("access-keys", key_id))

    async def _list_objects(self, bucket_id: str, prefix: str) -> list[StoredObject]:
        return await self._pages(_at("buckets", bucket_id, "objects"), StoredObject, "", prefix=prefix)

    async def _put_object(self, bucket_id: str, name: str, content: Content, size: int) -> None:
        path = _at("buckets", bucket_id, "objects", "content")
        stored = _parsed(StoredObject, await self._transfer(path, lambda: _whole(content, size), size, name=name))
        if (stored.name, stored.size) != (name, size):
            raise ProtocolError(f"{stored.size} bytes were stored as {stored.name!r}, not {size} as {name!r}")

    def _get_object(self, bucket_id: str, name: str, offset: int) -> AsyncIterator[bytes]:
        return self._content(_at("buckets", bucket_id, "objects", "content"), offset, name=name)

    async def _delete_object(self, bucket_id: str, name: str) -> None:
        path = _at("buckets", bucket_id, "objects")
        await self._ask("DELETE", f"{path}/content", params={"name": name})
        left = _items(await self._ask("GET", path, params={"prefix": name, "limit": 1}))
        if any(_parsed(StoredObject, item).name == name for item in left):
            raise Unavailable(f"the cloud says that object {name!r} is removed, and lists it")

    # --- errors ---

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, UnicodeEncodeError):
            return InvalidRequest("half a surrogate pair is no character")
        if isinstance(error, httpx.TimeoutException):
            return TimedOut("no answer in time")
        if isinstance(error, httpx.UnsupportedProtocol | httpx.InvalidURL):
            return InvalidRequest(f"the cloud's URL cannot be used: {error}")
        if isinstance(error, httpx.DecodingError | httpx.TooManyRedirects):
            return ProtocolError(f"the answer makes no sense: {error}")
        if isinstance(error, httpx.HTTPError | httpx.StreamError | httpx.CookieConflict):
            return Unavailable(str(error) or type(error).__name__)
        return super()._translate(error)

    # --- HTTP ---

    async def _order(self, path: str, order: Value, key: Key) -> dict[str, Any]:
        return await self._ask("POST", path, order, headers={"idempotency-key": key})

    async def _all(self, path: str, kind: type[V]) -> list[V]:
        """All of a collection; nothing where the cloud does not have the service."""
        try:
            return await self._pages(path, kind, 0)
        except Unsupported:
            return []

    async def _pages(self, path: str, kind: type[V], marker: M, **params: str) -> list[V]:
        """All pages of a list, from the one after the marker on."""
        found: list[V] = []
        while True:
            answer = await self._ask("GET", path, params={"marker": marker, **params})
            found += [_parsed(kind, item) for item in _items(answer)]
            following = answer.get("next")
            if following is None:
                return found
            if not isinstance(following, type(marker)) or following <= marker:
                raise ProtocolError("the list's next page does not come after this one")
            marker = following

    async def _ask(
        self,
        method: str,
        path: str,
        body: Value | None = None,
        *,
        params: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> dict[str, Any]:
        content = body.model_dump_json().encode() if body else None
        headers = {"content-type": "application/json"} | {**(headers or {})}
        return await self._with_token(lambda: self._send(method, path, content=content, params=params, headers=headers))

    async def _transfer(self, path: str, content: Content, size: int, **params: str) -> dict[str, Any]:
        """Send content of so many bytes."""
        headers = {"content-length": str(size), "content-type": "application/octet-stream"}
        return await self._with_token(
            lambda: self._send("PUT", path, content=content(), params=params, headers=headers)
        )

    async def _content(self, path: str, offset: int, **params: str) -> AsyncIterator[bytes]:
        """Read content from the offset on; there is none at its end or after it."""
        headers = {"range": f"bytes={offset}-"} if offset else {}

        async def opened() -> httpx.Response:
            response = await self._http.send(self._request("GET", path, params=params, headers=headers), stream=True)
            if response.status_code not in ((206, 416) if offset else (200,)):
                try:
                    await response.aread()
                finally:
                    await response.aclose()
                raise _error_of(response)
            if not {"content-length", "transfer-encoding"} & response.headers.keys():
                await response.aclose()
                raise ProtocolError("the answer does not tell where its content ends")
            return response

        response = await self._with_token(opened)
        try:
            if response.status_code != 416:
                async for chunk in _chunks(response):
                    yield chunk
        finally:
            await response.aclose()

    async def _with_token(self, ask: Callable[[], Awaitable[T]]) -> T:
        """Ask with a token; once more with a new one if the cloud does not know ours any more."""
        token = await self._logged_in()
        try:
            return await ask()
        except Unauthorized:
            if self._token == token:
                self._token = None
            await self._logged_in()
            return await ask()

    async def _send(self, method: str, path: str, **options: Any) -> dict[str, Any]:
        response = await self._http.send(self._request(method, path, **options))
        if not response.is_success:
            raise _error_of(response)
        return _object_of(response) if response.content else {}

    def _request(self, method: str, path: str, **options: Any) -> httpx.Request:
        headers = {**(options.pop("headers", None) or {}), "authorization": f"Bearer {self._token}"}
        return self._http.build_request(method, path, headers=headers, **options)

    async def _logged_in(self) -> str:
        async with self._login:
            if self._token is None:
                account = resolve(await self._credentials())
                login = {"username": account.username, "password": account.password.get_secret_value()}
                response = await self._http.post("/tokens", json=login)
                if not response.is_success:
                    raise _error_of(response)
                self._token = _parsed(Token, _object_of(response)).token
            return self._token


def _at(*steps: str) -> str:
    """A path whose steps may hold anything: what means something in a URL is escaped."""
    return "".join(f"/{quote(step, safe='').replace('.', '%2E')}" for step in steps)


def _error_of(response: httpx.Response) -> VendorError:
    """The cloud's answer as an error: by its code, else by its status."""
    try:
        error = response.json()["error"]
        code, detail = str(error["code"]), str(error["message"])
    except (ValueError, KeyError, TypeError):
        code, detail = "", f"HTTP status {response.status_code}"
    return by_status(response.status_code, detail, response.headers, meant=_BY_CODE.get(code))


def _object_of(response: httpx.Response) -> dict[str, Any]:
    try:
        answer = response.json()
    except ValueError as error:
        raise ProtocolError("the answer is not JSON") from error
    if not isinstance(answer, dict):
        raise ProtocolError("the answer is not a JSON object")
    return answer


def _items(answer: dict[str, Any]) -> list[dict[str, Any]]:
    items = answer.get("items")
    if not isinstance(items, list):
        raise ProtocolError("the answer has no list of items")
    return items


def _parsed(kind: type[V], answer: dict[str, Any]) -> V:
    """The answer in the words all modules share; what a newer cloud says besides is left out."""
    try:
        return kind.model_validate({name: value for name, value in answer.items() if name in kind.model_fields})
    except ValidationError as error:
        raise ProtocolError(f"the answer is no {kind.__name__}: {_words(error)}") from None
    except AttributeError:
        raise ProtocolError(f"the answer is no {kind.__name__}, and no object") from None


def _made(kind: type[V], **values: Any) -> V:
    """What is sent, if its values are those that the cloud accepts."""
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise InvalidRequest(_words(error)) from None


def _words(error: ValidationError) -> str:
    """What is wrong, without the values: they may be secrets."""
    fields = error.errors(include_input=False, include_context=False)
    return "; ".join(f"{'.'.join(map(str, field['loc']))}: {field['msg']}" for field in fields)


async def _chunks(response: httpx.Response) -> AsyncIterator[bytes]:
    """The content in chunks of about a MiB. If it breaks off, what has come is given out first: it counts."""
    held = bytearray()
    try:
        async for piece in response.aiter_raw():
            held += piece
            if len(held) >= MIB:
                yield bytes(held)
                held.clear()
    except httpx.HTTPError:
        if held:
            yield bytes(held)
        raise
    if held:
        yield bytes(held)


async def _whole(content: Content, size: int) -> AsyncIterator[bytes]:
    """The content, which must have so many bytes: found out before its last are sent."""
    sent, held = 0, b""
    async for chunk in content():
        if held:
            yield held
        held, sent = chunk, sent + len(chunk)
        if sent > size:
            break
    if sent != size:
        raise InvalidRequest(
            f"the content has {'more than ' if sent > size else ''}{min(sent, size)} bytes, not {size}"
        )
    if held:
        yield held
