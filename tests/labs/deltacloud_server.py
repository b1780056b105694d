"""A stub of Apache Deltacloud's REST API 1.1, from its published documentation and XML views. Instances run nothing.

As with Deltacloud's own mock driver, an instance can be destroyed only when it is stopped.
"""

from __future__ import annotations

import ipaddress
from base64 import b64decode
from binascii import Error as Base64Error
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from xml.sax.saxutils import escape, quoteattr

from tests.labs.stub import Answer, Changing, Request, StubServer

USERNAME, PASSWORD = "mockuser", "mockpassword of the stub"
IMAGE = "img1"


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Instance:
    """An instance."""

    id: str
    name: str
    image: str
    profile: str
    realm: str
    user_data: bytes
    firewalls: list[str]
    state: Changing

    def actions(self) -> list[str]:
        """What can be done with it now."""
        return {"RUNNING": ["reboot", "stop"], "STOPPED": ["start", "destroy"]}.get(self.state.read(), [])


@dataclass
class Volume:
    """A storage volume."""

    id: str
    name: str
    capacity: int
    state: Changing
    instance: str | None = None
    device: str | None = None


@dataclass
class Firewall:
    """A firewall: a name, and rules as (port, network)."""

    name: str
    description: str
    rules: list[tuple[int, Any]] = field(default_factory=list)


class DeltacloudServer(StubServer):
    """The stub. ``max_length`` is the constraint on instances' names; features can be taken from ``features``."""

    def __init__(self, *, max_length: int | None = None) -> None:
        super().__init__()
        self.max_length = max_length
        self.features = {
            "instances": ["user_name", "user_data", "firewalls"],
            "images": ["image_name"],
            "storage_volumes": ["volume_name"],
        }
        self.instances: dict[str, Instance] = {}
        self.volumes: dict[str, Volume] = {}
        self.firewalls: dict[str, Firewall] = {}
        self.images = {IMAGE: ("Fedora 10", "fedoraproject", Changing("AVAILABLE"))}
        self.number = 0
        self.drivers: list[tuple[str | None, str | None]] = []

    def new_id(self, prefix: str) -> str:
        """An id never used before."""
        self.number += 1
        return f"{prefix}{self.number}"

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        self.drivers.append((request.headers.get("x-deltacloud-driver"), request.headers.get("x-deltacloud-provider")))
        try:
            if request.headers.get("accept", "*/*") not in ("application/xml", "*/*"):
                raise Refused(406, "only application/xml is spoken here")
            self._authenticate(request)
            status, body = self._routed(request)
        except Refused as error:
            message = f"<code>{error.status}</code><message><![CDATA[{error}]]></message>"
            backend = '<backend driver="mock" provider="default"/>'
            status, body = error.status, f'<error url="" status="{error.status}">{backend}{message}</error>'
        headers = (("Content-Type", "application/xml"), ("Server", "Apache-Deltacloud/1.1.3"))
        return Answer(status, f"<?xml version='1.0' encoding='utf-8' ?>\n{body}".encode() if body else b"", headers)

    def _authenticate(self, request: Request) -> None:
        scheme, _, pair = (request.headers.get("authorization") or "").partition(" ")
        if scheme != "Basic" or b64decode(pair).decode() != f"{USERNAME}:{PASSWORD}":
            raise Refused(401, "Not authorized")

    def _routed(self, request: Request) -> tuple[int, str]:
        root, *rest = request.parts
        if root != "api":
            raise Refused(404, "Not Found")
        if request.body and request.media_type != "application/x-www-form-urlencoded":
            raise Refused(400, "forms are sent as application/x-www-form-urlencoded")
        collections: dict[str, Callable[[Request, list[str]], tuple[int, str]]] = {
            "hardware_profiles": self._profiles,
            "images": self._images,
            "instances": self._instances,
            "storage_volumes": self._volumes,
            "firewalls": self._firewalls,
        }
        if not rest:
            return 200, self._entry(list(collections))
        if rest[0] not in collections:
            raise Refused(404, "Not Found")
        return collections[rest[0]](request, rest[1:])

    def _entry(self, collections: list[str]) -> str:
        links = ""
        for name in collections:
            features = ""
            for feature in self.features.get(name, []):
                limited = self.max_length is not None and feature == "user_name"
                constraint = f'<constraint name="max_length">{self.max_length}</constraint>' if limited else ""
                features += f'<feature name="{feature}" rel="create">{constraint}</feature>'
            links += f'<link rel="{name}" href="{self.url}/api/{name}">{features}</link>'
        return f'<api version="1.1.3" driver="mock" provider="default">{links}</api>'

    # --- hardware profiles and images ---

    def _profiles(self, request: Request, rest: list[str]) -> tuple[int, str]:
        small = _fixed("cpu", "count", "1") + _fixed("memory", "MB", "1740.8") + _fixed("storage", "GB", "160")
        ranged = '<param href="" method="post" name="hwp_cpu" operation="create"/><range first="1" last="6"/>'
        large = f'<property kind="range" name="cpu" unit="count" value="1">{ranged}</property>'
        large += (
            '<property kind="range" name="memory" unit="MB" value="10240"><range first="7680" last="15360"/></property>'
        )
        profiles = {"m1-small": small, "m1-large": large, "opaque": ""}
        shown = [
            f"<hardware_profile id='{n}'><id>{n}</id><name>{n}</name>{p}</hardware_profile>"
            for n, p in profiles.items()
        ]
        return 200, f"<hardware_profiles>{''.join(shown)}</hardware_profiles>"

    def _images(self, request: Request, rest: list[str]) -> tuple[int, str]:
        if request.method == "POST" and not rest:
            return 201, self._create_image(request.form)
        if not rest:
            return 200, f"<images>{''.join(map(self._image, self.images))}</images>"
        if rest[0] not in self.images:
            raise Refused(404, "Not Found")
        if request.method == "DELETE":
            del self.images[rest[0]]
            return 204, ""
        return 200, self._image(rest[0])

    def _create_image(self, form: dict[str, str]) -> str:
        instance = self.instances.get(_required(form, "instance_id"))
        if instance is None:
            raise Refused(404, "Not Found")
        image_id = self.new_id("img-")
        self.images[image_id] = (form.get("name", image_id), USERNAME, Changing("PENDING"))
        self.images[image_id][2].begin("PENDING", "AVAILABLE")
        return self._image(image_id)

    def _image(self, image_id: str) -> str:
        name, owner, state = self.images[image_id]
        texts = f"<name>{escape(name)}</name><description/><owner_id>{owner}</owner_id>"
        texts += f"<architecture>x86_64</architecture><state>{state.read()}</state>"
        return f'<image href="" id="{image_id}">{texts}</image>'

    # --- instances ---

    def _instances(self, request: Request, rest: list[str]) -> tuple[int, str]:
        if not rest:
            if request.method == "POST":
                return 201, self._create_instance(request.form)
            return 200, f"<instances>{''.join(map(self._instance, self.instances.values()))}</instances>"
        action = {"DELETE": "destroy", "POST": [*rest, ""][1], "GET": ""}[request.method]
        if rest[0] not in self.instances:
            raise Refused(403 if action else 404, "no such instance")
        instance = self.instances[rest[0]]
        if not action:
            return 200, self._instance(instance)
        if action not in instance.actions():
            raise Refused(405, "Method Not Allowed")
        if action == "destroy":
            del self.instances[instance.id]
            for volume in self.volumes.values():
                if volume.instance == instance.id:
                    volume.instance = volume.device = None
                    volume.state.begin("IN-USE", "AVAILABLE")
            return 204, ""
        instance.state.begin(
            "STOPPING" if action == "stop" else "PENDING", "STOPPED" if action == "stop" else "RUNNING"
        )
        return 202, self._instance(instance)

    def _create_instance(self, form: dict[str, str]) -> str:
        if _required(form, "image_id") not in self.images:
            raise Refused(400, "no such image")
        profile = form.get("hwp_id", "m1-small")
        if profile not in ("m1-small", "m1-large", "opaque"):
            raise Refused(400, "no such hardware profile")
        for name, feature in (("name", "user_name"), ("user_data", "user_data"), ("firewalls1", "firewalls")):
            if name in form and feature not in self.features["instances"]:
                raise Refused(400, f"{name} is not supported")
        if self.max_length is not None and len(form.get("name", "")) > self.max_length:
            raise Refused(400, f"Parameter name must be {self.max_length} characters or less")
        try:
            user_data = b64decode(form.get("user_data", ""), validate=True)
        except Base64Error:
            raise Refused(400, "user_data must be Base64") from None
        firewalls = [value for name, value in form.items() if name.startswith("firewalls")]
        if any(firewall not in self.firewalls for firewall in firewalls):
            raise Refused(400, "no such firewall")
        machine_id = self.new_id("inst")
        instance = Instance(
            machine_id, form.get("name", machine_id), form["image_id"], profile, form.get("realm_id", "us"), user_data,
            firewalls, Changing("PENDING"),
        )  # fmt: skip
        instance.state.begin("PENDING", "RUNNING")
        self.instances[machine_id] = instance
        return self._instance(instance)

    def _instance(self, instance: Instance) -> str:
        links = "".join(f'<link rel="{a}" method="post" href="{self.url}/api/"/>' for a in instance.actions())
        return (
            f'<instance href="{self.url}/api/instances/{instance.id}" id="{instance.id}">'
            f"<name>{escape(instance.name)}</name><owner_id>{USERNAME}</owner_id>"
            f'<image href="" id="{instance.image}"/><realm href="" id="{instance.realm}"/>'
            f"<state>{instance.state.read()}</state>"
            f'<hardware_profile id="{instance.profile}" href=""/><actions>{links}</actions>'
            f'<public_addresses><address type="hostname">{instance.id}.public.example.com</address></public_addresses>'
            "<private_addresses/></instance>"
        )

    # --- volumes ---

    def _volumes(self, request: Request, rest: list[str]) -> tuple[int, str]:
        if not rest:
            if request.method == "POST":
                return 201, self._create_volume(request.form)
            return 200, f"<storage_volumes>{''.join(map(self._volume, self.volumes.values()))}</storage_volumes>"
        if rest[0] not in self.volumes:
            raise Refused(404, "Not Found")
        volume = self.volumes[rest[0]]
        match request.method, rest[1:]:
            case "GET", []:
                return 200, self._volume(volume)
            case "DELETE", []:
                if volume.instance:
                    raise Refused(409, "the volume is attached")
                del self.volumes[volume.id]
                return 204, ""
            case "POST", ["attach"]:
                instance = self.instances.get(_required(request.form, "instance_id"))
                device = _required(request.form, "device")
                if instance is None or volume.state.read() != "AVAILABLE":
                    raise Refused(400, "the volume cannot be attached")
                volume.instance, volume.device = instance.id, device
                volume.state.begin("ATTACHING", "IN-USE")
                return 202, self._volume(volume)
            case "POST", ["detach"]:
                if volume.instance is None:
                    raise Refused(400, "the volume is not attached")
                volume.instance = volume.device = None
                volume.state.begin("DETACHING", "AVAILABLE")
                return 202, self._volume(volume)
        raise Refused(404, "Not Found")

    def _create_volume(self, form: dict[str, str]) -> str:
        capacity = form.get("capacity", "1")
        if not capacity.isdigit() or int(capacity) < 1:
            raise Refused(400, "capacity must be a number of GB")
        volume_id = self.new_id("vol")
        volume = Volume(volume_id, form.get("name", volume_id), int(capacity), Changing("PENDING"))
        volume.state.begin("PENDING", "AVAILABLE")
        self.volumes[volume_id] = volume
        return self._volume(volume)

    def _volume(self, volume: Volume) -> str:
        mount = ""
        if volume.instance:
            device = f"<device name={quoteattr(volume.device or '')}/>"
            mount = f'<mount><instance href="" id="{volume.instance}"/>{device}</mount>'
        return (
            f'<storage_volume href="" id="{volume.id}"><capacity unit="GB">{volume.capacity}</capacity>'
            f"<name>{escape(volume.name)}</name><state>{volume.state.read()}</state>{mount}</storage_volume>"
        )

    # --- firewalls ---

    def _firewalls(self, request: Request, rest: list[str]) -> tuple[int, str]:
        if not rest:
            if request.method == "POST":
                name = _required(request.form, "name")
                if name in self.firewalls:
                    raise Refused(409, "the firewall is there already")
                self.firewalls[name_id := self.new_id("fw")] = Firewall(name, _required(request.form, "description"))
                return 201, self._firewall(name_id)
            return 200, f"<firewalls>{''.join(map(self._firewall, self.firewalls))}</firewalls>"
        if rest[0] not in self.firewalls:
            raise Refused(404, "Not Found")
        if request.method == "DELETE":
            if any(rest[0] in instance.firewalls for instance in self.instances.values()):
                raise Refused(409, "the firewall is in use")
            del self.firewalls[rest[0]]
            return 204, ""
        if rest[1:] == ["rules"]:
            self._add_rule(self.firewalls[rest[0]], request.form)
            return 201, self._firewall(rest[0])
        return 200, self._firewall(rest[0])

    def _add_rule(self, firewall: Firewall, form: dict[str, str]) -> None:
        if _required(form, "protocol") not in ("tcp", "udp", "icmp"):
            raise Refused(400, "protocol must be tcp, udp or icmp")
        addresses = [value for name, value in form.items() if name.startswith(("ip_address", "ip-address"))]
        if not addresses:
            raise Refused(400, "No sources. Specify at least one source ip address or group.")
        ports = {int(_required(form, "port_from")), int(_required(form, "port_to"))}
        for address in addresses:
            try:
                firewall.rules.append((ports.pop() if len(ports) == 1 else 0, ipaddress.ip_network(address)))
            except ValueError:
                raise Refused(400, "the address is none") from None

    def _firewall(self, name: str) -> str:
        firewall, rules = self.firewalls[name], ""
        for port, network in firewall.rules:
            address = f'address="{network.network_address}" family="ipv{network.version}" type="address"'
            source = f'<source prefix="{network.prefixlen}" {address}/>'
            ports = f"<port_from>{port}</port_from><port_to>{port}</port_to><direction>ingress</direction>"
            rules += f'<rule id="{port}"><allow_protocol>tcp</allow_protocol>{ports}<sources>{source}</sources></rule>'
        texts = f"<name><![CDATA[{firewall.name}]]></name><description><![CDATA[{firewall.description}]]></description>"
        return f'<firewall href="" id="{name}"><actions/>{texts}<owner_id/><rules>{rules}</rules></firewall>'


def _fixed(name: str, unit: str, value: str) -> str:
    return f'<property kind="fixed" name="{name}" unit="{unit}" value="{value}"/>'


def _required(form: dict[str, str], name: str) -> str:
    if name not in form:
        raise Refused(400, f"Required parameter {name} not found")
    return form[name]
