"""Machines as libvirt domains: their XML, made and read.

What libvirt has no field for, the idempotency key first of all, is in the domain's metadata, as JSON: a name may have
any characters, and libvirt's own names may not.

*Network.* A machine has QEMU's user-mode network, with one port of the host that leads to its service. libvirt has no
element for such a port before version 9.2 (and then only with passt), so the network card is written as QEMU takes it.
"""

from __future__ import annotations

import json
import re
import uuid
from dataclasses import dataclass
from typing import Any, Literal
from xml.sax.saxutils import escape

from lxml import etree
from lxml.builder import ElementMaker
from pydantic import BaseModel, ConfigDict, ValidationError

from vendor_modules.errors import InvalidRequest
from vendor_modules.resources import DiskFormat, Status
from vendor_modules.userdata import PORT

METADATA = "urn:cloud-agency:libvirt:1"
QEMU = "http://libvirt.org/schemas/domain/qemu/1.0"
_SPACE = uuid.UUID("7f1d1ff7-5b0d-5b9c-8a52-6d0f3a3c1b1e")
_DEVICE = re.compile(r"(?:dev/)?(vd[b-z])")
_PARSER = etree.XMLParser(resolve_entities=False, no_network=True)
_E = ElementMaker(nsmap={"qemu": QEMU})
_Q = ElementMaker(namespace=QEMU, nsmap={"qemu": QEMU})
_M = ElementMaker(namespace=METADATA, nsmap={"agency": METADATA})
NETWORK_SLOT = "0x1e"
"""The PCI slot of the network card: far from those that libvirt gives to disks, first to last."""

STATES = {
    1: Status.ACTIVE,  # running
    2: Status.ACTIVE,  # blocked on a resource
    3: Status.PENDING,  # suspended: it does not answer, and its disk is not at rest
    4: Status.PENDING,  # being shut down
    5: Status.STOPPED,  # shut off
    6: Status.ERROR,  # crashed
    7: Status.PENDING,  # suspended by the guest's power management
}
"""``virDomainState``."""
RUNNING, PAUSED, SHUT_OFF, PM_SUSPENDED = 1, 3, 5, 7


class Notes(BaseModel):
    """What the metadata of a machine of ours say. ``port`` is the host's; ``made`` is set when it first started."""

    model_config = ConfigDict(frozen=True)

    key: str
    name: str
    size: str
    image: str
    port: int
    made: bool = False


@dataclass(frozen=True)
class Disk:
    """A disk of a machine: a file of the pool, the device that it is (``vda``), and how it is laid out."""

    file: str
    target: str
    format: str = DiskFormat.RAW


@dataclass(frozen=True)
class Order:
    """A machine to define. ``accelerator`` is libvirt's type of domain; ``host`` is where its port is bound."""

    id: str
    domain: str
    notes: Notes
    cores: int
    memory_mib: int
    accelerator: Literal["kvm", "qemu"]
    host: str
    pool: str
    format: DiskFormat
    volumes: tuple[Disk, ...]
    console: str
    """The path of the file that the console is written to."""


@dataclass(frozen=True)
class Domain:
    """A machine as its XML says. ``notes`` is None for one that was not made by the agency."""

    id: str
    name: str
    cores: int
    memory_mib: int
    disks: tuple[Disk, ...]
    notes: Notes | None

    def volumes(self) -> list[Disk]:
        """The disks that are volumes of ours."""
        return [disk for disk in self.disks if disk.file.startswith("volume-")]


def id_for(key: str) -> str:
    """The machine's id, which is the domain's UUID."""
    return str(uuid.uuid5(_SPACE, key))


def is_id(text: str) -> bool:
    """Whether it could be a machine's id."""
    return bool(re.fullmatch(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", text))


def target_of(device: str) -> str:
    """The disk that a device path names; :class:`~vendor_modules.errors.InvalidRequest` for any other path."""
    if match := _DEVICE.fullmatch(device):
        return match[1]
    raise InvalidRequest(f"volumes are found at dev/vdb to dev/vdz, not at {device!r}")


# --- made ---


def xml_of(order: Order) -> str:
    """The domain's XML."""
    devices = _E.devices(
        _disk(order.pool, Disk(f"machine-{order.id}.img", "vda", order.format)),
        _E.disk(
            _E.driver(name="qemu", type="raw"),
            _E.source(pool=order.pool, volume=f"machine-{order.id}.iso"),
            _E.target(dev="hdc", bus="ide"),
            _E.readonly(),
            type="volume",
            device="cdrom",
        ),
        *(_disk(order.pool, disk) for disk in order.volumes),
        _E.controller(type="usb", model="none"),
        _E.serial(_E.source(path=order.console, append="on"), _E.target(port="0"), type="file"),
    )
    domain = _E.domain(
        _E.name(order.domain),
        _E.uuid(order.id),
        _E.metadata(_M.machine(_text(order.notes))),
        _E.memory(str(order.memory_mib), unit="MiB"),
        _E.vcpu(str(order.cores)),
        _E.os(_E.type("hvm", arch="x86_64", machine="pc"), _E.boot(dev="hd")),
        _E.features(_E.acpi()),
        _E.cpu(mode="host-passthrough" if order.accelerator == "kvm" else "maximum"),
        _E.on_poweroff("destroy"),
        _E.on_reboot("restart"),
        _E.on_crash("destroy"),
        devices,
        _network(order),
        type=order.accelerator,
    )
    return etree.tostring(domain, encoding="unicode")


def notes_xml(notes: Notes) -> str:
    """The notes as ``virDomainSetMetadata`` takes them, which gives the element its namespace itself."""
    return f"<machine>{escape(_text(notes))}</machine>"


def _text(notes: Notes) -> str:
    return json.dumps(notes.model_dump())  # in ASCII: XML has no way to write a control character


def disk_xml(pool: str, disk: Disk) -> str:
    """A volume as a device to attach or detach."""
    return etree.tostring(_disk(pool, disk), encoding="unicode")


def _disk(pool: str, disk: Disk) -> Any:
    return _E.disk(
        _E.driver(name="qemu", type=str(disk.format), discard="unmap"),
        _E.source(pool=pool, volume=disk.file),
        _E.target(dev=disk.target, bus="virtio"),
        type="volume",
        device="disk",
    )


def _network(order: Order) -> Any:
    netdev = f"user,id=agency,hostfwd=tcp:{order.host}:{order.notes.port}-:{PORT}"
    card = f"virtio-net-pci,netdev=agency,addr={NETWORK_SLOT},romfile="
    return _Q.commandline(*(_Q.arg(value=value) for value in ("-netdev", netdev, "-device", card)))


# --- read ---


def read(xml: str) -> Domain:
    """The machine that the XML describes."""
    root = etree.fromstring(xml, _PARSER)
    return Domain(
        id=root.findtext("uuid", ""),
        name=root.findtext("name", ""),
        cores=int(root.findtext("vcpu", "1")),
        memory_mib=int(root.findtext("memory", "0")) // 1024,  # libvirt answers in KiB
        disks=tuple(_disks(root)),
        notes=_notes(root),
    )


def _disks(root: Any) -> list[Disk]:
    return [
        Disk(str(source.get("volume")), str(disk.find("target").get("dev")), str(disk.find("driver").get("type")))
        for disk in root.findall("devices/disk")
        if (source := disk.find("source")) is not None and source.get("volume")
    ]


def _notes(root: Any) -> Notes | None:
    try:
        return Notes.model_validate_json(root.findtext(f"metadata/{{{METADATA}}}machine", ""))
    except ValidationError:
        return None
