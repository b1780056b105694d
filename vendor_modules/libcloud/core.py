"""The core of a module on a driver of libcloud's: sizes and machines, logging in, and running the driver."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date
from decimal import Decimal
from functools import partial
from typing import Any, ClassVar, TypeVar

from libcloud.compute.providers import get_driver
from libcloud.compute.types import NodeState
from pydantic import SecretStr

from descriptors.application import Label
from descriptors.base import Currency, Money
from descriptors.deployment import Kind
from vendor_modules.blocking import Pool
from vendor_modules.capabilities import FirstBoot, ObjectStorage, Volumes
from vendor_modules.catalog import Price
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, Unauthorized, VendorError
from vendor_modules.labels import KEY, NAME, key_in, name_for
from vendor_modules.libcloud.errors import translate
from vendor_modules.libcloud.transport import Drivers
from vendor_modules.module import HttpSettings, ModuleSettings, VendorModule
from vendor_modules.resources import (
    Catalogue,
    Key,
    Machine,
    MachineSpec,
    Size,
    Status,
)
from vendor_modules.services import Services
from vendor_modules.services.credentials import (
    AccessKeyCredentials,
    Credentials,
    ExternalCredentials,
    KeyPairCredentials,
    resolve,
)
from vendor_modules.userdata import PORT

Driver = Any
"""A driver of libcloud's: its methods have no types. Nodes, volumes and the like are ``Any`` too."""
T = TypeVar("T")

GRACE = 1.0
"""Seconds that the library waits longer than the module: whoever asked has gone then, and the thread is free again."""


class LibcloudSettings(HttpSettings):
    """Where the provider is, and what it charges for what libcloud knows no prices of."""

    region: Label
    """The provider's name of the region."""
    jurisdiction: Label
    """Whose law holds there, such as ``EU``."""
    currency: Currency = "USD"
    """Of all prices."""
    block_gib_month: Money | None = None
    """The price of a GiB of volumes for a month; None: volumes are not offered."""
    object_gib_month: Money | None = None
    """The price of a GiB of objects for a month; None: object storage is not offered."""
    egress_per_gib: Money = Decimal(0)
    """The price of a GiB that leaves the provider."""
    """The price of a GiB that leaves the provider."""


class LibcloudModule(VendorModule):
    """The core: sizes and machines."""

    Settings: ClassVar[type[ModuleSettings]] = LibcloudSettings
    credential_kinds: ClassVar[tuple[str, ...]] = ("password", "external")

    provider: ClassVar[str]
    """The driver, as in :class:`libcloud.compute.types.Provider`."""
    priced_as: ClassVar[str] = ""
    """The provider's name in the price catalogue, whose prices are dated; empty: the driver's are live, or there are
    none."""
    longest_name: ClassVar[int] = 63
    """Characters of a name at the provider, where it holds the key."""
    statuses: ClassVar[Mapping[str, Status | None]] = {
        NodeState.RUNNING: Status.ACTIVE,
        NodeState.NORMAL: Status.ACTIVE,
        NodeState.STOPPED: Status.STOPPED,
        NodeState.SUSPENDED: Status.STOPPED,
        NodeState.PAUSED: Status.STOPPED,
        NodeState.ERROR: Status.ERROR,
        NodeState.TERMINATED: None,
    }
    """What a node's states mean; None is a machine that is no more. Those that are missing are PENDING."""

    def __init__(self, vendor: str, settings: ModuleSettings, services: Services) -> None:
        super().__init__(vendor, settings, services)
        self._pool: Pool[Drivers] = Pool(disconnect=Drivers.close)
        self._login: _Login | None = None

    @property
    def _settings(self) -> LibcloudSettings:
        assert isinstance(self.settings, LibcloudSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    async def _close(self) -> None:
        await self._pool.close()

    # --- hooks: how to log in, and what is where ---

    def _connect(self, credentials: Credentials) -> Driver:
        """A driver for the credentials; the thread's own, so that it need not be safe to share."""
        return get_driver(self.provider)(*account(credentials), **self._driver_options())

    def _driver_options(self) -> dict[str, Any]:
        """Keyword arguments of the driver's class: region, host and the like."""
        return {}

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        """Keyword arguments with which the driver's creating call keeps key and name, as the tags KEY and NAME of
        :mod:`vendor_modules.labels`; empty where resources of the kind have nothing but a name."""
        return {}

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        """The tags of a node, volume, snapshot or image."""
        extra = resource.extra or {}
        tags = extra.get("tags") or extra.get("metadata") or {}
        return tags if isinstance(tags, Mapping) else {}

    def _key_of(self, resource: Any, keys: Collection[str]) -> str:
        """The key that the resource was created with; ``keys`` are those that may be in its name."""
        return self._tags_of(resource).get(KEY) or key_in(str(resource.name), keys)

    def _name_of(self, resource: Any) -> str:
        """The name as it was given."""
        return self._tags_of(resource).get(NAME) or str(resource.name)

    def _provider_name(self, kind: Kind, key: Key, name: str) -> str:
        """What the resource is called at the provider: by its name where the key is in the tags."""
        return name if self._tags_for(kind, key, name) else name_for(key, name, longest=self.longest_name)

    # --- hooks: sizes ---

    def _node_sizes(self, driver: Driver) -> list[Any]:
        """All sizes that machines can have; what they are called here is their ``id``."""
        return list(driver.list_sizes())

    def _cores_of(self, size: Any) -> int:
        """The cores of a size; 1 where the driver does not tell."""
        extra = size.extra or {}
        told = (getattr(size, "vcpus", None), getattr(size, "cpu", None), *map(extra.get, _CORES))
        return next((int(cores) for cores in told if cores), 1)

    def _price_of(self, size: Any) -> Decimal | None:
        """The driver's price per hour; None where it knows none. 0.0 stands for that too."""
        return Decimal(str(size.price)) if size.price else None

    # --- hooks: machines ---

    def _nodes(self, driver: Driver) -> list[Any]:
        """All nodes of the account, in all pages."""
        return list(driver.list_nodes())

    def _node(self, driver: Driver, machine_id: str) -> Any:
        """One node, else :class:`~vendor_modules.errors.NotFound`. Override it where a driver can ask for one."""
        return one(self._nodes(driver), machine_id, "machine")

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        """Keyword arguments of ``create_node``. Mixins add theirs."""
        return {
            "name": self._provider_name("machine", key, spec.name),
            "size": self._node_size(driver, spec.size),
            "image": self._node_image(driver, spec.image),
            **self._tags_for("machine", key, spec.name),
        }

    def _create_node(self, driver: Driver, spec: MachineSpec, key: Key) -> Any:
        return driver.create_node(**self._node_arguments(driver, spec, key))

    def _destroy_node(self, driver: Driver, node: Any) -> None:
        driver.destroy_node(node)

    def _node_size(self, driver: Driver, name: str) -> Any:
        found = next((size for size in self._node_sizes(driver) if str(size.id) == name), None)
        if found is None:
            raise InvalidRequest(f"there is no machine size {name!r}")
        return found

    def _node_image(self, driver: Driver, image_id: str) -> Any:
        """An image; override it where a driver can ask for one."""
        return one(driver.list_images(), image_id, "image")

    def _size_of(self, node: Any) -> str:
        """The name of the node's size."""
        extra = node.extra or {}
        return str(node.size.id if node.size else next(filter(None, map(extra.get, _SIZES)), "unknown"))

    def _image_of(self, node: Any) -> str | None:
        """The id of the image that the node was made from."""
        extra = node.extra or {}
        image = node.image.id if node.image else next(filter(None, map(extra.get, _IMAGES)), None)
        return str(image) if image else None

    def _host_of(self, node: Any) -> str | None:
        """Where the node is reached: its first private address, else its first public one."""
        return next(iter([*(node.private_ips or []), *(node.public_ips or [])]), None)

    def _volumes_of(self, driver: Driver, nodes: list[Any]) -> Mapping[str, tuple[str, ...]]:
        """The ids of the volumes of each of these nodes, by the node's id."""
        return {}

    # --- what it sells ---

    async def _catalogue(self) -> Catalogue:
        settings = self._settings
        sizes = await self._run(lambda driver: [self._size(size) for size in self._node_sizes(driver)])
        known = await self._known_prices()
        dates = [date.fromisoformat(known[size.name].date) for size in sizes if size.name in known]
        return Catalogue(
            region=settings.region,
            jurisdiction=settings.jurisdiction,
            currency=settings.currency,
            sizes=tuple(_priced(size, known.get(size.name)) for size in sizes),
            block_gib_month=settings.block_gib_month if isinstance(self, Volumes) else None,
            object_gib_month=settings.object_gib_month if isinstance(self, ObjectStorage) else None,
            egress_per_gib=settings.egress_per_gib,
            priced=min(dates, default=None),
        )

    async def _known_prices(self) -> Mapping[str, Price]:
        """What the price catalogue knows of the region's sizes, by their names."""
        if not self.priced_as:
            return {}
        prices = await self.services.prices.sizes(self.priced_as, self._settings.region)
        return {price.size: price for price in prices if price.per_hour and price.currency == self._settings.currency}

    def _size(self, size: Any) -> Size:
        return Size(
            name=str(size.id),
            cores=self._cores_of(size),
            memory_mib=int(size.ram or 0),
            price_per_hour=self._price_of(size),
        )

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        def create(driver: Driver) -> Machine:
            node = self._once(
                lambda: self._present(driver),
                lambda: self._create_node(driver, spec, key),
                lambda node: self._destroy_node(driver, node),
                key,
            )
            return self._machine(node, key, ())

        return await self._run(create, key=f"machine {key}")

    async def _describe_machine(self, machine_id: str) -> Machine:
        keys = await self._keys("machine")

        def describe(driver: Driver) -> Machine:
            node = self._node(driver, machine_id)
            if self._status_of(node) is None:
                raise NotFound(f"there is no machine {machine_id!r}")
            return self._machines(driver, [node], keys)[0]

        return await self._run(describe)

    async def _list_machines(self) -> list[Machine]:
        keys = await self._keys("machine")
        return await self._run(lambda driver: self._machines(driver, self._present(driver), keys))

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._run(lambda driver: self._destroy_node(driver, self._node(driver, machine_id)))

    def _present(self, driver: Driver) -> list[Any]:
        return [node for node in self._nodes(driver) if self._status_of(node) is not None]

    def _status_of(self, node: Any) -> Status | None:
        return self.statuses.get(node.state, Status.PENDING)

    def _machines(self, driver: Driver, nodes: list[Any], keys: Collection[str]) -> list[Machine]:
        volumes = self._volumes_of(driver, nodes)
        return [self._machine(node, self._key_of(node, keys), volumes.get(str(node.id), ())) for node in nodes]

    def _machine(self, node: Any, key: str, volumes: tuple[str, ...]) -> Machine:
        host = self._host_of(node)
        return Machine(
            id=str(node.id),
            name=self._name_of(node),
            key=key,
            status=self._status_of(node) or Status.PENDING,
            size=self._size_of(node),
            image=self._image_of(node),
            host=host,
            port=PORT if host and isinstance(self, FirstBoot) else None,
            volumes=volumes,
        )

    # --- running drivers ---

    async def _run(
        self,
        call: Callable[[Driver], T],
        *,
        key: str | None = None,
        connect: Callable[[Credentials], Driver] | None = None,
    ) -> T:
        """The result of ``call`` on a driver, from a thread. Calls with the same ``key`` follow one another. The driver
        is the one that ``connect`` makes (:meth:`_connect`).

        What fails is raised without the library's own error: that holds requests, and with them credentials. A login
        that worked and then does not any more is made once anew, with what the credentials service then says.
        """
        maker = connect or self._connect
        renewed = False
        while True:
            login = await self._logged_in()
            try:
                result = await self._pool.run(lambda d: d.run(call, maker), key=key, connect=login.drivers)
            except Exception as error:
                failed = self._translate(error)
                if failed is None:
                    raise
            else:
                login.worked = True
                return result
            if isinstance(failed, Unauthorized):
                self._login = None if self._login is login else self._login
                if login.worked and not renewed:
                    renewed = True
                    continue
            raise login.masked(failed)

    async def _logged_in(self) -> _Login:
        credentials = await self._credentials() if self._login is None else None
        if self._login is None:
            if credentials is None or credentials.kind not in self.credential_kinds:
                given = credentials.kind if credentials else "none"
                needed = " or ".join(self.credential_kinds)
                raise Unauthorized(f"credentials of the kind {needed} are needed; those given are: {given}")
            self._login = _Login(credentials, self.call_timeout + GRACE, self._settings.proxy)
        return self._login

    def _translate(self, error: Exception) -> VendorError | None:
        return error if isinstance(error, VendorError) else translate(error)

    async def _keys(self, kind: Kind) -> Collection[str]:
        """The keys that may be in names: none where they are in tags."""
        if self._tags_for(kind, "key", "name"):
            return ()
        records = await self.services.persistence.resources(self.vendor)
        return [record.key for record in records if record.kind == kind]

    def _once(
        self, found: Callable[[], Iterable[Any]], create: Callable[[], Any], destroy: Callable[[Any], object], key: Key
    ) -> Any:
        """The resource with the key: the one that is found, else the one that ``create`` makes. What there is too many
        of, because a request went astray and was delivered after all, is destroyed."""

        def made() -> list[Any]:
            return [resource for resource in found() if self._key_of(resource, (key,)) == key]

        resources = made()
        if not resources:
            try:
                return create()
            except Exception as error:
                resources = made() if isinstance(self._translate(error), Conflict) else []
                if not resources:  # the name is not taken by an earlier delivery of the same request
                    raise
        for resource in resources[1:]:
            destroy(resource)
        return resources[0]


class _Login:
    """What drivers log in with, and whether that has worked."""

    def __init__(self, credentials: Credentials, timeout: float, proxy: str | None) -> None:
        self.worked = False
        # an external password is read now, and hidden like the others
        known = resolve(credentials) if isinstance(credentials, ExternalCredentials) else credentials
        self._secrets = [value for _, value in known if isinstance(value, SecretStr)]
        self.drivers = partial(Drivers, known, timeout, proxy)

    def masked(self, error: VendorError) -> VendorError:
        """The error without secrets, and without what it came from."""
        for secret in self._secrets:
            if value := secret.get_secret_value():
                error.detail = error.detail.replace(value, "**********")
        error.args = (error.detail,)
        error.__cause__ = error.__context__ = None
        return error


def account(credentials: Credentials) -> tuple[str, str]:
    """Who logs in, and the secret: what most drivers take as their first two arguments."""
    if isinstance(credentials, AccessKeyCredentials):
        return credentials.access_key, credentials.secret_key.get_secret_value()
    if isinstance(credentials, KeyPairCredentials):
        return credentials.public_key, credentials.private_key.get_secret_value()
    known = resolve(credentials)
    return known.username, known.password.get_secret_value()


def one(resources: Iterable[Any], resource_id: str, kind: str) -> Any:
    """The resource of that id; :class:`~vendor_modules.errors.NotFound` if it is not among them."""
    found = next((resource for resource in resources if str(resource.id) == resource_id), None)
    if found is None:
        raise NotFound(f"there is no {kind} {resource_id!r}")
    return found


def _priced(size: Size, price: Price | None) -> Size:
    return size.model_copy(update={"price_per_hour": price.per_hour}) if price else size


_CORES = ("vcpus", "vcpu", "cpu", "cpus", "cores", "cpu_count", "vcpu_count")
_SIZES = ("instance_type", "flavorId", "size_id", "size", "type", "plan")
_IMAGES = ("image_id", "imageId", "image")
