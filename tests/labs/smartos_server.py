"""A stub of Triton's CloudAPI 9.x, as its published documentation has it (docs/index.md of joyent/sdc-cloudapi), and
the signature scheme of draft-cavage-http-signatures. Machines run nothing."""

from __future__ import annotations

import json
import re
import time
import uuid
from base64 import b64decode
from dataclasses import dataclass, field
from email.utils import parsedate_to_datetime
from hashlib import md5
from ipaddress import ip_address, ip_network
from typing import Any

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.serialization import load_ssh_public_key

from tests.labs.stub import Answer, Changing, Request, StubServer, as_json

IMAGE = "2b683a82-a066-11e3-97ab-2faa44701c5a"
EXTERNAL = "a9c130da-e3ba-40e9-8b18-112aba2d3ba7"
CLOCK_SKEW = 300
_HASHES = {"sha256": hashes.SHA256, "sha384": hashes.SHA384, "sha512": hashes.SHA512}
_ALIAS = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]{0,188}")
_RULE = re.compile(
    r"FROM (?P<source>any|subnet (?P<net>\S+)|ip (?P<ip>\S+)) TO tag \"?(?P<tag>[^\"=\s]+)\"?(?: = \"?[^\"\s]+\"?)? "
    r"(?P<action>ALLOW|BLOCK) (?P<protocol>tcp|udp) PORT (?P<port>all|\d+)",
    re.IGNORECASE,
)
_OPENING = {"package", "image", "name", "networks", "firewall_enabled", "affinity", "locality", "brand", "volumes"}


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def missing(name: str) -> Refused:
    """A required parameter was not sent."""
    return Refused(409, "MissingParameter", f"{name} must be specified")


def invalid(message: str) -> Refused:
    """A parameter's value is wrong."""
    return Refused(409, "InvalidArgument", message)


def unknown(what: str) -> Refused:
    """There is no such thing."""
    return Refused(404, "ResourceNotFound", f"{what} not found")


@dataclass
class Machine:
    """An instance."""

    id: str
    name: str
    package: dict[str, Any]
    image: str
    tags: dict[str, str]
    metadata: dict[str, str]
    networks: list[str]
    firewall_enabled: bool
    state: Changing
    ip: str

    def shown(self) -> dict[str, Any]:
        """As the API shows it: no addresses before it runs."""
        state = self.state.read()
        shown = {
            "id": self.id,
            "name": self.name,
            "type": "virtualmachine",
            "brand": "bhyve",
            "state": state,
            "image": self.image,
            "memory": self.package["memory"],
            "disk": self.package["disk"],
            "metadata": self.metadata,
            "tags": self.tags,
            "created": "2016-01-04T12:55:50.539Z",
            "updated": "2016-01-21T08:56:59.000Z",
            "firewall_enabled": self.firewall_enabled,
            "package": self.package["name"],
            "networks": self.networks,
            "ips": [] if state == "provisioning" else [self.ip],
        }
        return shown if state == "provisioning" else shown | {"primaryIp": self.ip}


@dataclass
class Cloud:
    """What the data centre holds."""

    machines: dict[str, Machine] = field(default_factory=dict)
    images: dict[str, dict[str, Any]] = field(default_factory=dict)
    image_states: dict[str, Changing] = field(default_factory=dict)
    rules: dict[str, dict[str, Any]] = field(default_factory=dict)
    vlans: dict[int, dict[str, Any]] = field(default_factory=dict)
    networks: dict[str, tuple[int, dict[str, Any]]] = field(default_factory=dict)


class SmartosServer(StubServer):
    """The stub, for one account with one key. ``page`` is how many machines a list has at most."""

    def __init__(self, account: str, public_key: str, *, page: int = 1000) -> None:
        super().__init__()
        self.account, self.public_key, self.page = account, public_key, page
        self.cloud = Cloud()
        self.packages = [_package("g4-general-1G", 1024, 1, 25600), _package("g4-general-4G", 4096, 2, 102400)]
        self.limits: list[dict[str, Any]] | None = [
            {"by": "machines", "value": 100, "used": 2},
            {"by": "ram", "value": 1024, "used": 512},
            {"check": "os", "os": "linux", "by": "quota", "value": 1024, "used": 1},
        ]
        self.cloud.images[IMAGE] = _image(IMAGE, "base-64-lts", public=True)
        self.cloud.image_states[IMAGE] = Changing("active")

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        version = (("Api-Version", "9.15.0"), ("Server", "Triton 9.15.0"))
        try:
            self._authenticate(request)
            answer = self._routed(request)
        except Refused as error:
            answer = as_json(error.status, {"code": error.code, "message": str(error)})
        return Answer(answer.status, answer.body, (*answer.headers, *version))

    # --- who asks ---

    def _authenticate(self, request: Request) -> None:
        scheme, _, rest = (request.headers.get("authorization") or "").partition(" ")
        if scheme != "Signature":
            raise Refused(401, "InvalidCredentials", "no HTTP signature was sent")
        given = dict(re.findall(r'(\w+)="([^"]*)"', rest))
        blob = b64decode(self.public_key.split()[1])
        digest = md5(blob).hexdigest()  # noqa: S324 - the API's own fingerprints
        fingerprint = ":".join(digest[i : i + 2] for i in range(0, 32, 2))
        if given.get("keyId") != f"/{self.account}/keys/{fingerprint}":
            raise Refused(401, "InvalidCredentials", "the key id is not known")
        signed = given.get("headers", "date").split()
        if "date" not in signed:
            raise Refused(401, "InvalidHeader", "date was not a signed header")
        if any(name not in request.headers for name in signed):
            raise Refused(401, "InvalidHeader", "a signed header was not in the request")
        if abs(time.time() - parsedate_to_datetime(request.headers["date"]).timestamp()) > CLOCK_SKEW:
            raise Refused(401, "InvalidCredentials", "clock skew is too great")
        text = "\n".join(f"{name}: {request.headers[name]}" for name in signed)
        self._verify(given.get("algorithm", ""), given.get("signature", ""), text)

    def _verify(self, algorithm: str, signature: str, text: str) -> None:
        key = load_ssh_public_key(self.public_key.encode())
        family, _, hashing = algorithm.partition("-")
        try:
            if family == "rsa" and isinstance(key, rsa.RSAPublicKey):
                key.verify(b64decode(signature), text.encode(), padding.PKCS1v15(), _HASHES[hashing]())
            elif family == "ecdsa" and isinstance(key, ec.EllipticCurvePublicKey):
                key.verify(b64decode(signature), text.encode(), ec.ECDSA(_HASHES[hashing]()))
            else:
                raise Refused(401, "InvalidCredentials", f"{algorithm} is not a supported signing algorithm")
        except (InvalidSignature, KeyError, ValueError):
            raise Refused(401, "InvalidCredentials", "the signature is invalid") from None

    # --- what is asked ---

    def _routed(self, request: Request) -> Answer:
        login, *parts = request.parts
        if login not in (self.account, "my"):
            raise Refused(403, "NotAuthorized", "You do not have permission to access this account")
        body = self._body(request)
        match request.method, parts:
            case "GET", ["packages"]:
                return as_json(200, self.packages)
            case "GET", ["limits"]:
                if self.limits is None:
                    raise unknown("/limits")
                return as_json(200, self.limits)
            case _, ["machines", *rest]:
                return self._machines(request, rest, body)
            case _, ["images", *rest]:
                return self._images(request, rest, body)
            case _, ["fwrules", *rest]:
                return self._rules(request, rest, body)
            case _, ["fabrics", "default", "vlans", *rest]:
                return self._fabric(request, rest, body)
        raise unknown(request.path)

    def _body(self, request: Request) -> dict[str, Any]:
        if not request.body:
            return {}
        if request.media_type != "application/json":
            raise Refused(415, "UnsupportedMediaType", request.media_type)
        try:
            body = json.loads(request.body)
        except ValueError:
            raise Refused(400, "BadRequest", "the body is not JSON") from None
        if not isinstance(body, dict):
            raise Refused(400, "BadRequest", "the body is no object")
        return body

    # --- machines ---

    def _machines(self, request: Request, rest: list[str], body: dict[str, Any]) -> Answer:
        match request.method, rest:
            case "GET", []:
                return self._list_machines(request.query)
            case "POST", []:
                return as_json(201, self._create_machine(body).shown())
        machine = self._machine(rest[0])
        if machine.state.read() == "deleted":
            return as_json(410, machine.shown())
        match request.method:
            case "GET":
                return as_json(200, machine.shown())
            case "DELETE":
                machine.state.begin("stopping", "deleted")
                return Answer(204)
            case "POST":
                return self._act(machine, request.query.get("action"))
        raise Refused(405, "MethodNotAllowed", request.method)

    def _machine(self, machine_id: str) -> Machine:
        _uuid(machine_id)
        if machine_id not in self.cloud.machines:
            raise unknown("VM")
        return self.cloud.machines[machine_id]

    def _act(self, machine: Machine, action: str | None) -> Answer:
        if action is None:
            raise missing("action")
        needed = {"start": "stopped", "stop": "running", "reboot": "running"}.get(action)
        if needed is None:
            raise invalid(f"{action} is not a valid action")
        if machine.state.read() != needed:
            raise Refused(409, "InvalidState", f"the instance is {machine.state.read()}")
        machine.state.begin(
            "stopping" if action == "stop" else "provisioning", "stopped" if action == "stop" else "running"
        )
        return Answer(202)

    def _list_machines(self, query: dict[str, str]) -> Answer:
        limit, offset = min(int(query.get("limit", self.page)), self.page), int(query.get("offset", 0))
        wanted = {name[4:]: value for name, value in query.items() if name.startswith("tag.")}
        shown = [machine.shown() for machine in self.cloud.machines.values()]
        found = [m for m in shown if m["state"] != "deleted" and wanted.items() <= m["tags"].items()]
        counts = (("x-query-limit", str(limit)), ("x-resource-count", str(len(found))))
        return as_json(200, found[offset : offset + limit], *counts)

    def _create_machine(self, body: dict[str, Any]) -> Machine:
        for name in ("image", "package"):
            if name not in body:
                raise missing(name)
        for name in body:
            if name not in _OPENING and not name.startswith(("tag.", "metadata.")):
                raise invalid(f"{name} is not a valid parameter")
        image = self.cloud.images.get(body["image"])
        if image is None or self.cloud.image_states[body["image"]].read() != "active":
            raise invalid(f"{body['image']} is not a valid image")
        package = next((p for p in self.packages if p["id"] == body["package"]), None)
        if package is None:
            raise invalid(f"{body['package']} is not a valid package")
        networks = body.get("networks", [EXTERNAL])
        if any(network != EXTERNAL and network not in self.cloud.networks for network in networks):
            raise invalid("Invalid Networks")
        tags = {name[4:]: value for name, value in body.items() if name.startswith("tag.")}
        metadata = {name[9:]: value for name, value in body.items() if name.startswith("metadata.")}
        if not all(isinstance(value, str) for value in (*tags.values(), *metadata.values())):
            raise invalid("tags and metadata must be strings")
        machine_id = str(uuid.uuid4())
        name = body.get("name", machine_id[:8])
        alive = [m for m in self.cloud.machines.values() if m.state.read() != "deleted"]
        if not _ALIAS.fullmatch(name) or any(m.name == name for m in alive):
            raise invalid(f"name {name!r} is invalid or already in use")
        ip = f"192.0.2.{len(self.cloud.machines) % 250 + 1}"
        machine = Machine(
            machine_id, name, package, body["image"], tags, metadata, networks, body.get("firewall_enabled", False),
            Changing("provisioning"), ip,
        )  # fmt: skip
        machine.state.begin("provisioning", "running")
        self.cloud.machines[machine_id] = machine
        return machine

    # --- images ---

    def _images(self, request: Request, rest: list[str], body: dict[str, Any]) -> Answer:
        match request.method, rest:
            case "GET", []:
                wanted = request.query.get("state", "active")
                shown = [self._shown_image(image_id) for image_id in self.cloud.images]
                return as_json(200, [image for image in shown if wanted in ("all", image["state"])])
            case "POST", []:
                return as_json(201, self._create_image(body))
        _uuid(rest[0])
        if rest[0] not in self.cloud.images:
            raise unknown("image")
        image = self._shown_image(rest[0])
        if request.method == "GET":
            return as_json(200, image)
        if request.method == "DELETE":
            if image["public"]:
                raise Refused(403, "NotAuthorized", "the image is not the account's own")
            del self.cloud.images[rest[0]]
            return Answer(204)
        raise Refused(405, "MethodNotAllowed", request.method)

    def _shown_image(self, image_id: str) -> dict[str, Any]:
        return self.cloud.images[image_id] | {"state": self.cloud.image_states[image_id].read()}

    def _create_image(self, body: dict[str, Any]) -> dict[str, Any]:
        for name in ("machine", "name", "version"):
            if name not in body:
                raise missing(name)
        machine = self._machine(body["machine"])
        if machine.state.read() != "stopped":
            raise Refused(409, "InvalidState", "the instance must be stopped")
        image_id = str(uuid.uuid4())
        self.cloud.images[image_id] = _image(image_id, body["name"], tags=body.get("tags", {}))
        self.cloud.image_states[image_id] = Changing("creating")
        self.cloud.image_states[image_id].begin("creating", "active")
        return self._shown_image(image_id)

    # --- firewall rules ---

    def _rules(self, request: Request, rest: list[str], body: dict[str, Any]) -> Answer:
        match request.method, rest:
            case "GET", []:
                return as_json(200, list(self.cloud.rules.values()))
            case "POST", []:
                if "rule" not in body:
                    raise missing("rule")
                rule_id = str(uuid.uuid4())
                rule = {"id": rule_id, "rule": _canonical(body["rule"]), "enabled": bool(body.get("enabled", False))}
                if "description" in body:
                    rule["description"] = body["description"]
                self.cloud.rules[rule_id] = rule
                return as_json(201, rule)
        if rest[0] not in self.cloud.rules:
            raise unknown("firewall rule")
        if request.method == "DELETE":
            del self.cloud.rules[rest[0]]
            return Answer(204)
        return as_json(200, self.cloud.rules[rest[0]])

    # --- the fabric ---

    def _fabric(self, request: Request, rest: list[str], body: dict[str, Any]) -> Answer:
        match request.method, rest:
            case "GET", []:
                return as_json(200, list(self.cloud.vlans.values()))
            case "POST", []:
                return as_json(201, self._create_vlan(body))
        number = int(rest[0]) if rest[0].isdigit() else -1
        if number not in self.cloud.vlans:
            raise unknown("VLAN")
        on = {network_id: n for network_id, (vlan, n) in self.cloud.networks.items() if vlan == number}
        match request.method, rest[1:]:
            case "GET", []:
                return as_json(200, self.cloud.vlans[number])
            case "DELETE", []:
                if on:
                    raise Refused(409, "InUseError", "The VLAN currently has active networks on it")
                del self.cloud.vlans[number]
                return Answer(204)
            case "GET", ["networks"]:
                return as_json(200, list(on.values()))
            case "POST", ["networks"]:
                return as_json(201, self._create_network(number, body))
            case "DELETE", ["networks", network_id]:
                return self._delete_network(network_id)
        raise unknown(request.path)

    def _create_vlan(self, body: dict[str, Any]) -> dict[str, Any]:
        for name in ("vlan_id", "name"):
            if name not in body:
                raise missing(name)
        number = body["vlan_id"]
        if not isinstance(number, int) or not 0 <= number <= 4095:
            raise invalid("vlan_id must be a number between 0 and 4095")
        if number in self.cloud.vlans or any(v["name"] == body["name"] for v in self.cloud.vlans.values()):
            raise Refused(409, "InUseError", "the VLAN's number and name must be unique")
        self.cloud.vlans[number] = {name: body[name] for name in ("vlan_id", "name", "description") if name in body}
        return self.cloud.vlans[number]

    def _create_network(self, number: int, body: dict[str, Any]) -> dict[str, Any]:
        for name in ("name", "subnet", "provision_start_ip", "provision_end_ip"):
            if name not in body:
                raise missing(name)
        try:
            subnet = ip_network(body["subnet"])
            ends = [ip_address(body[name]) for name in ("provision_start_ip", "provision_end_ip")]
        except ValueError as error:
            raise invalid(str(error)) from None
        if not subnet.is_private or any(end not in subnet for end in ends):
            raise invalid("the subnet must be private, and the provisioned addresses in it")
        if body.get("internet_nat", True) and "gateway" not in body:
            raise invalid("a gateway is needed for internet_nat")
        for other_vlan, other in self.cloud.networks.values():
            if other["name"] == body["name"]:
                raise Refused(409, "InUseError", "the network's name must be unique")
            if other_vlan == number and subnet.overlaps(ip_network(other["subnet"])):
                raise Refused(409, "InUseError", "the subnet overlaps another one")
        network = {"id": str(uuid.uuid4()), "public": False, "fabric": True, "vlan_id": number} | body
        self.cloud.networks[network["id"]] = (number, network)
        return network

    def _delete_network(self, network_id: str) -> Answer:
        if network_id not in self.cloud.networks:
            raise unknown("network")
        if any(network_id in m.networks and m.state.read() != "deleted" for m in self.cloud.machines.values()):
            raise Refused(409, "InUseError", "instances are provisioned on the network")
        del self.cloud.networks[network_id]
        return Answer(204)


def _package(name: str, memory: int, vcpus: int, disk: int) -> dict[str, Any]:
    numbers = {"memory": memory, "disk": disk, "swap": memory * 4, "lwps": 4000, "vcpus": vcpus}
    return {"id": str(uuid.uuid4()), "name": name, "version": "1.0.3", "group": "g4", "default": False, **numbers}


def _image(image_id: str, name: str, *, public: bool = False, tags: dict[str, str] | None = None) -> dict[str, Any]:
    return {
        "id": image_id,
        "name": name,
        "version": "1.0.0",
        "os": "linux",
        "type": "zvol",
        "requirements": {},
        "published_at": "2016-01-04T12:55:50.539Z",
        "owner": "930896af-bf8c-48d4-885c-6573a94b1853",
        "public": public,
        "tags": tags or {},
    }


def _uuid(text: str) -> None:
    try:
        uuid.UUID(text)
    except ValueError:
        raise invalid(f"{text!r} is not a valid UUID") from None


def _canonical(text: str) -> str:
    """The rule as the firewall service writes it."""
    rule = _RULE.fullmatch(text)
    if rule is None:
        raise invalid("rule does not parse")
    try:
        if rule["net"]:
            ip_network(rule["net"])
        if rule["ip"]:
            ip_address(rule["ip"])
    except ValueError:
        raise invalid("rule does not parse: Subnet is invalid") from None
    return (
        f'FROM {rule["source"]} TO tag "{rule["tag"]}" {rule["action"].upper()} {rule["protocol"].lower()} '
        f"PORT {rule['port']}"
    )
