"""GoGrid, by its published API 1.8: queries answered in JSON, signed with an MD5 of key, secret and time.

Its words: a size is an amount of RAM, a *sandbox* a server to make images from. Resources carry their key in their
description.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from decimal import Decimal
from hashlib import md5
from typing import Any, ClassVar, TypeVar

import httpx
from pydantic import Field

from descriptors.application import Label
from descriptors.base import Currency, Identifier, Money
from vendor_modules.abilities import Ability, Support
from vendor_modules.capabilities import Images, LoadBalancers, Power
from vendor_modules.errors import (
    Conflict,
    Forbidden,
    InvalidRequest,
    NotFound,
    ProtocolError,
    QuotaExceeded,
    Unauthorized,
    VendorError,
)
from vendor_modules.http import EndpointSettings, HttpModule, json_of, understood
from vendor_modules.labels import name_for
from vendor_modules.module import ModuleSettings, PriceSource, Proof
from vendor_modules.protocols.notes import note, noted
from vendor_modules.resources import (
    Catalogue,
    DiskFormat,
    Image,
    Key,
    LoadBalancer,
    Machine,
    MachineSpec,
    Resource,
    Size,
    Status,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import AccessKeyCredentials

R = TypeVar("R", bound=Resource)

VERSION = "1.8"
PAGE = 100
"""How many items a page of a list has."""
LONGEST_NAME = 20
"""Characters of a server's name."""
_STATES = {"On": Status.ACTIVE, "On/Saving": Status.ACTIVE, "Off": Status.STOPPED}
_IMAGE_STATES = {"Available": Status.ACTIVE, "Saving": Status.PENDING}


class GogridSettings(EndpointSettings):
    """Which data centre, and what is to be known of it."""

    datacenter: Label = "US-West-1"
    """The data centre that machines are made in: the name of an option of ``ip.datacenter``."""
    jurisdiction: Label = "US"
    """Whose law applies there."""
    currency: Currency = "USD"
    """The currency of the prices."""
    cores_per_gib: Decimal = Decimal(1)
    """How many cores a server has for each GiB of RAM, at least one: the API does not tell cores."""
    prices: dict[Identifier, Money] = Field(default_factory=dict)
    """Prices of amounts of RAM (``1GB``), an hour; the API tells none, and one that is not here is unknown."""


class GogridModule(Power, Images, LoadBalancers, HttpModule):
    """GoGrid."""

    title = "GoGrid"
    proof = Proof.PROTOCOL_ONLY
    proven_by = "A stub server of the published API 1.8; unproven against a live service."
    known_limits = (
        "Machines take no user data: what is to run in them must be in their image.",
        "Images are made of sandbox servers only, which are for nothing else: machines cannot be made images of.",
        "Public addresses belong to the account for good and are given to servers when they are made.",
        "A server's id is given minutes after it is ordered; until then it is found by its description.",
        "Load balancers cannot be changed while the provider still works on an earlier change.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_machine": Ability(Support.EMULATED, note="A free address of the data centre is looked for first."),
        "create_load_balancer": Ability(Support.EMULATED, note="A free address is looked for first."),
    }
    prices = PriceSource.SETTINGS
    Settings = GogridSettings
    credential_kinds = ("access-key",)
    settle_timeout: ClassVar[float] = 1200.0
    call_timeout: ClassVar[float] = 600.0
    """Seconds until a new server has its id: GoGrid speaks of minutes."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        """See :class:`~vendor_modules.module.VendorModule`."""
        super().__init__(vendor, settings, services)
        assert isinstance(settings, GogridSettings)  # noqa: S101 - the registry makes them from Settings
        self._about = settings
        self._orders = asyncio.Lock()
        """Two orders at a time would choose the same free address."""

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        sizes = []
        for name in await self._options("server.ram"):
            memory = _mebibytes(name)
            cores = max(1, int(self._about.cores_per_gib * memory / 1024))
            price = self._about.prices.get(name)
            sizes.append(Size(name=name, cores=cores, memory_mib=memory, price_per_hour=price))
        return Catalogue(
            region=self._about.datacenter,
            jurisdiction=self._about.jurisdiction,
            currency=self._about.currency,
            sizes=tuple(sizes),
        )

    async def _options(self, lookup: str) -> dict[str, str]:
        """The options that a parameter can have: ids by name."""
        options = await self._list("/common/lookup/list", lookup=lookup)
        with understood("list of options"):
            return {option["name"]: str(option["id"]) for option in options}

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        return await self._once(f"machine/{key}", lambda: self._made_machine(spec, key))

    async def _made_machine(self, spec: MachineSpec, key: Key) -> Machine:
        if not any(_noted_key(item) == key for item in await self._servers()):
            if spec.size not in await self._options("server.ram"):
                raise InvalidRequest(f"there is no server with {spec.size} of RAM")
            await self._describe_image(spec.image)
            async with self._orders:
                await self._order(
                    "server",
                    key,
                    {
                        "name": name_for(key, spec.name, longest=LONGEST_NAME),
                        "description": note(key, spec.name),
                        "image": spec.image,
                        "server.ram": spec.size,
                        "ip": await self._free_address(),
                    },
                )
        machine = await self._with_id(key, self._list_machines)
        if machine.status is Status.STOPPED:
            await self._start_machine(machine.id)
        return machine

    async def _with_id(self, key: Key, listed: Callable[[], Awaitable[list[R]]]) -> R:
        """Wait until a resource that was ordered has its id; :attr:`call_timeout` ends it."""
        wait = 0.02
        while (made := next((one for one in await listed() if one.key == key), None)) is None:
            await asyncio.sleep(wait)
            wait = min(2 * wait, 10.0)
        return made

    async def _free_address(self) -> str:
        datacenters = await self._options("ip.datacenter")
        if self._about.datacenter not in datacenters:
            raise InvalidRequest(f"there is no data centre {self._about.datacenter!r}")
        query = {"ip.type": "Public", "ip.state": "Unassigned", "datacenter": datacenters[self._about.datacenter]}
        free = await self._list("/grid/ip/list", **query)
        if not free:
            raise QuotaExceeded("the account has no public address left in the data centre")
        with understood("list of addresses"):
            return str(free[0]["ip"])

    async def _describe_machine(self, machine_id: str) -> Machine:
        return _machine(await self._one("/grid/server/get", machine_id))

    async def _list_machines(self) -> list[Machine]:
        return [_machine(item) for item in await self._servers() if item.get("id") is not None]

    async def _servers(self) -> list[dict[str, Any]]:
        servers = await self._list("/grid/server/list")
        return [item for item in servers if not item.get("isSandbox")]

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._write("/grid/server/delete", {"id": (await self._describe_machine(machine_id)).id})

    async def _start_machine(self, machine_id: str) -> None:
        await self._power(machine_id, "start", Status.ACTIVE)

    async def _stop_machine(self, machine_id: str) -> None:
        await self._power(machine_id, "stop", Status.STOPPED)

    async def _power(self, machine_id: str, power: str, wanted: Status) -> None:
        if (await self._describe_machine(machine_id)).status is not wanted:
            await self._write("/grid/server/power", {"id": machine_id, "power": power})

    # --- images ---

    async def _describe_image(self, image_id: str) -> Image:
        return _image(await self._one("/grid/image/get", image_id))

    async def _list_images(self) -> list[Image]:
        return [_image(item) for item in await self._list("/grid/image/list")]

    async def _destroy_image(self, image_id: str) -> None:
        if (await self._describe_image(image_id)).public:
            raise Forbidden(f"image {image_id} is GoGrid's own")
        await self._write("/grid/image/delete", {"id": image_id})

    # --- load balancers ---

    async def _create_load_balancer(self, name: str, port: int, machines: tuple[str, ...], key: Key) -> LoadBalancer:
        return await self._once(f"load-balancer/{key}", lambda: self._made_balancer(name, port, machines, key))

    async def _made_balancer(self, name: str, port: int, machines: tuple[str, ...], key: Key) -> LoadBalancer:
        if not any(_noted_key(item) == key for item in await self._list("/grid/loadbalancer/list")):
            if not machines:
                raise InvalidRequest("a load balancer cannot be made without a machine")
            members = await self._members(machines, port)
            async with self._orders:
                await self._order(
                    "loadbalancer",
                    key,
                    {
                        "name": name_for(key, name, longest=LONGEST_NAME),
                        "description": note(key, name),
                        "loadbalancer.type": "Round Robin",
                        "virtualip.ip": await self._free_address(),
                        "virtualip.port": str(port),
                        **members,
                    },
                )
        return await self._with_id(key, self._list_load_balancers)

    async def _members(self, machines: tuple[str, ...], port: int) -> dict[str, str]:
        members = {}
        for number, machine_id in enumerate(machines):
            members[f"realiplist.{number}.ip"] = str((await self._describe_machine(machine_id)).host)
            members[f"realiplist.{number}.port"] = str(port)
        return members

    async def _describe_load_balancer(self, balancer_id: str) -> LoadBalancer:
        item = await self._one("/grid/loadbalancer/get", balancer_id)
        return _balancer(item, await self._by_address())

    async def _list_load_balancers(self) -> list[LoadBalancer]:
        items, machines = await self._list("/grid/loadbalancer/list"), await self._by_address()
        return [_balancer(item, machines) for item in items if item.get("id") is not None]

    async def _by_address(self) -> dict[str, str]:
        return {machine.host: machine.id for machine in await self._list_machines() if machine.host}

    async def _balance(self, balancer_id: str, machines: tuple[str, ...]) -> None:
        balancer = await self._describe_load_balancer(balancer_id)
        members = await self._members(machines, balancer.port)
        await self._write("/grid/loadbalancer/edit", {"id": balancer.id, **members})

    async def _destroy_load_balancer(self, balancer_id: str) -> None:
        balancer = await self._describe_load_balancer(balancer_id)
        await self._write("/grid/loadbalancer/delete", {"id": balancer.id})

    # --- HTTP ---

    async def _list(self, path: str, **query: str) -> list[dict[str, Any]]:
        """All pages of a list."""
        found: dict[str, dict[str, Any]] = {}
        for page in range(1_000):
            answer = json_of(await self._ask("GET", path, params={**query, "num_items": PAGE, "page": page}))
            with understood("list"):
                items = [dict(item) for item in answer["list"]]
                total = int(answer["summary"]["total"])
            found |= {_identity(item): item for item in items}
            if not items or (page + 1) * PAGE >= total:
                return list(found.values())
        raise ProtocolError("the list has no end")

    async def _one(self, path: str, identifier: str) -> dict[str, Any]:
        if not (identifier.isascii() and identifier.isdigit()):
            raise NotFound(f"there is nothing with the id {identifier!r}")
        answer = json_of(await self._ask("GET", path, params={"id": identifier}))
        with understood("object"):
            items = [dict(item) for item in answer["list"]]
        if not items:
            raise NotFound(f"there is nothing with the id {identifier!r}")
        return items[0]

    async def _order(self, what: str, key: Key, order: Mapping[str, str]) -> None:
        """Order a server or a load balancer. An order that went through and is repeated on its way is refused, because
        its address is taken then: by itself."""
        try:
            await self._write(f"/grid/{what}/add", order)
        except InvalidRequest:
            if not any(_noted_key(item) == key for item in await self._list(f"/grid/{what}/list")):
                raise

    async def _write(self, path: str, order: Mapping[str, str]) -> None:
        json_of(await self._ask("POST", path, params=order))

    async def _sign(self, request: httpx.Request) -> None:
        credentials = await self._credentials()
        if not isinstance(credentials, AccessKeyCredentials):
            raise Unauthorized("an access key and its secret key are needed")
        signature = sign(credentials.access_key, credentials.secret_key.get_secret_value(), time.time())
        shown = {"api_key": credentials.access_key, "v": VERSION, "format": "json", "sig": signature}
        request.url = request.url.copy_merge_params(shown)

    def _refusal(self, response: httpx.Response) -> tuple[str, str]:
        error = response.json()["list"][0]
        return str(error.get("errorcode", "")), str(error["message"])

    def _meant(self, response: httpx.Response, code: str, words: str) -> VendorError:
        # GoGrid's statuses are its own: 403 is a failed authentication, 401 a right that the key does not have, and
        # what does not exist is a 400 like any other wrong value
        said = words.lower()
        if response.status_code == 403:
            return Unauthorized(words or "authentication failed")
        if response.status_code == 401 and words:
            return Forbidden(words)
        if response.status_code == 400 and "no object found" in said:
            return NotFound(words)
        if response.status_code == 400 and ("already pending" in said or "state" in said):
            return Conflict(words)
        return super()._meant(response, code, words)


def sign(api_key: str, secret: str, moment: float) -> str:
    """The signature of any request at a moment (seconds since 1970): MD5 of key, secret and whole seconds."""
    return md5(f"{api_key}{secret}{int(moment)}".encode(), usedforsecurity=False).hexdigest()


def _identity(item: Mapping[str, Any]) -> str:
    """What tells an item from others in its list: one that has no id yet has an address or a name."""
    return str(item.get("id") or item.get("name") or item.get("ip"))


def _noted_key(item: Mapping[str, Any]) -> str:
    return noted(item.get("description"))[0]


def _mebibytes(name: str) -> int:
    """How much memory an option of ``server.ram`` is: ``512MB`` or ``8GB``."""
    with understood("amount of RAM"):
        unit = {"MB": 1, "GB": 1024}[name[-2:]]
        return int(name[:-2]) * unit


def _machine(item: Mapping[str, Any]) -> Machine:
    with understood("server"):
        key, name = noted(item.get("description"))
        return Machine(
            id=str(item["id"]),
            name=name or item["name"],
            key=key,
            status=_STATES.get(item["state"]["name"], Status.PENDING),
            size=item["ram"]["name"],
            image=str(item["image"]["id"]),
            host=item["ip"]["ip"],
        )


def _image(item: Mapping[str, Any]) -> Image:
    with understood("server image"):
        return Image(
            id=str(item["id"]),
            name=item["friendlyName"],
            status=_IMAGE_STATES.get(item["state"]["name"], Status.ERROR),
            format=DiskFormat.RAW,
            public=bool(item["isPublic"]),
        )


def _balancer(item: Mapping[str, Any], machines: Mapping[str, str]) -> LoadBalancer:
    with understood("load balancer"):
        key, name = noted(item.get("description"))
        members = [machines.get(member["ip"]["ip"]) for member in item["realiplist"]]
        return LoadBalancer(
            id=str(item["id"]),
            name=name or item["name"],
            key=key,
            status=Status.ACTIVE if item["state"]["name"] == "On" else Status.PENDING,
            host=item["virtualip"]["ip"]["ip"],
            port=item["virtualip"]["port"],
            machines=tuple(member for member in members if member),
        )
