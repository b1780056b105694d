"""Fills a cloud: ``fill.py identity|resources FACTS.json [GUEST.qcow2]``. Safe to repeat. Runs in OpenStack's virtual
environment, and asks the cloud's own APIs."""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from keystoneauth1 import session
from keystoneauth1.identity import v3

Json = dict[str, Any]

FLAVOURS = (("m1.nano", 256, 1, 1), ("m1.tiny", 384, 1, 2), ("m1.small", 512, 1, 4), ("m1.medium", 1024, 2, 8))
"""Name, memory in MiB, cores, disk in GiB."""
READY_WITHIN = 180.0


class Filler:
    """A cloud's administrator at work."""

    def __init__(self, facts: Json) -> None:
        self.facts, self.password = facts, facts["password"]
        domains = {"user_domain_name": "Default", "project_domain_name": "Default"}
        account = {"username": "admin", "password": self.password, "project_name": "admin"}
        self.session = session.Session(auth=v3.Password(auth_url=facts["auth_url"], **account, **domains))

    def ask(self, method: str, service: str, path: str, body: Json | None = None, **options: Any) -> Any:
        """One call; the JSON of its answer."""
        if service == "identity":
            path = self.facts["auth_url"] + path
        else:
            place = {"service_type": service, "interface": "public", "region_name": self.facts["region"]}
            options["endpoint_filter"] = place
        answer = self.session.request(path, method, json=body, raise_exc=False, **options)
        if not answer.ok:
            raise SystemExit(f"{method} {service} {path}: {answer.status_code} {answer.text[:500]}")
        return answer.json() if answer.content and "json" in answer.headers.get("content-type", "") else None

    def identity_of(self, kind: str, name: str, **values: Any) -> str:
        """The id of an identity resource of that name, which is made if it is not there."""
        found = self.ask("GET", "identity", f"/{kind}s?name={name}")[f"{kind}s"]
        made = found[0] if found else self.ask("POST", "identity", f"/{kind}s", {kind: values | {"name": name}})[kind]
        return str(made["id"])

    def identity(self) -> None:
        """Accounts of services and tenants, and the catalogue of services."""
        roles = {role["name"]: role["id"] for role in self.ask("GET", "identity", "/roles")["roles"]}
        roles["service"] = self.identity_of("role", "service")
        project = self.identity_of("project", "service", domain_id="default")
        for name in ("glance", "placement", "nova", "neutron", "cinder", "swift"):
            self.account(name, project, [roles["admin"], roles["service"]])
        for name in self.facts["tenants"]:
            project = self.identity_of("project", name, domain_id="default")
            self.account(name, project, [roles["member"]])
        there = {place["url"] for place in self.ask("GET", "identity", "/endpoints")["endpoints"]}
        for name, kind, url in self.facts["services"]:
            if url in there:
                continue
            service = self.ask("POST", "identity", "/services", {"service": {"name": name, "type": kind}})["service"]
            for interface in ("public", "internal", "admin"):
                place = {"service_id": service["id"], "interface": interface, "url": url}
                body = {"endpoint": place | {"region_id": self.facts["region"]}}
                self.ask("POST", "identity", "/endpoints", body)

    def account(self, name: str, project: str, roles: list[str]) -> None:
        """A user with these roles in a project."""
        user = self.identity_of("user", name, domain_id="default", password=self.password)
        for role in roles:
            self.ask("PUT", "identity", f"/projects/{project}/users/{user}/roles/{role}")

    def resources(self, guest: Path | None) -> None:
        """What an account finds in a cloud; returns when machines and volumes can be made."""
        there = {flavour["name"] for flavour in self.ask("GET", "compute", "/flavors")["flavors"]}
        for number, (name, memory, cores, disk) in enumerate(FLAVOURS, 1):
            if name not in there:
                flavour = {"id": str(number), "name": name, "ram": memory, "vcpus": cores, "disk": disk}
                self.ask("POST", "compute", "/flavors", {"flavor": flavour})
        self.networks()
        there = {kind["name"] for kind in self.ask("GET", "volumev3", "/types")["volume_types"]}
        if "files" not in there:
            kind = {"name": "files", "extra_specs": {"volume_backend_name": "files"}}
            self.ask("POST", "volumev3", "/types", {"volume_type": kind})
        if guest:
            self.image(guest)
        wait("a hypervisor", self.computes)
        wait("a volume service", self.stores)

    def networks(self) -> None:
        """The public network, and each tenant's own with a router between."""
        there = {network["name"]: network["id"] for network in self.ask("GET", "network", "/v2.0/networks")["networks"]}
        if "public" not in there:
            flat = {"provider:network_type": "flat", "provider:physical_network": "public"}
            there["public"] = self.net("network", name="public", shared=False, **flat, **{"router:external": True})
            subnet = {"network_id": there["public"], "ip_version": 4, "enable_dhcp": False}
            self.net("subnet", name="public", cidr=self.facts["public"], **subnet)
        projects = {project["name"]: project["id"] for project in self.ask("GET", "identity", "/projects")["projects"]}
        for tenant in self.facts["tenants"]:
            if f"{tenant}-net" in there:
                continue
            own = {"project_id": projects[tenant]}
            network = self.net("network", name=f"{tenant}-net", **own)
            subnet = {"network_id": network, "ip_version": 4, "cidr": "10.77.0.0/24"}
            subnet_id = self.net("subnet", name=f"{tenant}-net", **subnet, **own)
            gateway = {"network_id": there["public"]}
            router = self.net("router", name=f"{tenant}-router", external_gateway_info=gateway, **own)
            path = f"/v2.0/routers/{router}/add_router_interface"
            self.ask("PUT", "network", path, {"subnet_id": subnet_id})

    def net(self, kind: str, **values: Any) -> str:
        """The id of a new resource of neutron's."""
        return str(self.ask("POST", "network", f"/v2.0/{kind}s", {kind: values})[kind]["id"])

    def image(self, guest: Path) -> None:
        """The public image ``guest``, which machines start from."""
        if self.ask("GET", "image", "/v2/images?name=guest")["images"]:
            return
        values = {"name": "guest", "visibility": "public", "disk_format": "qcow2", "container_format": "bare"}
        image = self.ask("POST", "image", "/v2/images", values | {"min_disk": 1, "min_ram": 128})
        kind = {"content-type": "application/octet-stream"}
        with guest.open("rb") as content:
            self.ask("PUT", "image", f"/v2/images/{image['id']}/file", data=content, headers=kind)

    def computes(self) -> bool:
        """Whether a machine would find a place: the hypervisor is known, and mapped to nova's cell."""
        version = {"OpenStack-API-Version": "placement 1.20"}
        providers = self.ask("GET", "placement", "/resource_providers", headers=version)["resource_providers"]
        return bool(providers and self.ask("GET", "compute", "/os-hypervisors")["hypervisors"])

    def stores(self) -> bool:
        """Whether a volume would find a place."""
        services = self.ask("GET", "volumev3", "/os-services")["services"]
        return {service["binary"] for service in services if service["state"] == "up"} >= {
            "cinder-volume",
            "cinder-scheduler",
        }


def wait(what: str, is_so: Callable[[], bool]) -> None:
    """Wait for something that takes a while after the start."""
    deadline = time.monotonic() + READY_WITHIN
    while not is_so():
        if time.monotonic() > deadline:
            raise SystemExit(f"no {what} after {READY_WITHIN:g} s")
        time.sleep(0.5)


def main() -> None:
    """Do one step."""
    step, facts, *rest = sys.argv[1:]
    filler = Filler(json.loads(Path(facts).read_text()))
    if step == "identity":
        filler.identity()
    else:
        filler.resources(Path(rest[0]) if rest else None)


if __name__ == "__main__":
    main()
