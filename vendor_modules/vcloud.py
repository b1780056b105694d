"""VMware vCloud Director 1.5 to 5.5: a machine is a vApp, made from a vApp template."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Literal

from libcloud.common.exceptions import BaseHTTPError
from libcloud.common.types import LibcloudError
from libcloud.compute.types import NodeState, Provider
from pydantic import AfterValidator, Field

from vendor_modules.abilities import Ability, Support
from vendor_modules.errors import InvalidRequest, ResourceFailed, VendorError
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import Driver, LibcloudListedImages, LibcloudStartedLast
from vendor_modules.libcloud.core import LibcloudModule
from vendor_modules.libcloud.errors import words
from vendor_modules.libcloud.site import LibcloudSizedSite, OfferedSize, SizedSiteSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Key, MachineSpec, Status

_SIZE, _IMAGE = "cloud-agency-size", "cloud-agency-image"


def _possible(size: OfferedSize) -> OfferedSize:
    if size.cores > 8 or size.memory_mib % 4:
        raise ValueError("vCloud's machines have at most 8 cores, and a multiple of 4 MiB of memory")
    return size


class VCloudSettings(SizedSiteSettings):
    """Which vCloud Director, and where in it."""

    sizes: Annotated[tuple[Annotated[OfferedSize, AfterValidator(_possible)], ...], Field(min_length=1)]
    """The machine sizes to offer. Disks are as big as the template's."""
    api_version: Literal["1.5", "5.1", "5.5"] = "5.5"
    """The version of the API."""
    vdc: str | None = None
    """The virtual data centre that machines are made in; None: the first."""
    network: str | None = None
    """The organisation's network that machines are put in; None: what the template says."""


class VCloudModule(LibcloudSizedSite, LibcloudStartedLast, LibcloudListedImages):
    """Key, name, size and image are in a vApp's description."""

    title = "VMware vCloud Director"
    proof = Proof.RECORDED
    proven_by = "Libcloud 3.9.1's recorded answers of the service (1.5 and 5.5), through this module."
    known_limits = (
        "There are no volumes: libcloud's driver has no calls for vCloud's independent disks.",
        "The machine sizes are those of the settings; a vApp of several virtual machines gets each of that size.",
        "An outage while logging in looks like wrong credentials: libcloud's driver does not look at the status.",
        "Recordings are fixed answers: what changes after a call was seen in edited copies of them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "destroy_image": Ability(Support.UNSUPPORTED, note="libcloud's driver has no call for it")
    }
    Settings: ClassVar[type[ModuleSettings]] = VCloudSettings
    provider = Provider.VCLOUD
    statuses: ClassVar[Mapping[str, Status | None]] = {
        **LibcloudModule.statuses,
        NodeState.UNKNOWN: Status.ERROR,  # not created, or in no consistent state
    }
    call_timeout = 600.0
    settle_timeout = 300.0

    @property
    def _here(self) -> VCloudSettings:
        assert isinstance(self.settings, VCloudSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _driver_options(self) -> dict[str, Any]:
        return {**super()._driver_options(), "api_version": self._here.api_version}

    def _translate(self, error: Exception) -> VendorError | None:
        if isinstance(error, AttributeError) and isinstance(error.__context__, LibcloudError | BaseHTTPError):
            error = error.__context__  # the driver stumbles over errors that are no XML
        if isinstance(error, BaseHTTPError) and hasattr(error.message, "get"):
            error.message = error.message.get("message") or "no reason is given"
        if isinstance(error, ValueError) and re.search(r"could not be found|is not a valid", str(error)):
            return InvalidRequest(words(error))
        if type(error) is Exception:  # so the driver tells that a task has failed
            return ResourceFailed(words(error))
        return super()._translate(error)

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        description = str(resource.extra.get("description") or "")
        tags: dict[str, str] = json.loads(description) if description.startswith(f'{{"{KEY}"') else {}
        return tags

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        size = self._node_size(driver, spec.size)
        return {
            "name": name_for(key, spec.name),
            "image": self._node_image(driver, spec.image),
            "ex_description": json.dumps({KEY: key, NAME: spec.name, _SIZE: size.id, _IMAGE: spec.image}),
            "ex_vm_cpu": size.extra["cpus"],
            "ex_vm_memory": size.ram,
            "ex_vdc": self._here.vdc,
            "ex_network": self._here.network,
        }

    def _size_of(self, node: Any) -> str:
        return self._tags_of(node).get(_SIZE, "unknown")

    def _image_of(self, node: Any) -> str | None:
        return self._tags_of(node).get(_IMAGE)

    def _finish(self, driver: Driver, node: Any, spec: MachineSpec) -> None:
        size = self._node_size(driver, spec.size)
        driver.ex_set_vm_cpu(node.id, size.extra["cpus"])
        driver.ex_set_vm_memory(node.id, size.ram)
        self._start(driver, node)

    def _start(self, driver: Driver, node: Any) -> None:
        driver.ex_deploy_node(node)

    def _stop(self, driver: Driver, node: Any) -> None:
        driver.ex_undeploy_node(node)  # shuts it down, or switches it off if it will not
