"""What the suite promises beside its checks: it lends, it waits, it cleans up, and it asks no more than it must."""

from __future__ import annotations

import asyncio
import random
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from descriptors.base import MIB
from tests.vendor_modules.test_conformance_catches import _check, _subject, cloud  # noqa: F401 - a fixture
from tests.vendor_modules.test_conformance_wire import _subject as wired
from tests.vendor_modules.test_conformance_wire import url  # noqa: F401 - a fixture
from tests.vendor_modules.toy import ToyCloud, ToyModule
from vendor_modules import conformance
from vendor_modules.conformance import lender
from vendor_modules.conformance.bench import Bench, CheckFailed
from vendor_modules.conformance.registry import Check
from vendor_modules.conformance.samples import noise, sample
from vendor_modules.module import VendorModule
from vendor_modules.resources import DiskFormat, Machine, MachineSpec, Status, Volume

MOST_MACHINES = 13


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The machines that toy clouds make, as they are made."""
    ids: list[str] = []
    add = ToyCloud.add

    def noting(self: ToyCloud, kind: Any, resource: Any) -> Any:
        ids.extend([resource.id] if kind == "machine" else [])
        return add(self, kind, resource)

    monkeypatch.setattr(ToyCloud, "add", noting)
    return ids


async def test_few_machines_are_made(cloud: ToyCloud, made: list[str]) -> None:  # noqa: F811
    """A whole run on a module that can do everything makes no more machines than the documentation says."""
    await conformance.check_vendor(_subject())
    assert len(made) <= MOST_MACHINES


async def test_checks_run_in_any_order(cloud: ToyCloud) -> None:  # noqa: F811
    """With a lender for all of them, checks pass in any order, and when it is closed nothing is left."""
    checks, subject = conformance.checks_for(ToyModule), _subject()
    random.shuffle(checks)  # pytest-randomly gives the seed
    lender = conformance.Lender(subject)
    results = [await conformance.run_check(check, subject, lender) for check in checks]
    assert [(r.name, r.reason) for r in results if r.outcome != "passed"] == []
    assert await lender.close() == []
    assert cloud.held == {}


async def test_what_is_lent_is_kept(cloud: ToyCloud, made: list[str]) -> None:  # noqa: F811
    """Checks that share a lender share its machine."""
    subject = _subject()
    lender = conformance.Lender(subject)
    for name in (
        "machine-is-as-ordered",
        "machine-is-listed",
        "machine-runs-its-service",
        "power-calls-may-be-repeated",
    ):
        assert (await conformance.run_check(_check(name), subject, lender)).outcome == "passed"
    assert len(made) == 1
    await lender.close()


async def test_what_was_broken_is_replaced(cloud: ToyCloud, made: list[str]) -> None:  # noqa: F811
    """A machine that a failed check leaves broken is thrown away, and the next check is lent another."""

    async def breaks(bench: Bench) -> None:
        async with bench.machine_lent() as machine:
            cloud.change(machine.id, status=Status.ERROR)
            raise CheckFailed("on purpose")

    subject = _subject()
    lender = conformance.Lender(subject)
    failed = await conformance.run_check(Check("n", "c.", (VendorModule,), breaks), subject, lender)
    assert failed.outcome == "failed"
    assert "on purpose" in failed.reason
    again = await conformance.run_check(_check("machine-runs-its-service"), subject, lender)
    assert again.outcome == "passed"
    assert len(made) == 2
    assert await lender.close() == []
    assert cloud.held == {}


async def test_what_vanished_is_replaced(cloud: ToyCloud, made: list[str]) -> None:  # noqa: F811
    """A lent machine that is gone, whoever took it, is replaced by the next check that needs one."""
    subject = _subject()
    lender = conformance.Lender(subject)
    await conformance.run_check(_check("machine-runs-its-service"), subject, lender)
    cloud.hang_up(made[0])
    del cloud.held[made[0]]
    assert (await conformance.run_check(_check("machine-runs-its-service"), subject, lender)).outcome == "passed"
    await lender.close()


async def test_what_cannot_be_given_back_is_told(cloud: ToyCloud) -> None:  # noqa: F811
    """Closing the lender tells what it could not remove."""

    class Clings(ToyModule):
        async def _destroy_volume(self, volume_id: str) -> None:
            raise NotImplementedError("cannot")

    subject = _subject(Clings)
    lender = conformance.Lender(subject)
    await conformance.run_check(_check("volume-is-as-ordered"), subject, lender)
    problems = await lender.close()
    assert any("cannot be removed" in problem for problem in problems)


async def test_module_with_little_is_asked_for_little(url: str) -> None:  # noqa: F811
    """A module with machines and key pairs only, without first boot and endpoints, fails at nothing and is not handed
    user data."""
    report = await conformance.check_vendor(wired(url))
    assert [(r.name, r.reason) for r in report.checks if r.outcome == "failed"] == []
    assert sum(result.outcome == "passed" for result in report.checks) > 100
    skipped = {r.reason for r in report.checks if r.outcome == "skipped"}
    assert all(reason.startswith("the module has no ") for reason in skipped)


async def test_emulator_says_what_it_leaves_out(cloud: ToyCloud) -> None:  # noqa: F811
    """Where machines run nothing and credentials are not looked at, the checks of that are skipped, and say so."""

    class Hollow(ToyModule):
        async def _cloud(self) -> ToyCloud:
            return cloud

        async def _boot(self, machine_id: str) -> None:
            cloud.change(machine_id, status=Status.ACTIVE)

    report = await conformance.check_vendor(_subject(Hollow, machines_run=False, credentials_checked=False))
    failed = [(r.name, r.reason) for r in report.checks if r.outcome == "failed"]
    assert [name for name, _ in failed if "usage" not in name] == []
    reasons = {r.reason for r in report.checks if r.outcome == "skipped"}
    assert "the provider: the emulator's machines run nothing" in reasons
    assert "the provider: lets everybody in, as an emulator" in reasons


async def test_ids_look_as_the_provider_wants(cloud: ToyCloud) -> None:  # noqa: F811
    """Ids that never existed are those that the subject names, for each kind its own; no other id is made up."""
    asked: set[str] = set()

    class Particular(ToyModule):
        async def _describe_volume(self, volume_id: str) -> Volume:
            asked.add(volume_id)
            return await super()._describe_volume(volume_id)

        async def _create_machine(self, spec: MachineSpec, key: str) -> Machine:
            asked.update(attachment.volume for attachment in spec.volumes)
            return await super()._create_machine(spec, key)

    subject = _subject(Particular, unknown_id="none", unknown_ids={"volume": "vol-0000"})
    for name in ("volume-unknown-is-not-found", "machine-with-an-unknown-volume-is-refused"):
        assert (await conformance.run_check(_check(name), subject)).outcome == "passed"
    assert asked == {"vol-0000"}


@pytest.mark.parametrize("size", [1, 70_000, 3 * MIB + 5])
def test_qcow2_sample_is_one(tmp_path: Path, size: int) -> None:
    """The suite's QCOW2 images have no fault in qemu's eyes, and hold the content that they are made of."""
    if not shutil.which("qemu-img"):
        pytest.skip("qemu-img is not installed: apt-get install qemu-utils")
    image, raw = tmp_path / "image.qcow2", tmp_path / "image.raw"
    image.write_bytes(sample(DiskFormat.QCOW2, size))
    subprocess.run(["qemu-img", "check", "-f", "qcow2", image], check=True, capture_output=True)
    subprocess.run(["qemu-img", "convert", "-f", "qcow2", "-O", "raw", image, raw], check=True)
    assert raw.read_bytes()[:size] == noise(size)
    assert not any(raw.read_bytes()[size:])


async def test_a_pause_is_the_modules_own(monkeypatch: pytest.MonkeyPatch) -> None:
    """An event loop that stands still because of what runs in it is told from one that others leave no processor to."""
    taken, starved = 0.0, lender._starved
    monkeypatch.setattr(lender, "_starved", lambda: taken + starved())
    async with lender.longest_pause() as pause:
        await asyncio.sleep(0.05)
        time.sleep(0.3)  # noqa: ASYNC251 - it stands still
        taken = 0.3
        await asyncio.sleep(0.05)
        others = pause()
        time.sleep(0.3)  # noqa: ASYNC251 - it stands still
        await asyncio.sleep(0.05)
    assert others < 0.3 <= pause() + 0.02
