"""OpenNebula by its OCCI server, as OpenNebula 2.0 to 3.8 had it; NIIFI's cloud spoke the same.

The driver has traps: its ``create_node`` sends no name, a stopped machine is taken for one that is gone, a size's id is
its place in a list, and disks of machines, images and volumes are all ``STORAGE``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import PurePosixPath
from typing import Any, ClassVar, Literal
from xml.etree.ElementTree import Element, SubElement, tostring

from libcloud.compute.base import StorageVolume
from libcloud.compute.types import NodeState, Provider

from vendor_modules.abilities import Ability, Requirement, Support
from vendor_modules.errors import InvalidRequest
from vendor_modules.labels import KEY, NAME
from vendor_modules.libcloud import Driver, LibcloudListedImages, LibcloudVolumes, one
from vendor_modules.libcloud.site import LibcloudSite, SiteSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Catalogue, Key, MachineSpec, VolumeSpec
from vendor_modules.services.credentials import Credentials

_STATES = {
    "INIT": NodeState.PENDING,
    "PENDING": NodeState.PENDING,
    "HOLD": NodeState.PENDING,
    "ACTIVE": NodeState.RUNNING,
    "STOPPED": NodeState.STOPPED,
    "SUSPENDED": NodeState.SUSPENDED,
    "DONE": NodeState.TERMINATED,
    "FAILED": NodeState.ERROR,
}
_KEY, _NAME = KEY.replace("-", "_"), NAME.replace("-", "_")
_DATA = "DATABLOCK"


class OpenNebulaSettings(SiteSettings):
    """Which OCCI server, and its version."""

    api_version: Literal["2.0", "2.2", "3.0", "3.2", "3.6", "3.8"] = "3.8"
    """The version of OpenNebula. Volumes need 3.6."""
    plain_auth: bool = False
    """Whether the server wants the password itself; else its SHA-1 is sent."""


class OpenNebulaModule(LibcloudSite, LibcloudVolumes, LibcloudListedImages):
    """Keys and names are in a machine's context, and in a volume's name."""

    title = "OpenNebula (OCCI)"
    proof = Proof.RECORDED
    proven_by = "Libcloud 3.9.1's recorded answers of the service (2.0, 3.6 and 3.8), through this module."
    known_limits: ClassVar[tuple[str, ...]] = (
        "Only the OCCI server of OpenNebula 2.0 to 3.8 is spoken to; later versions have none.",
        "Machines cannot be stopped: OCCI only suspends them, with their memory.",
        "Recordings are fixed answers: what changes after a call was seen in edited copies of them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_volume": Ability(note="comes formatted with ext3, not as zeros"),
        "destroy_volume": Ability(requires=(Requirement.DETACHED,)),
        "attach_volume": Ability(note="devices are named dev/sda, dev/vdb and the like"),
        "destroy_image": Ability(Support.UNSUPPORTED, note="libcloud's driver has no call for it"),
    }
    Settings: ClassVar[type[ModuleSettings]] = OpenNebulaSettings
    provider = Provider.OPENNEBULA
    call_timeout = 120.0

    @property
    def _version(self) -> str:
        assert isinstance(self.settings, OpenNebulaSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings.api_version

    def _driver_options(self) -> dict[str, Any]:
        return {**super()._driver_options(), "api_version": self._version}

    def _connect(self, credentials: Credentials) -> Driver:
        assert isinstance(self.settings, OpenNebulaSettings)  # noqa: S101 - the registry makes them from Settings
        driver = super()._connect(credentials)
        driver.NODE_STATE_MAP = _STATES
        driver.connection.plain_auth = self.settings.plain_auth
        return driver

    async def _catalogue(self) -> Catalogue:
        catalogue = await super()._catalogue()
        without = () if self._version >= "3.6" else ("volumes", "attach-detach")
        return catalogue.model_copy(update={"lacks": without})

    # --- machines ---

    def _node_sizes(self, driver: Driver) -> list[Any]:
        sizes = driver.list_sizes()
        for size in sizes:
            size.id = size.name
        return [size for size in sizes if size.ram]

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        context = (resource.extra or {}).get("context") or {}
        return {KEY: context.get(_KEY) or "", NAME: context.get(_NAME) or ""}

    def _create_node(self, driver: Driver, spec: MachineSpec, key: Key) -> Any:
        compute = Element("COMPUTE")
        SubElement(compute, "NAME").text = spec.name
        SubElement(compute, "INSTANCE_TYPE").text = self._node_size(driver, spec.size).name
        image = self._node_image(driver, spec.image).id
        SubElement(SubElement(compute, "DISK"), "STORAGE", {"href": f"/storage/{image}"})
        context = SubElement(compute, "CONTEXT")
        SubElement(context, _KEY.upper()).text = key
        SubElement(context, _NAME.upper()).text = spec.name
        made = driver.connection.request("/compute", method="POST", data=tostring(compute))
        return driver._to_node(made.object)

    def _host_of(self, node: Any) -> str | None:
        return next((network.address for network in node.public_ips if network.address), None)

    def _size_of(self, node: Any) -> str:
        return str(node.size.name) if node.size else "unknown"

    def _image_of(self, node: Any) -> str | None:
        return next((str(disk.id) for disk in _disks(node)), None)

    # --- images and volumes ---

    def _node_images(self, driver: Driver) -> list[Any]:
        return [storage for storage in driver.list_images() if storage.extra["type"] != _DATA]

    def _node_image(self, driver: Driver, image_id: str) -> Any:
        return one(self._node_images(driver), image_id, "image")

    def _storage_volumes(self, driver: Driver) -> list[Any]:
        attached = {disk.id: (node.id, disk.extra) for node in self._nodes(driver) for disk in _disks(node)[1:]}
        return [
            StorageVolume(
                storage.id, storage.name, int(storage.extra["size"]), driver, extra={"disk": attached.get(storage.id)}
            )
            for storage in driver.list_images()
            if storage.extra["type"] == _DATA
        ]

    def _attached_to(self, volume: Any) -> tuple[str, str | None] | None:
        if not (volume.extra or {}).get("disk"):
            return None
        machine, disk = volume.extra["disk"]
        return str(machine), f"dev/{disk['target']}"

    def _volumes_of(self, driver: Driver, nodes: list[Any]) -> Mapping[str, tuple[str, ...]]:
        return {str(node.id): tuple(str(disk.id) for disk in _disks(node)[1:]) for node in nodes}

    def _mib_of(self, volume: Any) -> int:
        return int(volume.size)

    def _volume_arguments(self, driver: Driver, spec: VolumeSpec, key: Key) -> dict[str, Any]:
        return {**super()._volume_arguments(driver, spec, key), "size": spec.size_mib}

    def _attach(self, driver: Driver, node: Any, volume: Any, device: str) -> None:
        path = PurePosixPath(device)
        if str(path.parent) != "dev":
            raise InvalidRequest(f"a volume can be attached as dev/sdb and the like, not as {device!r}")
        driver.attach_volume(node, volume, path.name)


class NiifiModule(OpenNebulaModule):
    """The cloud of Hungary's academic network, which was one of mOSAIC's: OpenNebula by OCCI."""

    title = "NIIFI"
    known_limits: ClassVar[tuple[str, ...]] = (
        *OpenNebulaModule.known_limits,
        "NIIFI's own cloud was never recorded: that it speaks OpenNebula's OCCI is its word.",
    )


def _disks(node: Any) -> list[Any]:
    """A node's disks; the first is the one that it starts from."""
    if node.image is None:
        return []
    return node.image if isinstance(node.image, list) else [node.image]
