"""A stub of a cloud that speaks OCCI 1.2, from the published standard: core and infrastructure (GFD.221, 224), HTTP
protocol (223), text (229) and JSON (226) renderings. Computes run nothing. It shares no code with the project's own
renderings."""

from __future__ import annotations

import ipaddress
import json
import re
import uuid
from base64 import b64decode
from dataclasses import dataclass, field
from typing import Any

from tests.labs.stub import Answer, Changing, Request, StubServer

USERNAME, PASSWORD = "occi-user", "password of the stub"
IMAGE = "debian-8"
SCHEMA = "http://schemas.ogf.org/occi"
INFRA = f"{SCHEMA}/infrastructure#"
OS, SIZE = "http://occi.example.org/templates/os#", "http://occi.example.org/templates/resource#"
IP, USER_DATA = f"{SCHEMA}/infrastructure/network#ipnetwork", f"{SCHEMA}/infrastructure/compute#user_data"
_PLAIN, _HEADERS, _JSON = "text/plain", "text/occi", "application/occi+json"
_TERMS = ("compute", "storage", "network", "storagelink", "networkinterface")
_STATE = {"compute": "occi.compute.state", "storage": "occi.storage.state", "network": "occi.network.state"}
_STATE |= {"storagelink": "occi.storagelink.state", "networkinterface": "occi.networkinterface.state"}
_SETTABLE = {
    "compute": {"architecture", "cores", "hostname", "share", "memory", "userdata"},
    "storage": {"size"},
    "network": {"vlan", "label", "address", "gateway", "allocation"},
    "storagelink": {"deviceid", "mountpoint"},
    "networkinterface": {"mac", "address", "gateway", "allocation"},
}
_MIXINS = {
    f"{OS}{IMAGE}": ("Debian 8", "os_tpl", {}),
    f"{SIZE}small": ("Small", "resource_tpl", {"occi.compute.cores": 1, "occi.compute.memory": 0.5}),
    f"{SIZE}large": ("Large", "resource_tpl", {"occi.compute.cores": 4, "occi.compute.memory": 8.0}),
    f"{INFRA}os_tpl": ("OS templates", "", {}),
    f"{INFRA}resource_tpl": ("Resource templates", "", {}),
    IP: ("IP networks", "", {}),
    USER_DATA: ("Contextualization", "", {}),
}


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


@dataclass
class Entity:
    """A resource or a link."""

    id: str
    term: str
    mixins: list[str]
    attributes: dict[str, Any]
    state: Changing

    @property
    def location(self) -> str:
        """Where it is, below the service's root."""
        return f"/{self.term}/{self.id}"

    def shown(self) -> dict[str, Any]:
        """Its attributes with its state."""
        return self.attributes | {"occi.core.id": self.id, _STATE[self.term]: self.state.read()}


@dataclass
class Asked:
    """What a request's body or headers say."""

    categories: list[tuple[str, str]] = field(default_factory=list)
    """Types and classes."""
    attributes: dict[str, Any] = field(default_factory=dict)


class OcciServer(StubServer):
    """The stub, its service at ``root``. ``mixins`` can be taken away. Without ``summaries`` those of resources are
    lost; with ``own_links`` a link is shown as its own target, the real one among its attributes, as by ooi 1.2.0."""

    def __init__(self, *, root: str = "/occi", summaries: bool = True, own_links: bool = False) -> None:
        super().__init__()
        self.root, self.summaries, self.own_links = root, summaries, own_links
        self.mixins = dict(_MIXINS)
        self.entities: dict[str, Entity] = {}

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        server = (("Server", "stub OCCI/1.2"),)
        try:
            if "OCCI/1.2" not in request.headers.get("user-agent", ""):
                raise Refused(501, "OCCI/1.2 is spoken here")
            self._authenticate(request)
            answer = self._routed(request)
        except Refused as error:
            answer = Answer(error.status, str(error).encode(), (("Content-Type", _PLAIN),))
        return Answer(answer.status, answer.body, (*answer.headers, *server))

    def _authenticate(self, request: Request) -> None:
        scheme, _, pair = (request.headers.get("authorization") or "").partition(" ")
        token = request.headers.get("x-auth-token")
        if token != PASSWORD and (scheme != "Basic" or b64decode(pair).decode() != f"{USERNAME}:{PASSWORD}"):
            raise Refused(401, "unauthorized")

    def _routed(self, request: Request) -> Answer:
        if not request.path.startswith(f"{self.root}/"):
            raise Refused(404, "not found")
        path = request.path.removeprefix(self.root)
        accepted = [part.split(";")[0].strip() for part in request.headers.get("accept", _PLAIN).split(",")]
        form = next((form for form in (_PLAIN, _HEADERS, _JSON) if form in accepted), None)
        if form is None:
            raise Refused(406, "not acceptable")
        if path == "/-/" and request.method == "GET":
            return self._categories(form)
        match = re.fullmatch(r"/(\w+)/([^/]*)", path)
        if not match or match[1] not in _TERMS:
            raise Refused(404, "not found")
        if not match[2]:
            return self._collection(request, match[1], form)
        entity = self.entities.get(path)
        if entity is None:
            raise Refused(404, "not found")
        if request.method == "GET":
            return self._render(entity, form)
        if request.method == "DELETE":
            return self._delete(entity)
        if "action" in request.query:
            return self._act(entity, request, form)
        raise Refused(405, "method not allowed")

    # --- collections ---

    def _collection(self, request: Request, term: str, form: str) -> Answer:
        if request.method == "POST":
            entity = self._create(term, self._asked(request))
            return Answer(201, b"", (("Location", f"{self.url}{self.root}{entity.location}"), ("Content-Type", form)))
        if request.method != "GET":
            raise Refused(405, "method not allowed")
        found = [entity for entity in self.entities.values() if entity.term == term]
        if "number" in request.query:
            number, page = int(request.query["number"]), int(request.query["page"])
            found = found[(page - 1) * number : page * number]
        if form == _JSON:
            name = "links" if term.endswith(("link", "interface")) else "resources"
            return _json({name: [self._as_json(entity) for entity in found]})
        places = [("X-OCCI-Location", f"{self.url}{self.root}{entity.location}") for entity in found]
        return _text(places, form)

    def _create(self, term: str, asked: Asked) -> Entity:
        types = [type_ for type_, _ in asked.categories]
        if f"{INFRA}{term}" not in types:
            raise Refused(400, "the kind is missing")
        mixins = [type_ for type_ in types if type_ != f"{INFRA}{term}"]
        if any(mixin not in self.mixins for mixin in mixins):
            raise Refused(400, "a mixin is unknown")
        for name in asked.attributes:
            prefix, _, rest = name.removeprefix("occi.").partition(".")
            if not (prefix == term and rest in _SETTABLE[term]) and name not in _core(term):
                raise Refused(400, f"{name} is not an attribute that can be set")
        if not self.summaries:
            asked.attributes.pop("occi.core.summary", None)
        entity = Entity(str(uuid.uuid4()), term, mixins, asked.attributes, Changing("inactive", "active"))
        getattr(self, f"_made_{term}")(entity)
        self.entities[entity.location] = entity
        return entity

    def _made_compute(self, entity: Entity) -> None:
        if sum(mixin.startswith(OS) for mixin in entity.mixins) != 1:
            raise Refused(400, "one OS template is required")
        if "occi.compute.userdata" in entity.attributes and USER_DATA not in entity.mixins:
            raise Refused(400, "occi.compute.userdata is the mixin user_data's")
        for mixin in entity.mixins:
            entity.attributes |= self.mixins[mixin][2]
        entity.state.begin("inactive", "active")

    def _made_storage(self, entity: Entity) -> None:
        size = entity.attributes.get("occi.storage.size")
        if not isinstance(size, int | float) or isinstance(size, bool) or size <= 0:
            raise Refused(400, "occi.storage.size must be a number")
        entity.state.begin("offline", "online")

    def _made_network(self, entity: Entity) -> None:
        if address := entity.attributes.get("occi.network.address"):
            if IP not in entity.mixins:
                raise Refused(400, "occi.network.address is the mixin ipnetwork's")
            ipaddress.ip_network(address, strict=False)
        entity.state.begin("inactive", "active")

    def _made_storagelink(self, entity: Entity) -> None:
        self._ends(entity, "storage")
        target = entity.attributes["occi.core.target"]
        taken = [e for e in self.entities.values() if e.attributes.get("occi.core.target") == target]
        if taken:
            raise Refused(409, "the storage is linked already")
        entity.attributes.setdefault("occi.storagelink.deviceid", "/dev/vdb")
        entity.state.begin("inactive", "active")

    def _made_networkinterface(self, entity: Entity) -> None:
        self._ends(entity, "network")
        entity.attributes |= {
            "occi.networkinterface.interface": "eth0",
            "occi.networkinterface.mac": "02:00:00:00:00:01",
        }
        entity.attributes["occi.networkinterface.address"] = "192.0.2.17"
        entity.state.begin("inactive", "active")

    def _ends(self, entity: Entity, term: str) -> None:
        for name, kind in (("occi.core.source", "compute"), ("occi.core.target", term)):
            reference = str(entity.attributes.get(name, "")).removeprefix(self.url)
            place = reference.removeprefix(self.root)
            if place == reference or place not in self.entities or self.entities[place].term != kind:
                raise Refused(400, f"{name} is no {kind}")
            entity.attributes[name] = place

    def _links(self, entity: Entity) -> list[Entity]:
        ends = ("occi.core.source", "occi.core.target")
        return [e for e in self.entities.values() if any(e.attributes.get(end) == entity.location for end in ends)]

    def _delete(self, entity: Entity) -> Answer:
        links = self._links(entity)
        if links and entity.term != "compute":
            raise Refused(409, "the resource is linked")
        for link in (*links, entity):
            del self.entities[link.location]
        return Answer(204)

    # --- actions ---

    def _actions(self, entity: Entity) -> list[str]:
        if entity.term != "compute" or entity.state.then:
            return []
        terms = {"active": ("stop", "restart", "suspend"), "inactive": ("start",)}.get(entity.state.read(), ("start",))
        return [f"{SCHEMA}/infrastructure/compute/action#{term}" for term in terms]

    def _act(self, entity: Entity, request: Request, form: str) -> Answer:
        entity.state.read()
        asked, term = self._asked(request), request.query["action"]
        if asked.categories != [(f"{SCHEMA}/infrastructure/compute/action#{term}", "action")]:
            raise Refused(400, "the action in the URL is not the one that is invoked")
        if asked.categories[0][0] not in self._actions(entity):
            raise Refused(409, f"{term} is not possible now")
        if term in ("start", "stop"):
            entity.state.begin(entity.state.read(), "active" if term == "start" else "inactive")
        return self._render(entity, form)

    # --- reading ---

    def _asked(self, request: Request) -> Asked:
        if request.media_type == _JSON:
            return self._asked_in_json(json.loads(request.body))
        if request.media_type == _HEADERS:
            pairs = [
                (name, value)
                for name, value in request.headers.items()
                if name.lower() in ("category", "x-occi-attribute")
            ]
        elif request.media_type == _PLAIN:
            lines = [line for line in request.body.decode().split("\r\n") if line]
            pairs = [(name.strip(), value.strip()) for name, _, value in (line.partition(":") for line in lines)]
        else:
            raise Refused(400, f"content type {request.media_type!r} is not spoken here")
        asked = Asked()
        for name, value in pairs:
            if name.lower() == "category":
                for one in re.finditer(r'([\w.-]+);\s*scheme="([^"]*)";\s*class="?(kind|mixin|action)"?', value):
                    asked.categories.append((one[2] + one[1], one[3]))
            else:
                for one in re.finditer(r'([\w.-]+)=("(?:[^"\\]|\\.)*"|[^,\s]+)', value):
                    asked.attributes[one[1]] = _value(one[2])
        return asked

    def _asked_in_json(self, value: dict[str, Any]) -> Asked:
        if "action" in value:
            return Asked([(value["action"], "action")], value.get("attributes", {}))
        attributes = dict(value.get("attributes", {}))
        for name in ("title", "summary"):
            if name in value:
                attributes[f"occi.core.{name}"] = value[name]
        for end in ("source", "target"):
            if end in value:
                attributes[f"occi.core.{end}"] = value[end]["location"]
        return Asked([(value["kind"], "kind"), *((mixin, "mixin") for mixin in value.get("mixins", []))], attributes)

    # --- writing ---

    def _categories(self, form: str) -> Answer:
        if form == _JSON:
            kinds = [{"term": t, "scheme": INFRA, "location": f"{self.root}/{t}/", "title": t} for t in _TERMS]
            return _json({"kinds": kinds, "mixins": [self._mixin(m) for m in self.mixins], "actions": []})
        lines = []
        for term in _TERMS:
            place = f"{self.url}{self.root}/{term}/"
            named = f'attributes="{_STATE[term]}{{immutable}} occi.core.title"'
            lines += [("Category", f'{term}; scheme="{INFRA}"; class="kind"; location="{place}"; {named}')]
        lines += [("Category", self._mixin_in_text(type_)) for type_ in self.mixins]
        return _text(lines, form)

    def _mixin_in_text(self, type_: str) -> str:
        title, depends, _ = self.mixins[type_]
        scheme, _, term = type_.rpartition("#")
        rel = f'; rel="{INFRA}{depends}"' if depends else ""
        return f'{term}; scheme="{scheme}#"; class="mixin"; title="{title}"{rel}; location="/mixin/{term}/"'

    def _mixin(self, type_: str) -> dict[str, Any]:
        title, depends, defaults = self.mixins[type_]
        scheme, _, term = type_.rpartition("#")
        described = {name: {"type": "number", "default": value} for name, value in defaults.items()}
        shown = {"term": term, "scheme": f"{scheme}#", "title": title, "location": f"/mixin/{term}/"}
        return shown | {"attributes": described, "depends": [f"{INFRA}{depends}"] if depends else []}

    def _render(self, entity: Entity, form: str) -> Answer:
        if form == _JSON:
            return _json(self._as_json(entity))
        lines = [("Category", f'{entity.term}; scheme="{INFRA}"; class="kind"')]
        named = [mixin.rpartition("#") for mixin in entity.mixins]
        lines += [("Category", f'{term}; scheme="{scheme}#"; class="mixin"') for scheme, _, term in named]
        if entity.term == "compute":
            lines += [("Link", self._link(link)) for link in self._links(entity)]
        for action in self._actions(entity):
            place = f"{self.root}{entity.location}?action={action.rpartition('#')[2]}"
            lines.append(("Link", f'<{place}>; rel="{action}"'))
        lines += [("X-OCCI-Attribute", f"{name}={_shown(value)}") for name, value in entity.shown().items()]
        return _text(lines, form)

    def _link(self, link: Entity) -> str:
        target = self.entities[link.attributes["occi.core.target"]]
        hidden = () if self.own_links else ("occi.core",)
        shown = "".join(f"; {n}={_shown(v)}" for n, v in link.shown().items() if not n.startswith(hidden))
        place = self.root + (link if self.own_links else target).location
        ends = f'<{place}>; rel="{INFRA}{target.term}"; self="{self.root}{link.location}"'
        return f'{ends}; category="{INFRA}{link.term}"{shown}'

    def _as_json(self, entity: Entity) -> dict[str, Any]:
        attributes = entity.shown()
        shown: dict[str, Any] = {"kind": f"{INFRA}{entity.term}", "mixins": entity.mixins, "id": entity.id}
        shown["actions"] = self._actions(entity)
        for name in ("title", "summary"):
            if f"occi.core.{name}" in attributes:
                shown[name] = attributes[f"occi.core.{name}"]
        for end in ("source", "target"):
            if f"occi.core.{end}" in attributes:
                place = attributes[f"occi.core.{end}"]
                shown[end] = {"location": self.root + place, "kind": f"{INFRA}{self.entities[place].term}"}
        shown["attributes"] = {n: v for n, v in attributes.items() if not n.startswith("occi.core.")}
        if entity.term == "compute":
            shown["links"] = [self._as_json(link) for link in self._links(entity)]
        return shown


def _core(term: str) -> set[str]:
    names = {"occi.core.title", "occi.core.summary"}
    return (
        {"occi.core.title", "occi.core.source", "occi.core.target"} if term.endswith(("link", "interface")) else names
    )


def _value(text: str) -> Any:
    if text.startswith('"'):
        return re.sub(r"\\(.)", r"\1", text[1:-1])
    if text in ("true", "false"):
        return text == "true"
    return float(text) if "." in text else int(text)


def _shown(value: Any) -> str:
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return str(value)
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _json(value: Any) -> Answer:
    return Answer(200, json.dumps(value).encode(), (("Content-Type", _JSON),))


def _text(lines: list[tuple[str, str]], form: str) -> Answer:
    if form == _PLAIN:
        body = "".join(f"{name}: {value}\r\n" for name, value in lines).encode()
        return Answer(200, body, (("Content-Type", f"{_PLAIN}; charset=utf-8"),))
    names = dict.fromkeys(name for name, _ in lines)
    joined = [(name, ", ".join(value for other, value in lines if other == name)) for name in names]
    return Answer(200, b"OK", (("Content-Type", _HEADERS), *joined))
