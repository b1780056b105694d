"""The cloud's HTTP API. Every resource is at ``/v1/KINDS``; creation takes an ``Idempotency-Key`` header."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, Header, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import StreamingResponse
from pydantic import AwareDatetime, StringConstraints
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect

from vendor_modules.resources import ImageSpec, VolumeSpec
from vendor_modules.testbed.cloud import Cloud
from vendor_modules.testbed.config import MAX_PAGE
from vendor_modules.testbed.errors import ApiError, absent, invalid
from vendor_modules.testbed.http import JsonErrors, error_response, range_start
from vendor_modules.testbed.objects import OCTETS, name_in
from vendor_modules.testbed.records import (
    AccessKeyRecord,
    AddressRecord,
    BucketRecord,
    ImageRecord,
    KeyPairRecord,
    LoadBalancerRecord,
    MachineRecord,
    Record,
    SecurityGroupRecord,
    SnapshotRecord,
    VolumeRecord,
)
from vendor_modules.testbed.wire import (
    Associate,
    Attach,
    Balance,
    CreateAccessKey,
    CreateKeyPair,
    CreateLoadBalancer,
    CreateMachine,
    CreateSecurityGroup,
    Login,
    Named,
    Token,
)

MAX_BODY = 48 * 1024 * 1024
"""Of a request that is not an upload: a machine's user data is the largest."""

KeyHeader = Annotated[str, Header(alias="Idempotency-Key"), StringConstraints(pattern=r"^[A-Za-z0-9._:/@-]{1,255}$")]
Limit = Annotated[int | None, Query(ge=1, le=MAX_PAGE)]
Answer = dict[str, Any]


def _named(request: Request) -> str:
    return name_in(request.scope["query_string"])


ObjectName = Annotated[str, Depends(_named)]


def make_app(cloud: Cloud) -> Any:
    """The ASGI application."""
    app = FastAPI(title="Portable Testbed Cluster", docs_url=None, redoc_url=None, openapi_url=None)

    @app.exception_handler(ApiError)
    @app.exception_handler(Exception)
    async def _error(_: Request, error: Exception) -> Response:
        return error_response(error)

    @app.exception_handler(RequestValidationError)
    async def _invalid(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]  # without its input, which may hold a secret
        place = ".".join(str(part) for part in first["loc"] if part != "body")
        return error_response(invalid(f"{place or 'the body'}: {first['msg']}"))

    @app.exception_handler(HTTPException)
    async def _http(_: Request, error: HTTPException) -> Response:
        code = {404: "not-found", 405: "method-not-allowed"}.get(error.status_code, "invalid")
        return error_response(ApiError(error.status_code, code, str(error.detail)))

    @app.post("/v1/tokens", status_code=201)
    async def login(order: Login) -> Token:
        return await cloud.access.login(order)

    def token(request: Request) -> None:
        cloud.access.check(request.headers.get("authorization"))

    for routes in _about, _machines, _images, _volumes, _network, _buckets, _objects:
        app.include_router(routes(cloud), prefix="/v1", dependencies=[Depends(token)])
    return JsonErrors(_Bounds(app, cloud.config.latency_ms / 1000))


class _Bounds:
    """Delays every answer by the cloud's latency, and refuses bodies that nobody needs."""

    def __init__(self, app: Any, latency: float) -> None:
        self._app = app
        self._latency = latency

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "http":
            await asyncio.sleep(self._latency)
            headers = dict(scope["headers"])
            upload = scope["method"] == "PUT" and scope["path"].endswith("/content")
            if b"transfer-encoding" in headers and not upload:
                raise ApiError(411, "length-required", "the body's length must be declared")
            if not upload and int(headers.get(b"content-length", b"0")) > MAX_BODY:
                raise ApiError(413, "too-large", f"the body may have at most {MAX_BODY} bytes")
        await self._app(scope, receive, send)


def _collection(
    router: APIRouter, cloud: Cloud, kind: type[Record], path: str, destroy: Callable[[str], Awaitable[None] | None]
) -> None:
    """What all kinds of resource have in common: list, describe, destroy."""

    @router.get(path)
    async def listed(limit: Limit = None, marker: Annotated[int, Query(ge=0, le=2**62)] = 0) -> Answer:
        records, following = cloud.store.page(kind, limit or cloud.config.page_size, marker)
        return {"items": [record.shown() for record in records], "next": following}

    @router.get(path + "/{resource_id}")
    async def described(resource_id: str) -> Answer:
        return cloud.store.get(kind, resource_id).shown()

    @router.delete(path + "/{resource_id}", status_code=204)
    async def destroyed(resource_id: str) -> None:
        if waiting := destroy(resource_id):
            await waiting


def _about(cloud: Cloud) -> APIRouter:
    router = APIRouter()

    @router.get("/services")
    async def services() -> Answer:
        sold = {"block-storage": cloud.config.block_gib_month, "object-storage": cloud.config.object_gib_month}
        return {
            "name": cloud.config.name,
            "runtime": cloud.runtime.name,
            "image_formats": sorted(cloud.runtime.formats),
            "confinement": cloud.runtime.confinement,
            "services": {"compute": True, "images": True, "network": True}
            | {name: price is not None for name, price in sold.items()},
        }

    @router.get("/catalogue")
    async def catalogue() -> Answer:
        return cloud.config.catalogue().model_dump(mode="json")

    @router.get("/quotas")
    async def quotas() -> Answer:
        return {"items": [quota.model_dump() for quota in cloud.limits.report()]}

    @router.get("/usage")
    async def usage(since: AwareDatetime | None = None) -> Answer:
        return {"items": [record.model_dump(mode="json") for record in cloud.meters.report(since)]}

    return router


def _machines(cloud: Cloud) -> APIRouter:
    router, machines = APIRouter(), cloud.machines
    _collection(router, cloud, MachineRecord, "/instances", machines.destroy)

    @router.post("/instances", status_code=202)
    async def create(order: CreateMachine, idempotency_key: KeyHeader) -> Answer:
        if order.volumes:
            _need_block_storage(cloud)
        return machines.create(order, idempotency_key).shown()

    @router.post("/instances/{machine_id}/start", status_code=202)
    async def start(machine_id: str) -> Answer:
        return machines.start(machine_id).shown()

    @router.post("/instances/{machine_id}/stop")
    async def stop(machine_id: str) -> Answer:
        return (await machines.stop(machine_id)).shown()

    @router.post("/instances/{machine_id}/reboot", status_code=202)
    async def reboot(machine_id: str) -> Answer:
        return (await machines.reboot(machine_id)).shown()

    @router.get("/instances/{machine_id}/console")
    async def console(machine_id: str) -> Answer:
        return {"output": await machines.console(machine_id)}

    @router.post("/instances/{machine_id}/bundle", status_code=202)
    async def bundle(machine_id: str, order: Named, idempotency_key: KeyHeader) -> Answer:
        return cloud.images.bundle("machine", machine_id, order.name, idempotency_key).shown()

    return router


def _images(cloud: Cloud) -> APIRouter:
    router, images = APIRouter(), cloud.images
    _collection(router, cloud, ImageRecord, "/images", images.destroy)

    @router.post("/images", status_code=202)
    async def create(order: ImageSpec, idempotency_key: KeyHeader) -> Answer:
        return images.create(order, idempotency_key).shown()

    @router.put("/images/{image_id}/content")
    async def upload(image_id: str, request: Request) -> Answer:
        try:
            return (await images.upload(image_id, request.stream())).shown()
        except ClientDisconnect:
            raise invalid("the content was not sent whole") from None

    @router.get("/images/{image_id}/content")
    async def download(image_id: str, range_: Annotated[str | None, Header(alias="Range")] = None) -> StreamingResponse:
        record, file = images.downloadable(image_id)
        try:
            start = range_start(range_, record.size)
        except ApiError:
            file.close()
            raise
        headers = {"content-length": str(record.size - (start or 0)), "content-type": "application/octet-stream"}
        if start is not None:
            headers["content-range"] = f"bytes {start}-{record.size - 1}/{record.size}"
        return StreamingResponse(images.content(image_id, file, start or 0), 200 if start is None else 206, headers)

    return router


def _volumes(cloud: Cloud) -> APIRouter:
    router, volumes = APIRouter(dependencies=[Depends(lambda: _need_block_storage(cloud))]), cloud.volumes
    _collection(router, cloud, VolumeRecord, "/volumes", volumes.destroy)
    _collection(router, cloud, SnapshotRecord, "/snapshots", cloud.snapshots.destroy)

    @router.post("/volumes", status_code=202)
    async def create(order: VolumeSpec, idempotency_key: KeyHeader) -> Answer:
        return volumes.create(order, idempotency_key).shown()

    @router.post("/volumes/{volume_id}/attach")
    async def attach(volume_id: str, order: Attach) -> Answer:
        return volumes.attach(volume_id, order.machine, order.device).shown()

    @router.post("/volumes/{volume_id}/detach")
    async def detach(volume_id: str) -> Answer:
        return volumes.detach(volume_id).shown()

    @router.post("/volumes/{volume_id}/bundle", status_code=202)
    async def bundle(volume_id: str, order: Named, idempotency_key: KeyHeader) -> Answer:
        return cloud.images.bundle("volume", volume_id, order.name, idempotency_key).shown()

    @router.post("/volumes/{volume_id}/snapshots", status_code=202)
    async def snapshot(volume_id: str, order: Named, idempotency_key: KeyHeader) -> Answer:
        return cloud.snapshots.create(volume_id, order.name, idempotency_key).shown()

    return router


def _network(cloud: Cloud) -> APIRouter:
    router, keys = APIRouter(), cloud.keys_and_groups
    addresses, balancers = cloud.addresses, cloud.balancers
    _collection(router, cloud, KeyPairRecord, "/key-pairs", keys.destroy_key_pair)
    _collection(router, cloud, SecurityGroupRecord, "/security-groups", keys.destroy_group)
    _collection(router, cloud, AddressRecord, "/addresses", addresses.destroy)
    _collection(router, cloud, LoadBalancerRecord, "/load-balancers", balancers.destroy)

    @router.post("/key-pairs", status_code=201)
    async def create_key_pair(order: CreateKeyPair, idempotency_key: KeyHeader) -> Answer:
        return keys.create_key_pair(order, idempotency_key).shown()

    @router.post("/security-groups", status_code=201)
    async def create_group(order: CreateSecurityGroup, idempotency_key: KeyHeader) -> Answer:
        return keys.create_group(order, idempotency_key).shown()

    @router.post("/addresses", status_code=201)
    async def create_address(order: Named, idempotency_key: KeyHeader) -> Answer:
        return (await addresses.create(order.name, idempotency_key)).shown()

    @router.post("/addresses/{address_id}/associate")
    async def associate(address_id: str, order: Associate) -> Answer:
        return addresses.associate(address_id, order.machine).shown()

    @router.post("/load-balancers", status_code=201)
    async def create_balancer(order: CreateLoadBalancer, idempotency_key: KeyHeader) -> Answer:
        return (await balancers.create(order, idempotency_key)).shown()

    @router.post("/load-balancers/{balancer_id}/balance")
    async def balance(balancer_id: str, order: Balance) -> Answer:
        return balancers.balance(balancer_id, order.machines).shown()

    return router


def _buckets(cloud: Cloud) -> APIRouter:
    router, buckets = APIRouter(dependencies=[Depends(lambda: _need_object_storage(cloud))]), cloud.buckets
    _collection(router, cloud, BucketRecord, "/buckets", buckets.destroy)
    _collection(router, cloud, AccessKeyRecord, "/access-keys", buckets.destroy_access_key)

    @router.post("/buckets", status_code=201)
    async def create(order: Named, idempotency_key: KeyHeader) -> Answer:
        return buckets.create(order.name, idempotency_key).shown()

    @router.post("/buckets/{bucket_id}/access-keys", status_code=201)
    async def create_access_key(bucket_id: str, order: CreateAccessKey, idempotency_key: KeyHeader) -> Answer:
        return buckets.create_access_key(bucket_id, order.internal, idempotency_key).shown()

    return router


def _objects(cloud: Cloud) -> APIRouter:
    router, buckets = APIRouter(dependencies=[Depends(lambda: _need_object_storage(cloud))]), cloud.buckets
    path = "/buckets/{bucket_id}/objects"

    @router.get(path)
    async def listed(bucket_id: str, prefix: str = "", marker: str = "", limit: Limit = None) -> Answer:
        cloud.store.get(BucketRecord, bucket_id)
        found, following = buckets.page(bucket_id, prefix, marker, limit or cloud.config.page_size)
        items = [
            {"name": o.name, "size": o.size, "content_type": o.content_type, "modified": o.modified} for o in found
        ]
        return {"items": items, "next": following}

    @router.put(path + "/content", status_code=201)
    async def put(bucket_id: str, name: ObjectName, request: Request) -> Answer:
        content_type = request.headers.get("content-type", OCTETS)
        stored = await buckets.put(bucket_id, name, content_type, request.stream())
        return {"name": stored.name, "size": stored.size}

    @router.get(path + "/content")
    async def get(
        bucket_id: str,
        name: ObjectName,
        range_: Annotated[str | None, Header(alias="Range")] = None,
    ) -> Response:
        cloud.store.get(BucketRecord, bucket_id)
        return buckets.answer(buckets.find(bucket_id, name), range_, metered=True)

    @router.delete(path + "/content", status_code=204)
    async def delete(bucket_id: str, name: ObjectName) -> None:
        cloud.store.get(BucketRecord, bucket_id)
        buckets.remove(buckets.find(bucket_id, name))

    return router


def _need_block_storage(cloud: Cloud) -> None:
    if cloud.config.block_gib_month is None:
        raise absent("block storage")


def _need_object_storage(cloud: Cloud) -> None:
    if cloud.config.object_gib_month is None:
        raise absent("object storage")
