"""OnApp: clouds of hosting providers. Machines, templates and SSH keys; libcloud's driver does no more."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar
from urllib.parse import quote, unquote

from libcloud.compute.types import Provider

from descriptors.deployment import Kind
from vendor_modules.abilities import Ability, Support
from vendor_modules.labels import KEY, NAME, name_for
from vendor_modules.libcloud import Driver, LibcloudKeyPairs, LibcloudListedImages
from vendor_modules.libcloud.site import LibcloudSizedSite
from vendor_modules.module import Proof
from vendor_modules.resources import Key, KeyPair, MachineSpec, Status


class OnAppModule(LibcloudSizedSite, LibcloudKeyPairs, LibcloudListedImages):
    """Keys and names are in a machine's note and in an SSH key's comment."""

    title = "OnApp"
    proof = Proof.RECORDED
    proven_by = (
        "Libcloud 3.9.1's recorded answers of the service, through this module; the conformance suite on an account "
        "that is made of them and remembers."
    )
    known_limits = (
        "Machines cannot be stopped, and volumes cannot be had: libcloud's driver has no calls for them.",
        "A machine gets all SSH keys of the account, whichever key pair it is made with.",
        "The machine sizes are those of the settings; OnApp has none of its own.",
        "Recordings are fixed answers: what changes after a call is what the tests make of them.",
    )
    abilities: ClassVar[Mapping[str, Ability]] = {
        "destroy_image": Ability(Support.UNSUPPORTED, note="libcloud's driver has no call for it")
    }
    provider = Provider.ONAPP
    call_timeout = 120.0

    def _tags_for(self, kind: Kind, key: Key, name: str) -> dict[str, Any]:
        return {"ex_note": json.dumps({KEY: key, NAME: name})} if kind == "machine" else {}

    def _tags_of(self, resource: Any) -> Mapping[str, str]:
        note = str(resource.extra.get("note") or "")
        ours: dict[str, str] = json.loads(note) if note.startswith("{") and KEY in note else {}
        return ours or super()._tags_of(resource)

    def _node_arguments(self, driver: Driver, spec: MachineSpec, key: Key) -> dict[str, Any]:
        size, image = self._node_size(driver, spec.size), self._node_image(driver, spec.image)
        if spec.key_pair:
            self._named(driver, spec.key_pair)  # must be there; the machine gets it with all others
        chosen = name_for(key, spec.name)
        return {
            "name": chosen,
            "ex_hostname": chosen,
            "ex_memory": size.ram,
            "ex_cpus": size.extra["cpus"],
            "ex_cpu_shares": 100,
            "ex_template_id": image.id,
            "ex_primary_disk_size": size.disk,
            "ex_swap_disk_size": 0,
            **self._tags_for("machine", key, spec.name),
        }

    def _status_of(self, node: Any) -> Status | None:
        extra = node.extra
        if extra["deleted_at"]:
            return None
        if extra["state"] == "failed":
            return Status.ERROR
        if not extra["built"]:
            return Status.PENDING
        return Status.ACTIVE if extra["booted"] else Status.STOPPED

    def _size_of(self, node: Any) -> str:
        return self._size_like(node.extra["cpus"], node.extra["memory"])

    def _image_of(self, node: Any) -> str | None:
        return str(node.extra["template_id"] or "") or None

    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        return await super()._create_key_pair(name, f"{public_key.strip()} {KEY}={key} {NAME}={quote(name)}", key)

    def _key_pairs(self, driver: Driver) -> list[Any]:
        pairs = super()._key_pairs(driver)
        for pair in pairs:  # which have numbers for names, and our tags in their comments
            words = pair.public_key.split(" ")
            ours = dict(word.split("=", 1) for word in words if word.startswith((f"{KEY}=", f"{NAME}=")))
            pair.name, pair.extra["tags"] = str(pair.name), {tag: unquote(value) for tag, value in ours.items()}
            pair.public_key = " ".join(word for word in words if word.partition("=")[0] not in ours)
        return pairs
