"""Adapting a machine's bundle: what a rule or a volume's place asks for changes, and nothing else."""

from __future__ import annotations

import asyncio
import io
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from agency.problems import AgencyError
from agency.relocation.migrators.configuration import disk_path
from agency.relocation.migrators.content import Adapt, file_digest
from agency.relocation.workshop import Order, Run, Workshop
from descriptors.deployment import Deployment
from descriptors.relocation import Task
from descriptors.sla import Agreement, Allocation, PriceTerms
from tests.agency.toys import CONFIG, notebook
from vendor_modules.proposals import MACHINE_DISK

TASK = Task(name="adapt-web", migrator="adapt", subject="web")
APPLICATION = notebook()
Members = list[tuple[tarfile.TarInfo, bytes]]


def run_at(tmp_path: Path, in_disk: bool, operation: str) -> Run:
    """An operation whose target puts the volume into the machine's disk, or does not."""
    moment = "2026-11-20T12:00:00Z"
    size = MACHINE_DISK if in_disk else "block-storage"
    about = {"id": "a", "application": "notes", "offer": "o", "offer_digest": f"blake3:{'0' * 64}"}
    parties = {"provider": "beta", "consumer": "deployer", "state": "observed", "agreed": moment}
    agreement = Agreement(
        **about,
        **parties,
        price=PriceTerms(currency="EUR", per_hour=0, per_month=0),
        resources=APPLICATION.resources,
        allocations=(Allocation(resource="data", size=size, price_per_hour=0),),
    )
    deployment = Deployment(
        id="d", application="notes", revision=1, changed=moment, status="running", agreements=("a",)
    )
    order = Order(
        kind="relocate",
        id=operation,
        application=APPLICATION,
        deployment=deployment,
        agreement=agreement,
        tasks=(TASK,),
    )
    return Run(Workshop({}, None, None, tmp_path, None, None), order)


def bundle(path: Path, members: Members) -> None:
    """Write a bundle."""
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        for member, content in members:
            archive.addfile(member, io.BytesIO(content) if member.isreg() else None)


def unbundled(path: Path) -> list[tuple[object, bytes]]:
    """All members: what is known of each, and its content."""
    with tarfile.open(path) as archive:
        return [
            (
                (m.name, m.mode, m.uid, m.gid, m.mtime, m.type, m.linkname, m.uname, m.gname),
                archive.extractfile(m).read() if m.isreg() else b"",
            )
            for m in archive
        ]


def rebuilt(run: Run, known: dict[str, str] | None = None) -> Path:
    """Adapt, and give the file that came of it."""
    component = APPLICATION.component("web")
    known = known or dict.fromkeys(
        ["volume.data.device", *(f"bucket.pictures.{p}" for p in ("endpoint", "access_key", "secret_key"))], "value"
    )
    source, target = run.spooled("fetch-machine-web.img"), run.spooled("adapt-web.img")
    Adapt()._rebuild(component, known, run, source, target)
    return target


def member(name: str, content: bytes = b"", **about: object) -> tuple[tarfile.TarInfo, bytes]:
    """A member of a bundle."""
    info = tarfile.TarInfo(name)
    info.size = len(content)
    for field, value in about.items():
        setattr(info, field, value)
    return info, content


names = st.from_regex(r"[a-z]{1,8}(/[a-z]{1,8}){0,2}", fullmatch=True) | st.just("ünï/ code " + "x" * 120)
files = st.tuples(names, st.binary(max_size=2000), st.sampled_from([0o600, 0o755, 0o4755]), st.integers(0, 2**31))
bundles = st.lists(files, max_size=5, unique_by=lambda file: file[0]).map(
    lambda found: [member(name, content, mode=mode, mtime=mtime, uid=7) for name, content, mode, mtime in found]
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bundles, st.binary(max_size=5000), st.uuids())
def test_a_volume_put_in_and_taken_out_is_the_same(tmp_path: Path, others: Members, volume: bytes, id_: object) -> None:
    """There and back again: the volume's bytes, and every other member, are what they were."""
    there = run_at(tmp_path, in_disk=True, operation=f"there-{id_}")
    members = [*others, member("notes.conf", CONFIG, mode=0o640, mtime=99)]
    bundle(there.spooled("fetch-machine-web.img"), members)
    there.spooled("fetch-volume-data.img").write_bytes(volume)
    inside = rebuilt(there)
    assert (disk_path("data"), volume) in [(about[0], content) for about, content in unbundled(inside)]
    back = run_at(tmp_path, in_disk=False, operation=f"back-{id_}")
    back.spooled("fetch-machine-web.img").write_bytes(inside.read_bytes())
    outside = rebuilt(back)
    assert back.spooled("fetch-volume-data.img").read_bytes() == volume
    assert [about for about, _ in unbundled(outside)] == [about for about, _ in unbundled_of(members, tmp_path)]


def unbundled_of(members: Members, tmp_path: Path) -> list[tuple[object, bytes]]:
    """The members as they are read from a bundle."""
    bundle(tmp_path / "expected.tar", members)
    return unbundled(tmp_path / "expected.tar")


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bundles, st.uuids())
def test_only_the_members_with_rules_change(tmp_path: Path, others: Members, id_: object) -> None:
    """The configuration is rewritten where it stands; every other member keeps its content and all that is known of
    it, in the same order."""
    run = run_at(tmp_path, in_disk=False, operation=f"run-{id_}")
    middle = len(others) // 2
    members = [*others[:middle], member("notes.conf", CONFIG, mode=0o640, mtime=99), *others[middle:]]
    bundle(run.spooled("fetch-machine-web.img"), members)
    before, after = unbundled_of(members, tmp_path), unbundled(rebuilt(run))
    assert [about for about, _ in after] == [about for about, _ in before]
    rewritten = CONFIG
    for key in (b"device", b"endpoint", b"access_key", b"secret_key"):
        rewritten = rewritten.replace(key + b" = \n", key + b" = value\n")
    assert after[middle][1] == rewritten
    assert [content for _, content in after[:middle] + after[middle + 1 :]] == [content for _, content in others]


def test_links_and_directories_stay_what_they_are(tmp_path: Path) -> None:
    """Members that are no files are carried over."""
    run = run_at(tmp_path, in_disk=False, operation="links")
    members = [
        member("etc", type=tarfile.DIRTYPE, mode=0o750),
        member("notes.conf", CONFIG),
        member("etc/here", type=tarfile.SYMTYPE, linkname="../notes.conf"),
        member("etc/same", type=tarfile.LNKTYPE, linkname="notes.conf"),
    ]
    bundle(run.spooled("fetch-machine-web.img"), members)
    after = unbundled(rebuilt(run))
    assert [about for about, _ in after] == [about for about, _ in unbundled_of(members, tmp_path)]


def test_a_volume_that_stays_in_the_disk_is_kept(tmp_path: Path) -> None:
    """From one machine's disk to another's the volume travels with the machine, once."""
    run = run_at(tmp_path, in_disk=True, operation="disk-to-disk")
    bundle(run.spooled("fetch-machine-web.img"), [member("notes.conf", CONFIG), member(disk_path("data"), b"kept")])
    found = [content for about, content in unbundled(rebuilt(run)) if about[0] == disk_path("data")]
    assert found == [b"kept"]
    assert not run.spooled("fetch-volume-data.img").exists()


def test_adapting_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    """A task that is repeated after a crash makes the same image: its digest is what is checked at the target."""
    run = run_at(tmp_path, in_disk=True, operation="twice")
    bundle(run.spooled("fetch-machine-web.img"), [member("notes.conf", CONFIG)])
    run.spooled("fetch-volume-data.img").write_bytes(b"volume")
    once = file_digest(rebuilt(run))
    assert file_digest(rebuilt(run)) == once


def test_a_configuration_that_no_rule_fits(tmp_path: Path) -> None:
    """A file that a rule does not match stops the relocation: the application would not find its data."""
    run = run_at(tmp_path, in_disk=True, operation="unfit")
    bundle(run.spooled("fetch-machine-web.img"), [member("notes.conf", b"all different now")])
    with pytest.raises(AgencyError, match="matches nothing in notes"):
        rebuilt(run)


async def test_undoing_removes_what_was_in_transit(tmp_path: Path) -> None:
    """The adapted image goes when the task is undone, whether or not it was there."""
    run = run_at(tmp_path, in_disk=True, operation="undo")
    await Adapt().undo(TASK, run)
    run.spooled("adapt-web.img").write_bytes(b"x")
    await Adapt().undo(TASK, run)
    await asyncio.sleep(0)
    assert not run.spooled("adapt-web.img").exists()
