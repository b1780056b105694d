"""A recorded CloudStack account that remembers: what is created is what was recorded, with what was asked for."""

from __future__ import annotations

import json
import threading
from base64 import b64decode
from collections.abc import Callable
from ipaddress import ip_network
from itertools import count
from typing import Any
from urllib.parse import parse_qsl, urlsplit

from tests.labs.libcloud_fixtures import recorded

Told = tuple[int, str, dict[str, str], str]
Asked = dict[str, str]


class Refused(Exception):
    """An error code of CloudStack's, and its words."""


def _recording(name: str) -> Any:
    return next(iter(json.loads(recorded("cloudstack", f"{name}.json")).values()))


def _job(number: object) -> Any:
    return _recording(f"queryAsyncJobResult_{number}")["jobresult"]


class Account:
    """Answers in place of libcloud's mock class; give it to :class:`~tests.labs.libcloud_fixtures.Recording`."""

    def __init__(self) -> None:
        self.machines = _recording("listVirtualMachines_default")["virtualmachine"]
        self.volumes = _recording("listVolumes_default")["volume"]
        self.snapshots = _recording("listSnapshots_default")["snapshot"]
        self.templates = _recording("listTemplates_default")["template"]
        self.keys = _recording("listSSHKeyPairs_default")["sshkeypair"]
        self.groups = _recording("listSecurityGroups_default")["securitygroup"]
        self._jobs: dict[str, Any] = {}
        self._numbers = count(300001)
        self._lock = threading.Lock()

    def _get_request(self, method: str, url: str, body: Any = None, headers: Any = None) -> Told:
        asked = dict(parse_qsl(urlsplit(url).query))
        command = asked["command"]
        answer: Callable[[Asked], Any] | None = getattr(self, f"_{command}", None)
        with self._lock:
            try:
                told = answer(asked) if answer else _recording(f"{command}_default")
            except Refused as refusal:
                code, words = refusal.args
                return code, json.dumps({f"{command.lower()}response": {"errorcode": code, "errortext": words}}), {}, ""
        return 200, json.dumps({f"{command.lower()}response": told}), {}, ""

    def _done(self, result: Any) -> Any:
        job = str(next(self._numbers))
        self._jobs[job] = {"jobid": job, "jobstatus": 1, "jobresult": result}
        return {"jobid": job}

    def _queryAsyncJobResult(self, asked: Asked) -> Any:  # noqa: N802 - CloudStack's name, as all below
        return self._jobs[asked["jobid"]]

    def _found(self, held: list[Any], asked_id: str) -> Any:
        for one in held:
            if str(one["id"]) == asked_id:
                return one
        raise Refused(431, f"Unable to find {asked_id}")

    # --- machines ---

    def _listVirtualMachines(self, asked: Asked) -> Any:  # noqa: N802
        return {"virtualmachine": self.machines}

    def _deployVirtualMachine(self, asked: Asked) -> Any:  # noqa: N802
        if any(machine["name"] == asked["name"] for machine in self.machines if machine["state"] != "Destroyed"):
            raise Refused(537, f"The vm with hostName {asked['name']} already exists")
        names = asked["securitygroupnames"].split(",") if asked.get("securitygroupnames") else []
        if not {*names} <= {group["name"] for group in self.groups}:
            raise Refused(431, f"Unable to find group by name {names}")
        if asked.get("keypair") not in (None, *(key["name"] for key in self.keys)):
            raise Refused(431, f"A key pair with name {asked['keypair']} was not found.")
        made = _job(17164)["virtualmachine"] | {
            "id": str(next(self._numbers)),
            "name": asked["name"],
            "displayname": asked["displayname"],
            "templateid": asked["templateid"],
            "serviceofferingid": asked["serviceofferingid"],
            "securitygroup": [{"name": name} for name in names],
            "state": "Running" if asked["startvm"] == "True" else "Stopped",
            "guestosid": 12,
        }
        root = _recording("listVolumes_default")["volume"][0]
        self.volumes.append(root | {"id": str(next(self._numbers)), "virtualmachineid": made["id"]})
        self.machines.append(made)
        return self._done({"virtualmachine": made})

    def _destroyVirtualMachine(self, asked: Asked) -> Any:  # noqa: N802
        machine = self._found(self.machines, asked["id"])
        machine["state"] = "Destroyed"
        for volume in [v for v in self.volumes if str(v.get("virtualmachineid")) == asked["id"]]:
            if volume["type"] == "ROOT":
                self.volumes.remove(volume)
            else:
                self._unplug(volume)
        return self._done({"virtualmachine": machine})

    def _startVirtualMachine(self, asked: Asked) -> Any:  # noqa: N802
        machine = self._found(self.machines, asked["id"])
        machine["state"] = "Running"
        return self._done({"virtualmachine": machine})

    def _stopVirtualMachine(self, asked: Asked) -> Any:  # noqa: N802
        machine = self._found(self.machines, asked["id"])
        machine["state"] = "Stopped"
        return self._done({"virtualmachine": machine})

    # --- volumes and snapshots ---

    def _listDiskOfferings(self, asked: Asked) -> Any:  # noqa: N802
        return _recording("listDiskOfferings_withcustomdisksize")

    def _listVolumes(self, asked: Asked) -> Any:  # noqa: N802
        wanted = asked.get("virtualmachineid")
        return {"volume": [v for v in self.volumes if wanted in (None, str(v.get("virtualmachineid")))]}

    def _createVolume(self, asked: Asked) -> Any:  # noqa: N802
        size = int(asked.get("size", 0)) * 2**30
        if snapshot := asked.get("snapshotid"):
            size = self._found(self.snapshots, snapshot)["virtualsize"]
        made = {"id": str(next(self._numbers)), "name": asked["name"], "size": size}
        self.volumes.append(_job("createvolumejob")["volume"] | made)
        return self._done({"volume": self.volumes[-1]})

    def _deleteVolume(self, asked: Asked) -> Any:  # noqa: N802
        volume = self._found(self.volumes, asked["id"])
        if "virtualmachineid" in volume:
            raise Refused(431, "Please specify a volume that is not attached to any VM.")
        self.volumes.remove(volume)
        return {"success": "true"}

    def _attachVolume(self, asked: Asked) -> Any:  # noqa: N802
        volume = self._found(self.volumes, asked["id"])
        taken = [v.get("deviceid") for v in self.volumes if str(v.get("virtualmachineid")) == asked["virtualMachineId"]]
        if "virtualmachineid" in volume or int(asked["deviceId"]) in taken:
            raise Refused(431, "Please specify a volume that is not attached, and a free device")
        volume |= {"virtualmachineid": asked["virtualMachineId"], "deviceid": int(asked["deviceId"]), "state": "Ready"}
        return self._done({"volume": volume})

    def _detachVolume(self, asked: Asked) -> Any:  # noqa: N802
        volume = self._found(self.volumes, asked["id"])
        self._unplug(volume)
        return self._done({"volume": volume})

    def _unplug(self, volume: Any) -> None:
        del volume["virtualmachineid"], volume["deviceid"]

    def _listSnapshots(self, asked: Asked) -> Any:  # noqa: N802
        return {"snapshot": self.snapshots} if self.snapshots else {}

    def _createSnapshot(self, asked: Asked) -> Any:  # noqa: N802
        volume = self._found(self.volumes, asked["volumeid"])
        more = {"state": "BackedUp", "virtualsize": volume["size"]}  # since 4.9
        made = {"id": str(next(self._numbers)), "name": asked["name"], "volumeid": volume["id"]} | more
        self.snapshots.append(_job(1300001)["snapshot"] | made)
        return self._done({"snapshot": self.snapshots[-1]})

    def _deleteSnapshot(self, asked: Asked) -> Any:  # noqa: N802
        self.snapshots.remove(self._found(self.snapshots, asked["id"]))
        return self._done({"success": True})

    # --- images ---

    def _listTemplates(self, asked: Asked) -> Any:  # noqa: N802
        return {"template": self.templates}

    def _createTemplate(self, asked: Asked) -> Any:  # noqa: N802
        self._found(self.volumes, asked["volumeid"])
        made = {"id": str(next(self._numbers)), "name": asked["name"], "displaytext": asked["displaytext"]}
        self.templates.append(_job(1300003)["template"] | made)
        return self._done({"template": self.templates[-1]})

    def _deleteTemplate(self, asked: Asked) -> Any:  # noqa: N802
        self.templates.remove(self._found(self.templates, asked["id"]))
        return self._done({"success": True})

    # --- key pairs and security groups ---

    def _listSSHKeyPairs(self, asked: Asked) -> Any:  # noqa: N802
        return {"sshkeypair": self.keys} if self.keys else {}

    def _registerSSHKeyPair(self, asked: Asked) -> Any:  # noqa: N802
        _, _, key = asked["publickey"].partition(" ")
        if not b64decode(key.split(" ")[0]).startswith(bytes(3)):
            raise Refused(431, _recording("registerSSHKeyPair_error")["errortext"])
        self.keys.append(_recording("registerSSHKeyPair_default")["keypair"] | {"name": asked["name"]})
        return {"keypair": self.keys[-1]}

    def _deleteSSHKeyPair(self, asked: Asked) -> Any:  # noqa: N802
        self.keys[:] = [key for key in self.keys if key["name"] != asked["name"]]
        return {"success": "true"}

    def _listSecurityGroups(self, asked: Asked) -> Any:  # noqa: N802
        return {"securitygroup": self.groups}

    def _createSecurityGroup(self, asked: Asked) -> Any:  # noqa: N802
        made = {"id": str(next(self._numbers)), "name": asked["name"], "description": asked["description"]}
        self.groups.append(_recording("createSecurityGroup_default")["securitygroup"] | made)
        return {"securitygroup": self.groups[-1]}

    def _authorizeSecurityGroupIngress(self, asked: Asked) -> Any:  # noqa: N802
        try:
            ip_network(asked["cidrlist"])
        except ValueError:
            raise Refused(431, f"Invalid cidr {asked['cidrlist']}") from None
        group = next(group for group in self.groups if group["name"] == asked["securitygroupname"])
        ports = {"startport": int(asked["startport"]), "endport": int(asked["endport"])}
        group.setdefault("ingressrule", []).append({"protocol": "tcp", "cidr": asked["cidrlist"]} | ports)
        return self._done({"securitygroup": group})

    def _deleteSecurityGroup(self, asked: Asked) -> Any:  # noqa: N802
        present = [machine for machine in self.machines if machine["state"] != "Destroyed"]
        if any({"name": asked["name"]} in machine["securitygroup"] for machine in present):
            raise Refused(536, "Cannot delete group when it's in use by virtual machines")
        self.groups[:] = [group for group in self.groups if group["name"] != asked["name"]]
        return {"success": "true"}
