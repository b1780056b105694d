"""KubeVirt: virtual machines in a namespace of a Kubernetes cluster, through libcloud's driver."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from libcloud.compute.drivers.kubevirt import KUBEVIRT_URL, KubeVirtNodeDriver  # type: ignore[attr-defined]

from descriptors.application import Label
from descriptors.deployment import Kind
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import Driver, LibcloudFirstBoot, LibcloudPower, account
from vendor_modules.libcloud.site import LibcloudSizedSite, SizedSiteSettings
from vendor_modules.module import ModuleSettings, Proof
from vendor_modules.resources import Key, MachineSpec
from vendor_modules.services.credentials import Credentials


class KubevirtSettings(SizedSiteSettings):
    """Which cluster and namespace, and the machine sizes to offer."""

    namespace: Label
    """The namespace that machines are in; it must exist."""
    ca_file: Path | None = None
    """A file with the certificate of the cluster's own authority; None: those that the computer trusts."""


class KubevirtModule(LibcloudSizedSite, LibcloudPower, LibcloudFirstBoot):
    """Virtual machines from container disks. The password is a service account's token."""

    title = "KubeVirt"
    proof = Proof.RECORDED
    proven_by = "Answers of a cluster as libcloud 3.9.1 recorded them; no cluster was used."
    known_limits = (
        "The password of the credentials is a bearer token; the user name is not looked at.",
        "An image is a container disk's, such as quay.io/containerdisks/ubuntu; images cannot be listed.",
        "A machine's own disk is the container's: what is written there is lost when the machine is stopped.",
        "There are no volumes: libcloud's driver needs the rights of the cluster's administrator for them.",
        "Machines that others made with a run strategy in place of running or not cannot be listed by libcloud.",
        "The interface spoken is kubevirt.io/v1alpha3, which is libcloud's.",
    )
    Settings: ClassVar[type[ModuleSettings]] = KubevirtSettings
    settle_timeout = 300.0

    @property
    def _kubevirt(self) -> KubevirtSettings:
        assert isinstance(self.settings, KubevirtSettings)  # noqa: S101 - the registry makes them from Settings
        return self.settings

    def _connect(self, credentials: Credentials) -> Driver:
        authority = str(self._kubevirt.ca_file) if self._kubevirt.ca_file else True
        # without an authority, libcloud would verify nothing
        options = {"ca_cert": authority, "ex_token_bearer_auth": True}
        return _Driver(account(credentials)[1], **self._driver_options(), **options)

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        return {KEY: key, NAME: name}

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        return resource.extra["annotations"]  # type: ignore[no-any-return]

    def _provider_name(self, kind: Kind, key: Key, name: str) -> str:
        return name_for(key, name, longest=60)

    def _nodes(self, driver: Driver) -> list[Any]:
        return list(driver.list_nodes(self._kubevirt.namespace))

    def _node_image(self, driver: Driver, image_id: str) -> str:
        return image_id

    def _create_node(self, driver: Driver, spec: MachineSpec, key: Key) -> Any:
        asked = self._node_arguments(driver, spec, key)
        template = _template(asked["name"], asked["size"], asked["image"], asked.get("ex_userdata"))
        template["metadata"]["annotations"] = self._tags_for("machine", key, spec.name)
        return driver._create_node_with_template(asked["name"], template, self._kubevirt.namespace)

    def _destroy_node(self, driver: Driver, node: Any) -> None:
        # not as the driver does, which removes others' services whose names begin alike
        where = f"namespaces/{self._kubevirt.namespace}/virtualmachines/{quote(node.name, safe='')}"
        driver.connection.request(KUBEVIRT_URL + where, method="DELETE")

    def _size_of(self, node: Any) -> str:
        return self._size_like(node.extra["cpu"], node.extra["memory"])

    def _image_of(self, node: Any) -> str | None:
        return node.extra["image"]  # type: ignore[no-any-return]


class _Driver(KubeVirtNodeDriver):  # type: ignore[misc]
    """The driver, which tells what it leaves out."""

    def _to_node(self, vm: Any, is_stopped: bool = False) -> Any:
        node = super()._to_node(vm, is_stopped)
        disks = vm["spec"]["template"]["spec"]["volumes"]
        images = [disk["containerDisk"]["image"] for disk in disks if "containerDisk" in disk]
        node.extra |= {"annotations": vm["metadata"].get("annotations") or {}, "image": next(iter(images), None)}
        return node


def _template(name: str, size: Any, image: str, user_data: str | None) -> dict[str, Any]:
    """The virtual machine as Kubernetes wants it; its own disk is the first."""
    volumes: list[dict[str, Any]] = [{"name": "boot", "containerDisk": {"image": image}}]
    if user_data:
        volumes.append({"name": "first-boot", "cloudInitNoCloud": {"userData": user_data}})
    capacity = {"cpu": str(size.extra["cpus"]), "memory": f"{size.ram}Mi"}
    labels = {"kubevirt.io/vm": name}
    domain = {
        "devices": {
            "disks": [{"name": volume["name"], "disk": {"bus": "virtio"}} for volume in volumes],
            "interfaces": [{"name": "pod", "masquerade": {}}],
        },
        "resources": {"requests": capacity, "limits": capacity},
    }
    machine = {"domain": domain, "networks": [{"name": "pod", "pod": {}}], "volumes": volumes}
    return {
        "apiVersion": "kubevirt.io/v1alpha3",
        "kind": "VirtualMachine",
        "metadata": {"name": name, "labels": labels},
        "spec": {"running": False, "template": {"metadata": {"labels": labels}, "spec": machine}},
    }
