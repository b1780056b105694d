"""VMware vSphere 6.5 and later, by vCenter's REST API.

libcloud's driver checks no certificate unless it is given a file of authorities, so it always is; and it asks for
pyVmomi to list templates outside of content libraries, so those are left out.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import certifi
from libcloud.compute.base import NodeImage
from libcloud.compute.drivers.vsphere import VSphere_REST_NodeDriver

from vendor_modules.abilities import Ability, Support
from vendor_modules.errors import InvalidRequest
from vendor_modules.libcloud import Driver, LibcloudListedImages, LibcloudStartedLast, account, one
from vendor_modules.libcloud.site import LibcloudSizedSite, SizedSiteSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Key, MachineSpec
from vendor_modules.services.credentials import Credentials


class VSphereSettings(SizedSiteSettings):
    """Which vCenter, and where in it machines are made."""

    datastore: str
    """The id of the datastore for machines' disks, such as ``datastore-75``."""
    folder: str
    """The id of the folder that machines are in, such as ``group-v3``."""
    place: str | None = None
    """The name or id of the host or cluster that machines run on; None: the first."""
    network: str | None = None
    """The id of the network that machines are put in; None: what the template says."""
    ca_file: Path | None = None
    """Certificates of the authorities that vouch for vCenter, as a PEM file; None: the public ones."""


class VSphereModule(LibcloudSizedSite, LibcloudStartedLast, LibcloudListedImages):
    """Keys are in names. Images are the templates of content libraries."""

    title = "VMware vSphere"
    proof = Proof.RECORDED
    proven_by = (
        "Libcloud 3.9.1's recorded answers of the service, through this module: listing, power and removal of "
        "machines; images and creating machines were never recorded, and are follow what is known of the API only."
    )
    known_limits = (
        "Creating machines and listing images are not proven by recordings.",
        "Stopping a machine is switching it off, and the addresses of machines are not told: libcloud's driver has no "
        "calls for them.",
        "There are no volumes and no snapshots of them: libcloud's driver has no calls for them.",
        "vCenter does not list more than 4000 machines (1000 before 7.0).",
        "Recordings are fixed answers: what changes after a call was seen in edited copies of them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "create_machine": Ability(note="not proven by recordings"),
        "list_images": Ability(note="the templates of content libraries; not proven by recordings"),
        "destroy_image": Ability(Support.UNSUPPORTED, note="libcloud's driver has no call for it"),
    }
    Settings: ClassVar[type[ModuleSettings]] = VSphereSettings
    call_timeout = 600.0
    settle_timeout = 300.0

    @property
    def _here(self) -> VSphereSettings:
        assert isinstance(self.settings, VSphereSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _connect(self, credentials: Credentials) -> Driver:
        authorities = str(self._here.ca_file or certifi.where())
        return VSphere_REST_NodeDriver(  # type: ignore[no-untyped-call]
            *account(credentials), **self._site.server(), ca_cert=authorities
        )

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        places = [p for p in driver.list_locations() if self._here.place in (None, p.id, p.name)]
        if not places:
            raise InvalidRequest(f"there is no host or cluster {self._here.place!r}")
        arguments = super()._node_arguments(driver, spec, key)
        arguments["size"].extra["cpu"] = arguments["size"].extra["cpus"]
        return {
            **arguments,
            "location": places[0],
            "ex_datastore": self._here.datastore,
            "ex_folder": self._here.folder,
            "ex_network": self._here.network,
        }

    def _finish(self, driver: Driver, node: Any, spec: MachineSpec) -> None:
        size = self._node_size(driver, spec.size)
        if self._size_of(node) != size.id:
            driver.ex_update_memory(node, size.ram)
            driver.ex_update_cpu(node, size.extra["cpus"])
        self._start(driver, node)

    def _size_of(self, node: Any) -> str:
        return self._size_like(node.size.extra["cpus"], node.size.ram)

    def _image_of(self, node: Any) -> str | None:
        return None  # the driver tells the operating system

    def _node_images(self, driver: Driver) -> list[Any]:
        def ask(path: str = "", **parameters: str) -> Any:  # as the driver does, which hides refusals
            return driver._request(f"/rest/com/vmware/content/library{path}", params=parameters).object["value"]

        ids = [item for library in ask() for item in ask("/item", library_id=library)]
        items = [ask(f"/item/id:{item}") for item in ids]
        return [
            NodeImage(item["id"], item["name"], driver, extra={"type": item["type"]})
            for item in items
            if item["type"] in ("vm-template", "ovf")
        ]

    def _node_image(self, driver: Driver, image_id: str) -> Any:
        return one(self._node_images(driver), image_id, "image")
