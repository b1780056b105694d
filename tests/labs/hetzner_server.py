"""A stub of the Hetzner Cloud API, version 1, written from its reference (https://docs.hetzner.cloud/reference/cloud).

It keeps servers, volumes, images, SSH keys, firewalls, floating addresses and networks in memory, and refuses what the
reference says is refused: unknown fields, bad names and labels, names that are taken, resources in other locations or
in use. Changes take a moment.
"""

from __future__ import annotations

import json
import re
import time
from collections.abc import Callable
from ipaddress import ip_network
from itertools import count
from typing import Any

from tests.labs.stub import Answer, Changing, Request, StubServer, as_json

TOKEN = "the-token-of-the-project"
IMAGE = 45557056
"""The id of a system image."""
LIMIT = 3600
LABEL_KEY = re.compile(r"([a-z0-9]([a-z0-9.-]*[a-z0-9])?/)?[A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?")
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([A-Za-z0-9_.-]{0,61}[A-Za-z0-9])?)?")
HOSTNAME = re.compile(r"[a-z0-9A-Z]([a-z0-9A-Z-]{0,61}[a-z0-9A-Z])?(\.[a-z0-9A-Z]([a-z0-9A-Z-]{0,61}[a-z0-9A-Z])?)*")
PUBLIC_KEY = re.compile(r"(ssh-ed25519|ssh-rsa|ecdsa-sha2-\S+) [A-Za-z0-9+/]{20,}=* ?.*")
NAMES = {
    "servers": "server",
    "volumes": "volume",
    "images": "image",
    "ssh_keys": "ssh_key",
    "firewalls": "firewall",
    "floating_ips": "floating_ip",
    "networks": "network",
    "server_types": "server_type",
    "locations": "location",
}
FIELDS = {
    "servers": "name server_type image location ssh_keys firewalls networks volumes automount user_data labels "
    "start_after_create public_net placement_group",
    "volumes": "name size location labels automount format server",
    "ssh_keys": "name public_key labels",
    "firewalls": "name rules labels apply_to",
    "floating_ips": "type name home_location labels description server",
    "networks": "name ip_range subnets routes labels expose_routes_to_vswitch",
}


class Refusal(Exception):
    """An error as the API tells it."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status = status
        self.code = code


def invalid(message: str) -> Refusal:
    """The request is not as it must be."""
    return Refusal(422, "invalid_input", message)


def _type(
    number: int, name: str, cores: int, memory: float, hourly: str, *, deprecated: bool = False
) -> dict[str, Any]:
    price = {
        "price_hourly": {"net": hourly, "gross": hourly},
        "price_monthly": {"net": "1", "gross": "1"},
        "included_traffic": 20 * 10**12,
        "price_per_tb_traffic": {"net": "1.0000000000", "gross": "1.1900000000"},
    }
    buyable = {"available": not deprecated, "recommended": False}
    gone = {"announced": "2026-01-01T00:00:00Z", "unavailable_after": "2026-02-01T00:00:00Z"}
    return {
        "id": number,
        "name": name,
        "description": name.upper(),
        "cores": cores,
        "memory": memory,
        "disk": 40,
        "prices": [{"location": place, **price} for place in ("fsn1", "hel1")],
        "architecture": "x86",
        "locations": [
            {"id": at, "name": place, "deprecation": gone if deprecated else None, **buyable}
            for at, place in enumerate(("fsn1", "hel1"), 1)
        ],
        "deprecated": deprecated,
    }


class HetznerServer(StubServer):
    """One project. ``page`` is the most that a list has on one page; when it is ``limited``, all is refused for so many
    seconds."""

    def __init__(self, *, page: int = 50) -> None:
        super().__init__()
        self.page = page
        self.limited: int | None = None
        self.deaf = False
        """Whether servers do not listen when they are asked to end."""
        self._ids = count(1001)
        self._changing: dict[tuple[str, int], Changing] = {}
        self.held: dict[str, dict[int, dict[str, Any]]] = {name: {} for name in NAMES}
        self.held["server_types"] = {
            1: _type(1, "cx22", 2, 4.0, "0.0060000000"),
            2: _type(2, "cx32", 4, 8.0, "0.0113000000"),
            3: _type(3, "cx11", 1, 2.0, "0.0050000000", deprecated=True),
        }
        self.held["locations"] = {
            1: {"id": 1, "name": "fsn1", "country": "DE", "city": "Falkenstein", "network_zone": "eu-central"},
            2: {"id": 2, "name": "hel1", "country": "FI", "city": "Helsinki", "network_zone": "eu-central"},
        }
        self.held["images"][IMAGE] = self._image("system", "debian-12", "Debian 12", {}) | {"id": IMAGE}

    # --- requests ---

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        left = str(LIMIT - 1 if self.limited is None else 0)
        reset = str(int(time.time()) + (self.limited or 1) + 1)
        limits = (("RateLimit-Limit", str(LIMIT)), ("RateLimit-Remaining", left), ("RateLimit-Reset", reset))
        try:
            if request.headers["Authorization"] != f"Bearer {TOKEN}":
                raise Refusal(401, "unauthorized", "unable to authenticate")
            if self.limited is not None:
                raise Refusal(429, "rate_limit_exceeded", "limit of 3600 requests per hour reached")
            status, told = self._answer(request)
        except Refusal as refusal:
            error = {"code": refusal.code, "message": str(refusal), "details": None}
            return as_json(refusal.status, {"error": error}, *limits)
        return Answer(204, b"", limits) if told is None else as_json(status, told, *limits)

    def _answer(self, request: Request) -> tuple[int, Any]:
        match request.method, request.parts:
            case "GET", ["v1", "pricing"]:
                price = {"price_per_gb_month": {"net": "0.0440000000", "gross": "0.0523600000"}}
                return 200, {"pricing": {"currency": "EUR", "vat_rate": "19.00", "volume": price}}
            case "GET", ["v1", kind] if kind in NAMES:
                return 200, self._list(kind, request.query)
            case "GET", ["v1", kind, id_] if kind in NAMES:
                return 200, {NAMES[kind]: self._told(kind, self._one(kind, id_))}
            case "POST", ["v1", kind] if kind in FIELDS:
                return 201, self._create(kind, self._body(request, FIELDS[kind]))
            case "DELETE", ["v1", kind, id_] if kind in FIELDS or kind == "images":
                return 200, self._delete(kind, self._one(kind, id_))
            case "POST", ["v1", kind, id_, "actions", action]:
                handler: Callable[..., Any] | None = getattr(self, f"_{NAMES.get(kind)}_{action}", None)
                if handler is not None:
                    return 201, handler(self._one(kind, id_), request)
        raise Refusal(404, "not_found", "no such call")

    def _body(self, request: Request, fields: str) -> dict[str, Any]:
        if request.media_type != "application/json":
            raise Refusal(400, "json_error", "the body is no JSON")
        body: dict[str, Any] = json.loads(request.body)
        if strange := body.keys() - set(fields.split()):
            raise invalid(f"unknown fields: {', '.join(sorted(strange))}")
        for label, value in body.get("labels", {}).items():
            if not LABEL_KEY.fullmatch(label) or not LABEL_VALUE.fullmatch(value):
                raise invalid(f"the label {label}={value} is not valid")
        return body

    def _list(self, kind: str, query: dict[str, str]) -> dict[str, Any]:
        found = [self._told(kind, one) for one in list(self.held[kind].values())]
        found = [one for one in found if one]
        if name := query.get("name"):
            found = [one for one in found if one["name"] == name]
        for term in filter(None, query.get("label_selector", "").split(",")):
            label, _, value = term.partition("=")
            found = [one for one in found if one["labels"].get(label) == value]
        page, size = int(query.get("page", 1)), int(query.get("per_page", 25))
        if not 1 <= size <= 50 or page < 1:
            raise invalid("per_page is from 1 to 50")
        size = min(size, self.page)
        more = len(found) > page * size
        pagination = {"page": page, "per_page": size, "next_page": page + 1 if more else None}
        return {kind: found[(page - 1) * size : page * size], "meta": {"pagination": pagination}}

    def _one(self, kind: str, id_: object) -> dict[str, Any]:
        number = int(str(id_)) if str(id_).isdecimal() else 0
        if number in self.held[kind] and self._told(kind, self.held[kind][number]):
            return self.held[kind][number]
        raise Refusal(404, "not_found", f"{NAMES[kind]} with ID '{id_}' not found")

    def _given(self, kind: str, id_: object) -> dict[str, Any]:
        """A resource that a request names."""
        try:
            return self._one(kind, id_)
        except Refusal as refusal:
            raise invalid(str(refusal)) from refusal

    def _told(self, kind: str, one: dict[str, Any]) -> dict[str, Any]:
        """What is said of a resource now; empty for one that is gone since."""
        changing = self._changing.get((kind, one["id"]))
        if changing is not None:
            one["status"] = changing.read()
            if one["status"] == "gone":
                self._gone(kind, one)
                return {}
        return one

    def _action(self) -> dict[str, Any]:
        return {
            "id": next(self._ids),
            "command": "do",
            "status": "running",
            "progress": 0,
            "started": "2026-01-01T00:00:00Z",
            "finished": None,
            "resources": [],
            "error": None,
        }

    # --- creating ---

    def _create(self, kind: str, asked: dict[str, Any]) -> dict[str, Any]:
        name = asked.get("name", "")
        if not name or len(name) > (64 if kind == "volumes" else 63 if kind == "servers" else 255):
            raise invalid(f"the name {name!r} is not valid")
        if any(one["name"] == name for one in self.held[kind].values()):
            raise Refusal(409, "uniqueness_error", f"the name {name} is taken")
        common = {
            "id": next(self._ids),
            "name": name,
            "labels": asked.get("labels", {}),
            "created": "2026-01-01T00:00:00Z",
        }
        made = common | getattr(self, f"_new_{NAMES[kind]}")(asked, common["id"])
        self.held[kind][made["id"]] = made
        return {
            NAMES[kind]: made,
            "action": self._action(),
            "next_actions": [],
            "actions": [],
            "root_password": None,
        }

    def _new_server(self, asked: dict[str, Any], id_: int) -> dict[str, Any]:
        if not HOSTNAME.fullmatch(asked["name"]):
            raise invalid("the name is no hostname")
        kinds = self.held["server_types"].values()
        kind = next((one for one in kinds if asked["server_type"] in (one["id"], one["name"])), None)
        if kind is None or kind["deprecated"]:
            raise invalid(f"there is no server type {asked['server_type']}")
        if len(asked.get("user_data", "")) > 32 * 1024:
            raise invalid("user_data is too long")
        image = self._given("images", asked["image"])
        volumes = [self._given("volumes", one) for one in asked.get("volumes", [])]
        for key in asked.get("ssh_keys", []):
            self._given("ssh_keys", key)
        firewalls = [self._given("firewalls", one["firewall"]) for one in asked.get("firewalls", [])]
        networks = [self._given("networks", one) for one in asked.get("networks", [])]
        for volume in volumes:
            if volume["server"] or volume["location"]["name"] != asked["location"]:
                raise invalid("a volume is attached, or elsewhere")
        for volume in volumes:
            volume["server"] = id_
        for firewall in firewalls:
            firewall["applied_to"].append({"type": "server", "server": {"id": id_}})
        for network in networks:
            network["servers"].append(id_)
        self._begin("servers", id_, "initializing", "running")
        return {
            "status": "initializing",
            "server_type": kind,
            "image": image,
            "volumes": [volume["id"] for volume in volumes],
            "public_net": {
                "ipv4": {"id": id_, "ip": f"203.0.113.{id_ % 250}", "blocked": False, "dns_ptr": ""},
                "ipv6": None,
                "floating_ips": [],
                "firewalls": [{"id": one["id"], "status": "applied"} for one in firewalls],
            },
            "private_net": [
                {"network": one["id"], "ip": f"10.0.0.{id_ % 250}", "alias_ips": [], "mac_address": "86:00:00:00:00:01"}
                for one in networks
            ],
            "location": self._location(asked["location"]),
            "user_data": asked.get("user_data"),
            "ssh_keys": asked.get("ssh_keys"),
        }

    def _new_volume(self, asked: dict[str, Any], id_: int) -> dict[str, Any]:
        if not 10 <= asked["size"] <= 10240:
            raise invalid("the size is from 10 to 10240 GB")
        self._begin("volumes", id_, "creating", "available")
        place = self._location(asked["location"])
        device = f"/dev/disk/by-id/scsi-0HC_Volume_{id_}"
        return {"status": "creating", "size": asked["size"], "server": None, "location": place, "linux_device": device}

    def _new_ssh_key(self, asked: dict[str, Any], _: int) -> dict[str, Any]:
        if not PUBLIC_KEY.fullmatch(asked["public_key"]):
            raise invalid("the public key is not valid")
        return {"public_key": asked["public_key"], "fingerprint": "b7:2f:30:a0:2f:6c:58:6c:21:04:58:61:ba:06:3b:2f"}

    def _new_firewall(self, asked: dict[str, Any], _: int) -> dict[str, Any]:
        for rule in asked.get("rules", []):
            for cidr in rule["source_ips"]:
                self._range(cidr)
            rule.setdefault("destination_ips", [])
            rule.setdefault("description", None)
        return {"rules": asked.get("rules", []), "applied_to": []}

    def _new_floating_ip(self, asked: dict[str, Any], id_: int) -> dict[str, Any]:
        if asked["type"] not in ("ipv4", "ipv6"):
            raise invalid("the type is ipv4 or ipv6")
        place = self._location(asked["home_location"])
        return {"type": "ipv4", "ip": f"198.51.100.{id_ % 250}", "server": None, "home_location": place, "dns_ptr": []}

    def _new_network(self, asked: dict[str, Any], _: int) -> dict[str, Any]:
        range_ = self._range(asked["ip_range"])
        if not range_.is_private:
            raise invalid("ip_range is not private")
        for subnet in asked.get("subnets", []):
            if not self._range(subnet["ip_range"]).subnet_of(range_) or subnet["network_zone"] != "eu-central":
                raise invalid("a subnet is not valid")
        return {"ip_range": str(range_), "subnets": asked.get("subnets", []), "routes": [], "servers": []}

    @staticmethod
    def _range(cidr: str) -> Any:
        try:
            return ip_network(cidr)
        except ValueError as error:
            raise invalid(str(error)) from error

    def _location(self, name: object) -> dict[str, Any]:
        for one in self.held["locations"].values():
            if name in (one["id"], one["name"]):
                return one
        raise invalid(f"there is no location {name}")

    def _image(self, type_: str, name: str | None, description: str, labels: dict[str, str]) -> dict[str, Any]:
        return {
            "id": next(self._ids),
            "type": type_,
            "status": "available",
            "name": name,
            "description": description,
            "image_size": 1.2,
            "disk_size": 10,
            "created": "2026-01-01T00:00:00Z",
            "labels": labels,
            "architecture": "x86",
        }

    # --- changing ---

    def _begin(self, kind: str, id_: int, now: str, then: str) -> None:
        changing = Changing(now)
        changing.begin(now, then)
        self._changing[kind, id_] = changing

    def _server_poweron(self, server: dict[str, Any], _: Request) -> dict[str, Any]:
        self._begin("servers", server["id"], "starting", "running")
        return {"action": self._action()}

    def _server_poweroff(self, server: dict[str, Any], _: Request) -> dict[str, Any]:
        self._begin("servers", server["id"], "stopping", "off")
        return {"action": self._action()}

    def _server_shutdown(self, server: dict[str, Any], request: Request) -> dict[str, Any]:
        if not self.deaf:
            self._server_poweroff(server, request)
        return {"action": self._action()}

    def _server_create_image(self, server: dict[str, Any], request: Request) -> dict[str, Any]:
        asked = self._body(request, "type description labels")
        made = self._image(asked["type"], None, asked["description"], asked["labels"])
        self.held["images"][made["id"]] = made
        self._begin("images", made["id"], "creating", "available")
        return {"image": made | {"status": "creating"}, "action": self._action()}

    def _volume_attach(self, volume: dict[str, Any], request: Request) -> dict[str, Any]:
        server = self._given("servers", self._body(request, "server automount")["server"])
        if volume["server"]:
            raise Refusal(422, "volume_already_attached", "the volume is attached")
        volume["server"] = server["id"]
        server["volumes"].append(volume["id"])
        return {"action": self._action()}

    def _volume_detach(self, volume: dict[str, Any], _: Request) -> dict[str, Any]:
        if not volume["server"]:
            raise Refusal(422, "volume_not_attached", "the volume is not attached")
        self.held["servers"][volume["server"]]["volumes"].remove(volume["id"])
        volume["server"] = None
        return {"action": self._action()}

    def _floating_ip_assign(self, address: dict[str, Any], request: Request) -> dict[str, Any]:
        address["server"] = self._given("servers", self._body(request, "server")["server"])["id"]
        return {"action": self._action()}

    def _floating_ip_unassign(self, address: dict[str, Any], _: Request) -> dict[str, Any]:
        address["server"] = None
        return {"action": self._action()}

    # --- destroying ---

    def _delete(self, kind: str, one: dict[str, Any]) -> dict[str, Any] | None:
        if kind == "servers":
            self._begin("servers", one["id"], "deleting", "gone")
            return {"action": self._action()}
        if kind == "images" and one["type"] != "snapshot":
            raise Refusal(403, "forbidden", "only snapshots and backups can be deleted")
        if kind == "volumes" and one["server"]:
            raise Refusal(409, "locked", "the volume is attached")
        if kind == "firewalls" and one["applied_to"]:
            raise Refusal(409, "resource_in_use", "the firewall is in use")
        self._gone(kind, one)
        return None

    def _gone(self, kind: str, one: dict[str, Any]) -> None:
        del self.held[kind][one["id"]]
        self._changing.pop((kind, one["id"]), None)
        if kind != "servers":
            return
        for volume in (*self.held["volumes"].values(), *self.held["floating_ips"].values()):
            if volume["server"] == one["id"]:
                volume["server"] = None
        for network in self.held["networks"].values():
            network["servers"] = [id_ for id_ in network["servers"] if id_ != one["id"]]
        for firewall in self.held["firewalls"].values():
            applied = firewall["applied_to"]
            firewall["applied_to"] = [use for use in applied if use["server"]["id"] != one["id"]]
