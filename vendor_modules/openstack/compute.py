"""Machines and key pairs: nova."""

from __future__ import annotations

import re
import shlex
from base64 import b64encode
from urllib.parse import quote, unquote

from vendor_modules import labels
from vendor_modules.capabilities import Consoles, FirstBoot, KeyPairs, MachineBundle, Power
from vendor_modules.errors import Conflict, InvalidRequest, NotFound, Unsupported
from vendor_modules.openstack import names
from vendor_modules.openstack.client import COMPUTE, IMAGE, NETWORK, STORAGE, Client, Json
from vendor_modules.openstack.cloud import Cloud
from vendor_modules.openstack.errors import Refused
from vendor_modules.openstack.images import MACHINE, image_of, image_once
from vendor_modules.openstack.once import once
from vendor_modules.openstack.storage import DEVICE
from vendor_modules.resources import Attachment, Image, Key, KeyPair, Machine, MachineSpec, Status
from vendor_modules.userdata import HOME, PORT, script

USER_DATA = 49_150
"""Bytes of user data: nova takes 65,535 in base64."""
CONSOLE = 65_536
"""Characters of a console's output that are kept."""
_STATUS = {
    "ACTIVE": Status.ACTIVE,
    "RESCUE": Status.ACTIVE,
    "SHUTOFF": Status.STOPPED,
    "PAUSED": Status.STOPPED,
    "SUSPENDED": Status.STOPPED,
    "SHELVED": Status.STOPPED,
    "SHELVED_OFFLOADED": Status.STOPPED,
    "ERROR": Status.ERROR,
}
"""Nova's states; all others are on the way to one of these."""
_START = {
    "SHUTOFF": {"os-start": None},
    "PAUSED": {"unpause": None},
    "SUSPENDED": {"resume": None},
    "SHELVED": {"unshelve": None},
    "SHELVED_OFFLOADED": {"unshelve": None},
}
_IDENTIFIER = re.compile(r"[A-Za-z0-9._:/@-]{1,255}")
_GONE = ("DELETED", "SOFT_DELETED")


class Compute(Cloud, Power, FirstBoot, Consoles, MachineBundle, KeyPairs):
    """Machines, and what nova holds besides."""

    # --- machines ---

    async def _create_machine(self, spec: MachineSpec, key: Key) -> Machine:
        given = script(spec.user_data, largest=USER_DATA) if spec.user_data else None
        return await self._run(lambda client: self._made(client, spec, key, given), key=f"machine {key}")

    def _made(self, client: Client, spec: MachineSpec, key: Key, user_data: bytes | None) -> Machine:
        def make() -> Json:
            order = self._order(client, spec, key)
            if user_data is not None:
                order["user_data"] = b64encode(_with_devices(user_data, spec.volumes)).decode()
            for attachment in spec.volumes:
                remember_device(client, attachment.volume, attachment.device)
            made = client.ask(COMPUTE, "POST", "/servers", {"server": order})["server"]
            return dict(client.get(COMPUTE, f"/servers/{made['id']}")["server"])

        def find() -> list[Json]:
            return [server for server in _servers(client) if server["metadata"].get(labels.KEY) == key]

        def remove(server: Json) -> None:
            client.call(COMPUTE, "DELETE", f"/servers/{server['id']}")

        return self._machine(client, once(find, make, remove))

    def _order(self, client: Client, spec: MachineSpec, key: Key) -> Json:
        sizes = {size_of(flavour): flavour["id"] for flavour in client.all(COMPUTE, "/flavors/detail", "flavors")}
        if spec.size not in sizes:
            raise NotFound(f"there is no flavour {spec.size!r}")
        networks = spec.networks or self._default_network(client)
        order: Json = {
            "name": names.shown(spec.name),
            "imageRef": spec.image,
            "flavorRef": sizes[spec.size],
            "metadata": names.labels(key, spec.name),
            "config_drive": True,
        }
        if networks or self.dialect.compute_version:  # without one, saying nothing means the usual networks
            order["networks"] = [{"uuid": network} for network in networks] or "auto"
        if spec.key_pair:
            order["key_name"] = spec.key_pair
        if spec.security_groups:
            order["security_groups"] = [{"name": group} for group in spec.security_groups]
        if self.cloud.availability_zone:
            order["availability_zone"] = self.cloud.availability_zone
        if spec.volumes:
            disk = {"uuid": spec.image, "source_type": "image", "destination_type": "local", "boot_index": 0}
            others = [
                {"uuid": attachment.volume, "source_type": "volume", "destination_type": "volume", "boot_index": -1}
                for attachment in spec.volumes
            ]
            order["block_device_mapping_v2"] = [disk | {"delete_on_termination": True}, *others]
        return order

    def _default_network(self, client: Client) -> list[str]:
        """The network that the settings name, else the only one that the project has besides those that we made."""
        if self.cloud.network:
            found = client.find(NETWORK, "/networks", "networks", self.cloud.network)
            if found is None:
                raise NotFound(f"there is no network {self.cloud.network!r}, which the settings name")
            return [found["id"]]
        own = [
            network["id"]
            for network in client.all(NETWORK, "/networks", "networks", {"project_id": client.project})
            if not network.get("router:external") and not names.key_in_description(network.get("description"))
        ]
        if len(own) > 1:
            raise InvalidRequest(f"the project has {len(own)} networks: name one of them in the settings (network)")
        return own

    async def _describe_machine(self, machine_id: str) -> Machine:
        return await self._run(lambda client: self._machine(client, server_of(client, machine_id)))

    async def _list_machines(self) -> list[Machine]:
        return await self._run(lambda client: [self._machine(client, server) for server in _servers(client)])

    async def _destroy_machine(self, machine_id: str) -> None:
        await self._run(lambda client: client.call(COMPUTE, "DELETE", f"/servers/{names.path_part(machine_id)}"))

    def _machine(self, client: Client, server: Json) -> Machine:
        status = _STATUS.get(server["status"], Status.PENDING)
        task = server.get("OS-EXT-STS:task_state") or ""
        if task and not task.startswith("image_") and status is not Status.ERROR:
            status = Status.PENDING  # asked to change, and not there yet
        addresses = [address for network in server.get("addresses", {}).values() for address in network]
        fixed = [a["addr"] for a in addresses if a.get("OS-EXT-IPS:type", "fixed") == "fixed" and a["version"] == 4]
        image = server.get("image") or {}
        fault = server.get("fault") or {}
        return Machine(
            id=str(server["id"]),
            name=names.name_in(server["metadata"], server["name"]),
            key=server["metadata"].get(labels.KEY, ""),
            status=status,
            size=_flavour(client, server["flavor"]),
            image=image.get("id"),
            host=fixed[0] if fixed else None,
            port=PORT if fixed else None,
            volumes=tuple(sorted(volume["id"] for volume in server.get("os-extended-volumes:volumes_attached", ()))),
            problem=fault.get("message"),
        )

    # --- power ---

    async def _start_machine(self, machine_id: str) -> None:
        def start(client: Client) -> None:
            server = server_of(client, machine_id)
            if server["status"] in _START:
                _act(client, machine_id, _START[server["status"]])

        await self._run(start)

    async def _stop_machine(self, machine_id: str) -> None:
        def stop(client: Client) -> None:
            server = server_of(client, machine_id)
            if _STATUS.get(server["status"]) is Status.STOPPED or server.get("OS-EXT-STS:task_state") == "powering-off":
                return
            _act(client, machine_id, {"os-stop": None})

        await self._run(stop)

    async def _console(self, machine_id: str) -> str:
        output = await self._run(lambda client: _act(client, machine_id, {"os-getConsoleOutput": {}})["output"])
        return str(output)[-CONSOLE:]

    async def _bundle_machine(self, machine_id: str, name: str, key: Key) -> Image:
        def bundle(client: Client) -> Image:
            return image_of(image_once(client, key, lambda: make(client)), client.project)

        def make(client: Client) -> Json:
            server = server_of(client, machine_id)
            if _STATUS.get(server["status"]) is not Status.STOPPED:
                raise Conflict(f"the machine is {server['status']}, and must be stopped")
            if not server.get("image"):
                raise Unsupported("the machine's disk is a volume: make an image of that volume")
            kept = names.labels(key, name, inherits=True)
            order = {"createImage": {"name": names.shown(name), "metadata": kept | {MACHINE: machine_id}}}
            path = f"/servers/{names.path_part(machine_id)}/action"
            answer = client.call(COMPUTE, "POST", path, json=order)
            # before microversion 2.45 only a header tells where the image is
            image_id = answer.json()["image_id"] if answer.content else answer.headers["location"].rpartition("/")[2]
            return client.get(IMAGE, f"/images/{image_id}")

        return await self._run(bundle, key=f"image {key}")

    # --- key pairs ---

    async def _create_key_pair(self, name: str, public_key: str, key: Key) -> KeyPair:
        def create(client: Client) -> KeyPair:
            called = labels.name_for(key, name, longest=255)

            def find() -> list[Json]:
                try:
                    return [client.get(COMPUTE, f"/os-keypairs/{called}")["keypair"]]
                except Refused as refused:
                    if refused.status != 404:
                        raise
                    return []

            def make() -> Json:
                order = {"name": called, "public_key": _labelled(public_key, key, name)}
                return dict(client.ask(COMPUTE, "POST", "/os-keypairs", {"keypair": order})["keypair"])

            return _key_pair(once(find, make, lambda _: None))  # names are unique

        return await self._run(create, key=f"key-pair {key}")

    async def _describe_key_pair(self, key_pair_id: str) -> KeyPair:
        path = f"/os-keypairs/{names.path_part(key_pair_id)}"
        return await self._run(lambda client: _key_pair(client.get(COMPUTE, path)["keypair"]))

    async def _list_key_pairs(self) -> list[KeyPair]:
        return await self._run(
            lambda client: [_key_pair(found["keypair"]) for found in client.all(COMPUTE, "/os-keypairs", "keypairs")]
        )

    async def _destroy_key_pair(self, key_pair_id: str) -> None:
        await self._run(lambda client: client.call(COMPUTE, "DELETE", f"/os-keypairs/{names.path_part(key_pair_id)}"))


def _servers(client: Client) -> list[Json]:
    return [s for s in client.all(COMPUTE, "/servers/detail", "servers") if s["status"] not in _GONE]


def server_of(client: Client, machine_id: str) -> Json:
    """The server; :class:`~vendor_modules.errors.NotFound` also for one that nova still shows though it is deleted."""
    server: Json = client.get(COMPUTE, f"/servers/{names.path_part(machine_id)}")["server"]
    if server["status"] in _GONE:
        raise NotFound(f"the machine {machine_id} is deleted")
    return server


def size_of(flavour: Json) -> str:
    """What a flavour is called: its name, or its id where our documents cannot hold the name, as one with spaces."""
    return str(flavour["name"] if _IDENTIFIER.fullmatch(flavour["name"]) else flavour["id"])


def _flavour(client: Client, flavour: Json) -> str:
    """The size of a server's flavour, of which it tells the name or, before microversion 2.47, the id."""
    if name := flavour.get("original_name"):
        if _IDENTIFIER.fullmatch(name):
            return str(name)
        found = client.find(COMPUTE, "/flavors/detail", "flavors", name)
        return size_of(found) if found else re.sub(r"[^A-Za-z0-9._:/@-]", "-", name)
    try:
        return size_of(client.get(COMPUTE, f"/flavors/{flavour['id']}")["flavor"])
    except Refused as refused:
        if refused.status != 404:
            raise
        return str(flavour["id"])  # it is not sold any more


def remember_device(client: Client, volume_id: str, device: str) -> None:
    """Keep the name under which a machine is to find a volume: the cloud knows only the name that the hypervisor
    chooses."""
    client.ask(STORAGE, "POST", f"/volumes/{names.path_part(volume_id)}/metadata", {"metadata": {DEVICE: device}})


def _with_devices(user_data: bytes, volumes: tuple[Attachment, ...]) -> bytes:
    """The first-boot script, which makes the volumes' devices appear below the machine's working directory. virtio
    disks carry the first 20 characters of their volume's id as their serial number."""
    links = []
    for attachment in volumes:
        target = shlex.quote(f"{HOME}/{attachment.device}")
        links.append(f"mkdir -p $(dirname {target}); ln -sfn /dev/disk/by-id/virtio-{attachment.volume[:20]} {target}")
    first, _, rest = user_data.partition(b"\n")
    return b"\n".join([first, *(link.encode() for link in links), rest])


def _act(client: Client, machine_id: str, action: Json) -> Json:
    return client.ask(COMPUTE, "POST", f"/servers/{names.path_part(machine_id)}/action", action)


def _labelled(public_key: str, key: Key, name: str) -> str:
    """The public key with our key and name in its comment: a key pair has nothing else that could hold them, its own
    name is its id and takes few letters."""
    return f"{public_key.rstrip()} {labels.KEY}={key} {labels.NAME}={quote(name, safe='')}"


_LABELS = re.compile(rf" {labels.KEY}=(\S+) {labels.NAME}=(\S+)\s*$")


def _key_pair(found: Json) -> KeyPair:
    labelled = _LABELS.search(found["public_key"])
    key, name = (labelled[1], unquote(labelled[2])) if labelled else ("", found["name"])
    return KeyPair(
        id=found["name"],
        name=name,
        key=key,
        status=Status.ACTIVE,
        public_key=_LABELS.sub("", found["public_key"]),
        fingerprint=found["fingerprint"],
    )
