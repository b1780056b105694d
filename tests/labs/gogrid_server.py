"""A stub of GoGrid's API 1.8, from its published reference (wiki.gogrid.com) and the answers recorded in libcloud 3.7.
Servers run nothing. A server that was added has no id for a moment, as with GoGrid itself."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from hashlib import md5
from typing import Any

from tests.labs.stub import SETTLING, Answer, Changing, Request, StubServer, as_json

API_KEY, SECRET = "0123456789abcdef", "shared secret of the stub"
IMAGE, OWN_IMAGE = "1531", "5050"
WINDOW = 600
"""Seconds by which a signature's moment may differ."""
_RAM = {"1": "512MB", "2": "1GB", "3": "2GB", "4": "4GB", "5": "8GB"}


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def illegal(message: str) -> Refused:
    """A parameter is wrong."""
    return Refused(400, "IllegalArgumentException", message)


@dataclass
class Server:
    """A server."""

    id: int
    name: str
    description: str
    image: str
    ram: str
    ip: str
    state: Changing
    known_at: float = field(default_factory=lambda: time.monotonic() + SETTLING)
    sandbox: bool = False


@dataclass
class Balancer:
    """A load balancer."""

    id: int
    name: str
    description: str
    ip: str
    port: int
    members: list[tuple[str, int]]
    state: Changing


class GogridServer(StubServer):
    """The stub, for one API key, with ``addresses`` public addresses in US-West-1."""

    def __init__(self, addresses: int = 60) -> None:
        super().__init__()
        self.addresses = [f"192.0.2.{number}" for number in range(1, addresses + 1)]
        self.servers: dict[int, Server] = {}
        self.balancers: dict[int, Balancer] = {}
        self.images = {
            IMAGE: {"friendlyName": "CentOS 5.3 (32-bit) w/ None", "isPublic": True},
            OWN_IMAGE: {"friendlyName": "testimage", "isPublic": False},
        }
        self.number = 90_000

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        method = request.path.removeprefix("/api")
        try:
            query = request.query
            self._authenticate(query)
            items, total = self._routed(method, query)
        except Refused as error:
            item = {"errorcode": error.code, "message": str(error), "object": "error"}
            return as_json(error.status, _listed([item], method, "failure", 1))
        return as_json(200, _listed(items, method, "success", total))

    def _authenticate(self, query: dict[str, str]) -> None:
        for name in ("api_key", "sig", "v"):
            if name not in query:
                raise illegal(f"{name} is required")
        if query["v"] != "1.8" or query.get("format") != "json":
            raise illegal("version 1.8 in JSON is spoken here")
        now = int(time.time())
        right = (md5(f"{API_KEY}{SECRET}{now + d}".encode()).hexdigest() for d in _near())  # noqa: S324 - the API's own
        if query["api_key"] != API_KEY or query["sig"] not in right:
            raise Refused(403, "AuthenticationException", "Authentication failed")

    def _routed(self, method: str, query: dict[str, str]) -> tuple[list[dict[str, Any]], int]:
        lists: dict[str, Callable[[dict[str, str]], list[dict[str, Any]]]] = {
            "/common/lookup/list": self._lookup,
            "/grid/server/list": lambda _: [self._server(s) for s in self.servers.values()],
            "/grid/image/list": lambda _: [self._image(i) for i in self.images],
            "/grid/ip/list": self._list_ips,
            "/grid/loadbalancer/list": lambda _: [self._balancer(b) for b in self.balancers.values()],
        }
        calls: dict[str, Callable[[dict[str, str]], dict[str, Any]]] = {
            "/grid/server/get": lambda q: self._server(self._known_server(q)),
            "/grid/server/add": self._add_server,
            "/grid/server/delete": self._delete_server,
            "/grid/server/power": self._power,
            "/grid/image/get": lambda q: self._image(self._known_image(q)),
            "/grid/image/delete": self._delete_image,
            "/grid/loadbalancer/get": lambda q: self._balancer(self._known_balancer(q)),
            "/grid/loadbalancer/add": self._add_balancer,
            "/grid/loadbalancer/edit": self._edit_balancer,
            "/grid/loadbalancer/delete": self._delete_balancer,
        }
        if method in calls:
            return [calls[method](query)], 1
        if method not in lists:
            raise Refused(404, "NoSuchMethodException", f"{method} is not a method")
        items = lists[method](query)
        if "num_items" not in query:
            return items, len(items)
        size = int(query["num_items"])
        start = int(query.get("page", 0)) * size
        return items[start : start + size], len(items)

    def _new_id(self) -> int:
        self.number += 1
        return self.number

    # --- options and addresses ---

    def _lookup(self, query: dict[str, str]) -> list[dict[str, Any]]:
        options = {"server.ram": _RAM, "ip.datacenter": {"1": "US-West-1", "2": "US-East-1"}}
        if _required(query, "lookup") not in options:
            raise illegal("no such lookup")
        return [_option(int(number), name) for number, name in options[query["lookup"]].items()]

    def _taken(self) -> set[str]:
        return {s.ip for s in self.servers.values()} | {b.ip for b in self.balancers.values()}

    def _list_ips(self, query: dict[str, str]) -> list[dict[str, Any]]:
        if query.get("datacenter", "1") != "1":
            return []
        taken = self._taken()
        wanted = query.get("ip.state")
        shown = [(ip, "Assigned" if ip in taken else "Unassigned") for ip in self.addresses]
        return [self._ip(ip, state) for ip, state in shown if wanted in (None, state)]

    def _ip(self, ip: str, state: str = "Assigned") -> dict[str, Any]:
        number = self.addresses.index(ip) if ip in self.addresses else 999
        place = _option(1, "US-West-1")
        shown = {"id": 5_348_099 + number, "ip": ip, "public": True, "object": "ip", "datacenter": place}
        return shown | {"state": _option(2, state), "subnet": "192.0.2.0/255.255.255.0"}

    # --- servers ---

    def _known_server(self, query: dict[str, str]) -> Server:
        server = self.servers.get(_number(query))
        if server is None or time.monotonic() < server.known_at:
            raise illegal("No object found that matches your input criteria.")
        return server

    def _add_server(self, query: dict[str, str]) -> dict[str, Any]:
        name, image, ram = (_required(query, n) for n in ("name", "image", "server.ram"))
        ip = _required(query, "ip")
        if len(name) > 20:
            raise illegal("name has a limit of 20 characters")
        if image not in self.images:
            raise illegal(f"image {image} is invalid")
        if ram not in (*_RAM, *_RAM.values()):
            raise illegal(f"server.ram {ram} is invalid")
        if ip not in self.addresses or ip in self._taken():
            raise illegal(f"ip {ip} is not available")
        server = Server(
            self._new_id(), name, query.get("description", ""), image, _RAM.get(ram, ram), ip, Changing("Off")
        )
        server.state.begin("Starting", "On")
        self.servers[server.id] = server
        return self._server(server)

    def _delete_server(self, query: dict[str, str]) -> dict[str, Any]:
        server = self._known_server(query)
        del self.servers[server.id]
        for balancer in self.balancers.values():
            balancer.members = [member for member in balancer.members if member[0] != server.ip]
        return self._server(server)

    def _power(self, query: dict[str, str]) -> dict[str, Any]:
        server, power = self._known_server(query), _required(query, "power")
        state = server.state.read()
        changes = {
            "start": ("Off", "Starting", "On"),
            "stop": ("On", "Stopping", "Off"),
            "restart": ("On", "Restarting", "On"),
        }
        if power not in changes:
            raise illegal("power must be start, stop or restart")
        needed, during, after = changes[power]
        if state != needed:
            raise illegal(f"the server's state is {state}")
        server.state.begin(during, after)
        return self._server(server)

    def _server(self, server: Server) -> dict[str, Any]:
        shown = {
            "name": server.name,
            "description": server.description,
            "image": self._image(server.image) if server.image in self.images else {"id": int(server.image)},
            "ip": self._ip(server.ip),
            "isSandbox": server.sandbox,
            "object": "server",
            "ram": _option(1, server.ram),
            "state": _option(1, server.state.read()),
            "type": _option(1, "Web Server"),
        }
        return shown if time.monotonic() < server.known_at else {"id": server.id} | shown

    # --- images ---

    def _known_image(self, query: dict[str, str]) -> str:
        if str(_number(query)) not in self.images:
            raise illegal("No object found that matches your input criteria.")
        return query["id"]

    def _delete_image(self, query: dict[str, str]) -> dict[str, Any]:
        image = self._image(self._known_image(query))
        if image["isPublic"]:
            raise Refused(401, "UnauthorizedException", "the image is not yours")
        del self.images[query["id"]]
        return image

    def _image(self, image_id: str) -> dict[str, Any]:
        fixed = {"id": int(image_id), "object": "serverimage", "isActive": True, "price": 0}
        return fixed | {"state": _option(2, "Available"), "description": ""} | self.images[image_id]

    # --- load balancers ---

    def _known_balancer(self, query: dict[str, str]) -> Balancer:
        balancer = self.balancers.get(_number(query))
        if balancer is None:
            raise illegal("No object found that matches your input criteria.")
        return balancer

    def _add_balancer(self, query: dict[str, str]) -> dict[str, Any]:
        name, ip = _required(query, "name"), _required(query, "virtualip.ip")
        port = _required(query, "virtualip.port")
        if ip not in self.addresses or ip in self._taken():
            raise illegal(f"ip {ip} is not available")
        if query.get("loadbalancer.type", "Round Robin") not in ("Round Robin", "Least Connect"):
            raise illegal("loadbalancer.type is invalid")
        if not (members := self._members(query)):
            raise illegal("realiplist is required")
        balancer = Balancer(
            self._new_id(), name, query.get("description", ""), ip, int(port), members, Changing("Unknown")
        )
        balancer.state.begin("Unknown", "On")
        self.balancers[balancer.id] = balancer
        return self._balancer(balancer)

    def _members(self, query: dict[str, str]) -> list[tuple[str, int]]:
        members = []
        while (ip := query.get(f"realiplist.{len(members)}.ip")) is not None:
            if ip not in {server.ip for server in self.servers.values()}:
                raise illegal(f"real ip {ip} is invalid")
            members.append((ip, int(_required(query, f"realiplist.{len(members)}.port"))))
        return members

    def _edit_balancer(self, query: dict[str, str]) -> dict[str, Any]:
        balancer = self._known_balancer(query)
        if balancer.state.read() != "On":
            raise illegal("Update already pending")
        balancer.members = self._members(query)
        balancer.state.begin("Unknown", "On")
        return self._balancer(balancer)

    def _delete_balancer(self, query: dict[str, str]) -> dict[str, Any]:
        balancer = self._known_balancer(query)
        del self.balancers[balancer.id]
        return self._balancer(balancer)

    def _balancer(self, balancer: Balancer) -> dict[str, Any]:
        return {
            "id": balancer.id,
            "name": balancer.name,
            "description": balancer.description,
            "object": "loadbalancer",
            "virtualip": {"ip": self._ip(balancer.ip), "port": balancer.port, "object": "ipportpair"},
            "realiplist": [{"ip": self._ip(ip), "port": port} for ip, port in balancer.members],
            "type": _option(1, "Round Robin"),
            "state": _option(1, balancer.state.read()),
        }


def _near() -> list[int]:
    """Differences in seconds, the likeliest first."""
    return sorted(range(-WINDOW, WINDOW + 1), key=abs)


def _listed(items: list[dict[str, Any]], method: str, status: str, total: int) -> dict[str, Any]:
    summary = {"numpages": 0, "returned": len(items), "start": 0, "total": total}
    return {"list": items, "method": method, "status": status, "summary": summary}


def _option(number: int, name: str) -> dict[str, Any]:
    return {"id": number, "name": name, "description": name, "object": "option"}


def _required(query: dict[str, str], name: str) -> str:
    if name not in query:
        raise illegal(f"{name} is required")
    return query[name]


def _number(query: dict[str, str]) -> int:
    if not _required(query, "id").isdigit():
        raise illegal("id must be a number")
    return int(query["id"])
