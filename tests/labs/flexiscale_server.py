"""A stub of the user API 5.0 of Flexiant Cloud Orchestrator, on which Flexiscale runs, from its published endpoints and
objects. Every change is a job that ends a moment later. Servers run nothing."""

from __future__ import annotations

import json
import time
import uuid
from base64 import b64decode
from collections.abc import Callable
from typing import Any

from tests.labs.stub import SETTLING, Answer, Request, StubServer, as_json

USERNAME, PASSWORD = "user@example.com/3f2504e0-4f89-41d3-9a0c-0305e82c3301", "password of the stub"
IMAGE, VDC, NETWORK, CLUSTER = (f"00000000-0000-4000-8000-00000000000{n}" for n in range(1, 5))
DISK_OFFER, SMALL, LARGE = (f"00000000-0000-4000-8000-0000000000{n}" for n in range(10, 13))
IMAGE_SIZE = 20
"""GiB."""
_SKELETONS = {
    "server": "skeletonServer",
    "disk": "skeletonDisk",
    "snapshot": "skeletonSnapshot",
    "image": "skeletonImage",
    "sshkey": "skeletonSSHKey",
}
_NEEDED = {
    "server": ("resourceName", "vdcUUID", "productOfferUUID", "imageUUID"),
    "disk": ("resourceName", "vdcUUID", "productOfferUUID", "size"),
    "snapshot": ("resourceName", "vdcUUID", "parentUUID", "type"),
    "image": ("resourceName", "vdcUUID", "baseUUID"),
    "sshkey": ("resourceName", "publicKey"),
}

Resource = dict[str, Any]


class Refused(Exception):
    """An error answer."""

    def __init__(self, status: int, code: str, message: str) -> None:
        super().__init__(message)
        self.status, self.code = status, code


def wrong(message: str) -> Refused:
    """A request that the API does not accept."""
    return Refused(400, "ILLEGAL_ARGUMENT", message)


class FlexiscaleServer(StubServer):
    """The stub. ``failing`` jobs end as failed."""

    def __init__(self, *, page: int = 200) -> None:
        super().__init__()
        self.page = page
        self.held: dict[str, dict[str, Resource]] = {kind: {} for kind in (*_SKELETONS, "productoffer", "job")}
        self.pending: list[tuple[float, Resource, Callable[[], None]]] = []
        self.failing = False
        offers = ((SMALL, "cpu=1 ram=512"), (LARGE, "cpu=2 ram=2048"), (DISK_OFFER, "size="))
        for offer, values in offers:
            pairs = [pair.split("=") for pair in values.split()]
            component = {"productConfiguredValues": [{"key": k, "value": v or None, "name": k} for k, v in pairs]}
            self.held["productoffer"][offer] = _resource("PRODUCTOFFER", offer, values) | {
                "componentConfig": [component]
            }
        self.held["image"][IMAGE] = _resource("IMAGE", IMAGE, "Debian 8") | {"size": IMAGE_SIZE, "imageType": "SERVER"}

    def answer(self, request: Request) -> Answer:
        """See :class:`~tests.labs.stub.StubServer`."""
        self._settle()
        try:
            self._authenticate(request)
            return as_json(200, self._routed(request))
        except Refused as error:
            return as_json(error.status, {"errorCode": error.code, "message": str(error)})

    def _authenticate(self, request: Request) -> None:
        scheme, _, pair = (request.headers.get("authorization") or "").partition(" ")
        if scheme != "Basic" or b64decode(pair).decode() != f"{USERNAME}:{PASSWORD}":
            raise Refused(401, "UNAUTHORIZED", "The credentials are unsuitable or missing")

    def _routed(self, request: Request) -> Any:
        if request.parts[:4] != ["rest", "user", "5.0", "resources"]:
            raise Refused(404, "NOT_FOUND", "no such endpoint")
        body = self._body(request)
        match request.method, request.parts[4:]:
            case "POST", [kind, "list"] if kind in self.held:
                return self._list(kind, body)
            case "GET", [kind, identifier] if kind in self.held:
                return self._get(kind, identifier)
            case "POST", [kind] if kind in _SKELETONS:
                return self._create(kind, body)
            case "DELETE", [kind, identifier] if kind in _SKELETONS:
                return self._delete(kind, identifier, request.query.get("cascade") == "true")
            case "PUT", ["server", identifier, "change_status"]:
                return self._change(self._get("server", identifier), body)
            case "PUT", ["server", server, "disk", disk, "attach"]:
                return self._attach(self._get("server", server), self._get("disk", disk), body)
            case "PUT", ["server", server, "disk", disk, "detach"]:
                return self._detach(self._get("server", server), self._get("disk", disk))
        raise Refused(404, "NOT_FOUND", "no such endpoint")

    def _body(self, request: Request) -> dict[str, Any]:
        if not request.body:
            return {}
        if request.media_type != "application/json":
            raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", "JSON is spoken here")
        body = json.loads(request.body)
        if not isinstance(body, dict):
            raise wrong("the body is no object")
        return body

    # --- jobs ---

    def _job(self, item: str, end: Callable[[], None]) -> Resource:
        job = _resource("JOB", str(uuid.uuid4()), "job") | {
            "itemUUID": item,
            "status": "IN_PROGRESS",
            "errorCode": None,
        }
        self.held["job"][job["resourceUUID"]] = job
        self.pending.append((time.monotonic() + SETTLING, job, end))
        return job

    def _settle(self) -> None:
        now = time.monotonic()
        due = [entry for entry in self.pending if entry[0] <= now]
        self.pending = [entry for entry in self.pending if entry[0] > now]
        for _, job, end in due:
            if self.failing:
                job |= {"status": "FAILED", "errorCode": "INSUFFICIENT_RESOURCES"}
            else:
                end()
                job["status"] = "SUCCESSFUL"

    # --- resources ---

    def _get(self, kind: str, identifier: str) -> Resource:
        if identifier not in self.held[kind]:
            raise Refused(404, "RESOURCE_NOT_FOUND", f"{kind} {identifier} was not found")
        found = self.held[kind][identifier]
        if kind != "server":
            return found
        disks = [disk for disk in self.held["disk"].values() if disk.get("serverUUID") == identifier]
        return found | {"disks": sorted(disks, key=lambda disk: disk["index"])}

    def _list(self, kind: str, body: dict[str, Any]) -> dict[str, Any]:
        limit = body.get("queryLimit", {})
        start = int(limit.get("from", 0))
        most = min(int(limit.get("maxRecords", self.page)), self.page)
        found = [self._get(kind, identifier) for identifier in self.held[kind]]
        page = found[start : start + most]
        return {"listFrom": start, "listTo": start + len(page), "totalCount": len(found), "list": page}

    def _create(self, kind: str, body: dict[str, Any]) -> Resource:
        skeleton = body.get(_SKELETONS[kind])
        if not isinstance(skeleton, dict):
            raise wrong(f"{_SKELETONS[kind]} is required")
        for name in _NEEDED[kind]:
            if not skeleton.get(name):
                raise wrong(f"{name} is required")
        if skeleton.get("resourceType") != kind.upper():
            raise wrong("resourceType is wrong")
        if skeleton.get("vdcUUID", VDC) != VDC or any(k["type"] != "USER_KEY" for k in skeleton.get("resourceKey", [])):
            raise wrong("the VDC is unknown, or a key is no user's")
        made = _resource(kind.upper(), str(uuid.uuid4()), skeleton["resourceName"]) | skeleton
        made |= {"resourceState": "CREATING", "customerUUID": USERNAME.partition("/")[2]}
        getattr(self, f"_made_{kind}")(made, body)
        self.held[kind][made["resourceUUID"]] = made
        return self._job(made["resourceUUID"], lambda: made.update(resourceState="ACTIVE"))

    def _offered(self, made: Resource, *offers: str) -> None:
        if made["productOfferUUID"] not in offers:
            raise wrong("the product offer is not for this")

    def _made_server(self, made: Resource, body: dict[str, Any]) -> None:
        self._offered(made, SMALL, LARGE)
        image = self._known("image", made["imageUUID"])
        for key in body.get("sshKeyUUIDList") or ():
            self._known("sshkey", key)
        if any(nic.get("networkUUID") != NETWORK for nic in made.get("nics", [])):
            raise wrong("the network is unknown")
        disks = made.pop("disks", [])
        if len(disks) != 1 or disks[0].get("productOfferUUID") != DISK_OFFER or disks[0].get("size") != image["size"]:
            raise wrong("one disk of the image's size is required")
        disk = _resource("DISK", str(uuid.uuid4()), "system") | disks[0]
        disk |= {"serverUUID": made["resourceUUID"], "index": 0, "status": "ATTACHED_TO_SERVER"}
        self.held["disk"][disk["resourceUUID"]] = disk
        made["nics"] = [{"ipAddresses": [{"ipAddress": f"192.0.2.{len(self.held['server']) % 250 + 1}"}]}]
        made |= {"status": "STOPPED", "sshKeys": body.get("sshKeyUUIDList", [])}

    def _known(self, kind: str, identifier: str) -> Resource:
        if identifier not in self.held[kind]:
            raise wrong(f"{kind} {identifier} is unknown")
        return self.held[kind][identifier]

    def _made_disk(self, made: Resource, body: dict[str, Any]) -> None:
        self._offered(made, DISK_OFFER)
        if not isinstance(made["size"], int) or made["size"] < 1:
            raise wrong("size must be a number of GB")
        if "imageUUID" in made and self._known("image", made["imageUUID"])["size"] > made["size"]:
            raise wrong("the image does not fit")
        if "snapshotUUID" in made and self._known("snapshot", made["snapshotUUID"])["size"] > made["size"]:
            raise wrong("the snapshot does not fit")
        made |= {"status": "NOT_ATTACHED_TO_SERVER", "serverUUID": None, "index": 0}

    def _made_snapshot(self, made: Resource, body: dict[str, Any]) -> None:
        made["size"] = self._known("disk", made["parentUUID"])["size"]

    def _made_image(self, made: Resource, body: dict[str, Any]) -> None:
        base = self.held["disk"].get(made["baseUUID"])
        if base is None:
            server = self._get("server", made["baseUUID"])
            if server["status"] != "STOPPED":
                raise Refused(409, "WRONG_STATE", "the server must not be running")
            base = server["disks"][0]
        made["size"] = base["size"]

    def _made_sshkey(self, made: Resource, body: dict[str, Any]) -> None:
        if len(made["publicKey"].split()) < 2:
            raise wrong("publicKey is no line of authorized_keys")

    def _delete(self, kind: str, identifier: str, cascade: bool) -> Resource:
        found = self._get(kind, identifier)
        if kind == "disk" and found.get("serverUUID"):
            raise Refused(409, "RESOURCE_IN_USE", "the disk is attached")
        if kind == "image" and not found.get("customerUUID"):
            raise Refused(403, "PERMISSION_DENIED", "the image is published by the provider")
        if kind == "server" and found["status"] != "STOPPED":
            raise Refused(409, "WRONG_STATE", "the server must not be running")
        if kind == "server" and found["disks"] and not cascade:
            raise Refused(409, "RESOURCE_IN_USE", "the server has disks")

        def end() -> None:
            self.held[kind].pop(identifier, None)
            for disk in found.get("disks", []):
                self.held["disk"].pop(disk["resourceUUID"], None)

        self.held[kind][identifier]["resourceState"] = "TO_BE_DELETED"
        return self._job(identifier, end)

    # --- servers ---

    def _change(self, server: Resource, body: dict[str, Any]) -> Resource:
        if "safe" not in body or body.get("newStatus") not in ("RUNNING", "STOPPED", "REBOOTING"):
            raise wrong("newStatus and safe are required")
        wanted = body["newStatus"]
        if server["resourceState"] != "ACTIVE" or server["status"] == wanted:
            raise Refused(409, "WRONG_STATE", f"the server is {server['status']}")
        kept = self.held["server"][server["resourceUUID"]]
        kept["status"] = "STARTING" if wanted == "RUNNING" else "STOPPING"
        return self._job(server["resourceUUID"], lambda: kept.update(status=wanted))

    def _attach(self, server: Resource, disk: Resource, body: dict[str, Any]) -> Resource:
        if not isinstance(body.get("index"), int):
            raise wrong("index is required")
        if server["status"] != "STOPPED":
            raise Refused(409, "WRONG_STATE", "The server must not be running when the call is made")
        if disk.get("serverUUID") or disk["resourceState"] != "ACTIVE":
            raise Refused(409, "RESOURCE_IN_USE", "the disk is attached already")
        disk |= {"serverUUID": server["resourceUUID"], "index": body["index"], "status": "CANNOT_BE_ATTACHED_TO_SERVER"}
        return self._job(disk["resourceUUID"], lambda: disk.update(status="ATTACHED_TO_SERVER"))

    def _detach(self, server: Resource, disk: Resource) -> Resource:
        if server["status"] != "STOPPED" or disk.get("serverUUID") != server["resourceUUID"] or disk["index"] == 0:
            raise Refused(409, "WRONG_STATE", "the disk cannot be detached")
        disk |= {"status": "CANNOT_BE_ATTACHED_TO_SERVER"}
        free = {"serverUUID": None, "index": 0, "status": "NOT_ATTACHED_TO_SERVER"}
        return self._job(disk["resourceUUID"], lambda: disk.update(free))


def _resource(kind: str, identifier: str, name: str) -> Resource:
    fixed = {"resourceType": kind, "resourceUUID": identifier, "resourceName": name, "resourceState": "ACTIVE"}
    return fixed | {"clusterUUID": CLUSTER, "resourceKey": []}
