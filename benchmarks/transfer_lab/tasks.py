"""What is to be moved, by whom and where: the lines of the table."""

from __future__ import annotations

from dataclasses import dataclass

from benchmarks.transfer_lab.inputs import Name
from benchmarks.transfer_lab.network import FAR, LAN, NEAR, OPEN, Way
from benchmarks.transfer_lab.ours import Agency, AgencyUncompressed
from benchmarks.transfer_lab.peers import PEERS, Contender, Nbdcopy, Rsync


@dataclass(frozen=True)
class Task:
    """What is to be moved, and by whom."""

    title: str
    contents: tuple[Name, ...]
    way: Way
    contenders: tuple[type[Contender], ...]
    earlier: Name | None = None
    """What the destination has of the first content already."""


TASKS = {
    "first": Task("disk + volume", ("disk", "volume"), LAN, (Agency, AgencyUncompressed, *PEERS)),
    "incompressible": Task("incompressible disk + volume", ("incompressible", "volume"), LAN, (Agency,)),
    "changed": Task("after 5 % changed", ("changed",), LAN, (Agency, Rsync), earlier="disk"),
    "duplicated": Task("ten copies in one disk", ("duplicated",), LAN, (Agency,)),
    "unshaped": Task("disk + volume", ("disk", "volume"), OPEN, (AgencyUncompressed, Nbdcopy)),
    "near": Task("incompressible disk + volume", ("incompressible", "volume"), NEAR, (Agency,)),
    "far": Task("incompressible disk + volume", ("incompressible", "volume"), FAR, (Agency,)),
}
