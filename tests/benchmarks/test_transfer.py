"""The transfer benchmark measures what it says, on inputs of a few megabytes. How fast anybody is: no matter here."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from benchmarks import transfer
from benchmarks.transfer_lab import inputs, network
from benchmarks.transfer_lab.inputs import Content, digest, extents
from benchmarks.transfer_lab.measuring import Group, Memory, Run, prepared
from benchmarks.transfer_lab.network import FAR, LAN, PATHS, Network
from benchmarks.transfer_lab.ours import Agency, AgencyUncompressed
from benchmarks.transfer_lab.peers import Contender, Curl, Rsync

ROOT = Path(__file__).parent.parent.parent
SCALE = 0.003
"""16 MiB on a disk of 30."""
MIB = 1 << 20
pytestmark = pytest.mark.integration


def _needed() -> dict[str, str]:
    return network.missing() | inputs.missing() | Curl.missing() | Rsync.missing()


@pytest.fixture(scope="module")
def work(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where inputs are made, once for all."""
    if os.geteuid():
        pytest.skip("network namespaces and control groups of one's own need root")
    if gone := _needed():
        pytest.skip(f"missing: {', '.join(sorted(set(gone.values())))}")
    return tmp_path_factory.mktemp("transfer-benchmark")


@pytest.fixture(scope="module")
def contents(work: Path) -> dict[inputs.Name, Content]:
    """The inputs."""
    return inputs.inputs(work, SCALE)


@pytest.fixture(scope="module")
def lab(work: Path) -> Iterator[Network]:
    """Two sites, and paths of both kinds."""
    with Network(work, (LAN, FAR)) as joined:
        yield joined


def _command(work: Path, *options: str) -> list[str]:
    peers = [Curl.name, Rsync.name]
    command = [sys.executable, "-m", "benchmarks.transfer", "--work", str(work), "--scale", str(SCALE), "--rounds", "1"]
    return [*command, *options, "--peers", *peers]


def _left_behind(process: int) -> list[str]:
    """Names of what a benchmark of that process number would have to take down."""
    spaces = subprocess.run(["ip", "netns", "list"], capture_output=True, text=True, check=True).stdout.split()
    groups = [folder.name for folder in Path("/sys/fs/cgroup").rglob(f"agency-transfer-{process}-*")]
    return [name for name in [*spaces, *groups] if name.startswith(f"agency-transfer-{process}-")]


def test_a_report_has_ours_and_its_peers_at_the_same_tasks(work: Path, contents: dict[inputs.Name, Content]) -> None:
    """`make bench-transfer` gives who takes part a result at each task, and the headline is ours over the best peer's;
    nothing is left behind."""
    assert "python -m benchmarks.transfer" in (ROOT / "Makefile").read_text()
    command = _command(work, "--json", "--tasks", "first", "changed")
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        output, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    report = json.loads(output)
    first = {run["contender"]: run for run in report["runs"] if run["task"] == "first"}
    assert set(first) == {Agency.name, AgencyUncompressed.name, Curl.name, Rsync.name}
    best = min(first[Curl.name]["seconds"], first[Rsync.name]["seconds"])
    assert report["headline_ratio_to_best_peer"] == pytest.approx(first[Agency.name]["seconds"] / best, abs=1e-3)
    for run in report["runs"]:
        assert run["seconds"] >= run["copied_seconds"] > 0
        assert run["cpu_seconds"] > 0
        assert run["peak_memory_bytes"]
    assert first[Curl.name]["wire_bytes"] > contents["disk.qcow2"].allocated + contents["volume"].allocated
    changed = {run["contender"]: run["wire_bytes"] for run in report["runs"] if run["task"] == "changed"}
    assert max(changed.values()) < contents["disk"].allocated / 4
    assert {"processor, both sides, zstd", "after 5 % changed, on the wire", "memory of a proxy, at most"} <= {
        figure["what"] for figure in report["figures"]
    }
    assert _left_behind(process.pid) == []


def test_what_is_interrupted_takes_its_network_down(work: Path, contents: dict[inputs.Name, Content]) -> None:
    """Ctrl-C in the middle of a run ends all that was started, and removes namespaces, control groups and copies."""
    command = _command(work, "--tasks", "changed")
    with subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        assert process.stderr is not None
        while "Mbit/s" not in process.stderr.readline():
            assert process.poll() is None
        assert _left_behind(process.pid)
        os.killpg(process.pid, signal.SIGINT)
        process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGINT
    assert _left_behind(process.pid) == []
    assert not list(work.glob("run-*"))


class _Absent(Contender):
    """A peer that no machine has."""

    name = "absent"
    packages: ClassVar = {"no-such-program": "no-such-package"}

    def serve(self, run: Run) -> None:
        raise NotImplementedError

    def copy(self, run: Run) -> None:
        raise NotImplementedError


def test_a_missing_peer_is_told(
    work: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who cannot be measured is named with what to install, and is no small matter where everything must be there."""
    monkeypatch.delenv("AGENCY_TEST_ALL", raising=False)
    assert transfer._missing({_Absent, Curl}) == {_Absent: {"no-such-program": "no-such-package"}}
    assert "absent is not measured: no-such-program missing: apt install no-such-package" in capsys.readouterr().err
    monkeypatch.setenv("AGENCY_TEST_ALL", "1")
    with pytest.raises(SystemExit, match="peers are missing"):
        transfer._missing({_Absent})


class _Careless(Contender):
    """Copies all but the last byte as it is."""

    name = "careless"
    packages: ClassVar = {}

    def serve(self, run: Run) -> None:
        pass

    def copy(self, run: Run) -> None:
        for content in run.contents:
            copy = Path(shutil.copy(content.path, run.destination))
            with copy.open("r+b") as opened:
                opened.seek(-1, os.SEEK_END)
                opened.write(b"?")


def test_who_copies_wrongly_has_no_result(lab: Network, contents: dict[inputs.Name, Content], work: Path) -> None:
    """What came is compared with what was to come."""
    wrong = pytest.raises(RuntimeError, match=r"volume\.img did not come as it was")
    with prepared(lab, LAN, [contents["volume"]], work) as run, wrong:
        run.measure(lambda: _Careless().copy(run))


def test_processor_time_is_that_of_all_that_was_started(work: Path) -> None:
    """A known load of two processes, one of them the other's child, is what the group counts; memory is watched."""
    burn = (
        "import os, resource, time\n"
        "held = bytearray(64 << 20)\n"
        "if child := os.fork(): os.waitpid(child, 0)\n"
        "while time.process_time() < 0.3: pass\n"
        "both = resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN\n"
        "if child: print(sum(sum(resource.getrusage(whose)[:2]) for whose in both))\n"
    )
    with Group("test") as group, Memory(group) as memory:
        done = subprocess.run([*group.enter(), sys.executable, "-c", burn], capture_output=True, text=True, check=True)
        used = group.cpu_seconds()
    assert float(done.stdout) >= 0.59
    assert used == pytest.approx(float(done.stdout), abs=0.15)
    assert max(memory.peaks.values()) >= 64 * MIB


def test_bytes_on_the_wire_are_those_of_the_frames(lab: Network) -> None:
    """Segments of 1448 bytes have 66 of headers; what comes back are acknowledgements."""
    before = lab.wire_bytes(LAN)
    lab.goodput(LAN, 32 * MIB)
    assert 1.045 < (lab.wire_bytes(LAN) - before) / (32 * MIB) < 1.1


def test_who_is_far_away_answers_late(lab: Network) -> None:
    """Nothing that goes to and fro on a path of 20 ms takes less, and what is sent arrives."""
    with lab.socket("b") as listener, lab.socket("a") as caller:
        listener.bind((FAR.address("b"), 0))
        listener.listen()
        caller.connect(listener.getsockname())
        started = time.perf_counter()
        with lab.socket("a") as another:
            another.connect(listener.getsockname())
        assert time.perf_counter() - started >= 0.02
    assert lab.goodput(FAR, 4 * MIB) > 0


def test_paths_have_addresses_of_their_own() -> None:
    """No two paths share a device or a network."""
    assert len({path.device for path in PATHS}) == len({path.address("a") for path in PATHS}) == len(PATHS)


def test_inputs_are_what_they_are_called(contents: dict[inputs.Name, Content], work: Path) -> None:
    """Sizes are the scale's, what is changed is a twentieth, and what is the same for everybody is made again alike."""
    disk, changed = contents["disk"].path.read_bytes(), contents["changed"].path.read_bytes()
    pages = range(0, len(disk), 4096)
    different = sum(disk[page : page + 4096] != changed[page : page + 4096] for page in pages) * 4096
    assert len(disk) == len(changed)
    assert different == pytest.approx(contents["disk"].allocated / 20, rel=0.1)
    assert contents["disk"].allocated == pytest.approx(inputs.ALLOCATED * SCALE, rel=0.2)
    assert contents["incompressible"].allocated == contents["disk"].allocated
    duplicated, share = contents["duplicated"].path.read_bytes(), len(disk) // 10 // MIB * MIB
    assert duplicated[:share] == duplicated[share : 2 * share] == duplicated[9 * share : 10 * share]
    assert any(duplicated[:share])
    assert inputs.inputs(work, SCALE) == contents
    noise = b"".join(inputs._noise("volume", int(inputs.VOLUME * SCALE)))
    assert noise == contents["volume"].path.read_bytes()


def test_a_digest_is_of_what_a_reader_sees(tmp_path: Path) -> None:
    """A hole and zeros are the same; a byte elsewhere, or more zeros at the end, are not."""
    sparse, full, longer, other = (tmp_path / name for name in ("sparse", "full", "longer", "other"))
    with sparse.open("wb") as opened:
        opened.truncate(4 * MIB)
        opened.seek(2 * MIB)
        opened.write(b"something")
        opened.flush()
        os.fsync(opened.fileno())
        assert sum(end - start for start, end in extents(opened.fileno())) < MIB
    content = sparse.read_bytes()
    full.write_bytes(content)
    longer.write_bytes(content + b"\0")
    other.write_bytes(content[: 2 * MIB] + b"\0" + content[2 * MIB : -1])
    assert digest(sparse) == digest(full)
    assert len({digest(file) for file in (full, longer, other)}) == 3
