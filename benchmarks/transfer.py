"""``python -m benchmarks.transfer [--quick] [--json]``: images and volumes between two sites, ours beside its peers.

Each round has every contender once at every task, in turn, so that all see the same machine under the same load; what
is told is the medians of all rounds. Two sites, the paths between them and all content are the benchmark's own
(:mod:`benchmarks.transfer_lab`); it needs root. Sources are read once before each run, so they are in the page cache,
and nothing is waiting to be written then; the clock stops when what came is on the disk. ``--quick``: a tenth of the
sizes, and as many rounds as fit into ten minutes.
"""

from __future__ import annotations

import argparse
import fcntl
import json
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.transfer_lab import inputs, measuring, network
from benchmarks.transfer_lab.figures import MB, Measured, report, show
from benchmarks.transfer_lab.inputs import Name
from benchmarks.transfer_lab.network import Network
from benchmarks.transfer_lab.peers import PEERS, Contender
from benchmarks.transfer_lab.tasks import TASKS, Task

QUICK_SCALE, QUICK_SECONDS = 0.1, 540
ROUNDS = 3
_TO_MEASURE_A_LINE = 256 << 20


def main() -> None:
    """Measure, and print tables or JSON."""
    options = _options()
    contenders = {each for name in options.tasks for each in TASKS[name].contenders} - set(PEERS) | set(options.peers)
    missing = _missing(contenders)
    signal.signal(signal.SIGTERM, lambda number, frame: sys.exit(128 + number))  # taking down what was set up
    try:
        done = json.loads(json.dumps(report(_measured(options, contenders, missing))))
    except RuntimeError as error:
        sys.exit(f"benchmarks.transfer: {error}")
    except KeyboardInterrupt:
        sys.exit(128 + signal.SIGINT)
    if options.json:
        sys.stdout.write(json.dumps(done, indent=1) + "\n")
    else:
        show(done)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="benchmarks.transfer", description=__doc__)
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    work = cache / "cloud-agency" / "transfer-benchmark"
    peers = {peer.name: peer for peer in PEERS}
    size = parser.add_mutually_exclusive_group()
    size.add_argument("--quick", action="store_true", help="a tenth of the sizes, within ten minutes")
    size.add_argument("--scale", type=float, default=1.0, help="this part of the sizes (default: 1)")
    parser.add_argument("--json", action="store_true", help="print JSON, with every single run")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help=f"how often (default: {ROUNDS})")
    parser.add_argument("--tasks", nargs="+", choices=TASKS, default=list(TASKS), help="which (default: all)")
    parser.add_argument("--peers", nargs="*", choices=peers, default=list(peers), help="which (default: all)")
    parser.add_argument("--work", type=Path, default=work, help=f"where inputs are made and kept (default: {work})")
    parser.add_argument("--place", type=Path, help="where everybody's copies are written (default: as --work)")
    options = parser.parse_args()
    options.peers = [peers[name] for name in options.peers]
    options.scale = QUICK_SCALE if options.quick else options.scale
    return options


def _missing(contenders: set[type[Contender]]) -> dict[type[Contender], dict[str, str]]:
    """Contenders whose programs are missing, with their Debian packages. Ends here if nothing can be done without."""
    if os.geteuid():
        sys.exit("benchmarks.transfer: needs root, for network namespaces and control groups: sudo make bench-transfer")
    if needed := network.missing() | inputs.missing():
        sys.exit(f"benchmarks.transfer: {_to_install(needed)}")
    missing = {each: gone for each in contenders if (gone := each.missing())}
    for each, gone in missing.items():
        _say(f"{each.name} is not measured: {_to_install(gone)}")
    if missing and os.environ.get("AGENCY_TEST_ALL"):
        sys.exit("benchmarks.transfer: AGENCY_TEST_ALL is set, and peers are missing")
    return missing


def _to_install(gone: dict[str, str]) -> str:
    return f"{', '.join(gone)} missing: apt install {' '.join(sorted(set(gone.values())))}"


def _measured(
    options: argparse.Namespace, contenders: set[type[Contender]], missing: dict[type[Contender], dict[str, str]]
) -> Measured:
    tasks = [(name, TASKS[name]) for name in options.tasks]
    options.work.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    with _alone(options.work), Network(options.work) as lab:
        _say(f"inputs in {options.work}, at {options.scale:g} of their sizes")
        contents = inputs.inputs(options.work, options.scale)
        measured = Measured(options.scale, contents, {each.name: gone for each, gone in missing.items()})
        measured.load.append(os.getloadavg()[0])
        for done in range(1, options.rounds + 1):
            _round(measured, tasks, lab, contenders - set(missing), options.place or options.work)
            expected = (time.monotonic() - began) * (done + 1) / done
            if options.quick and expected > QUICK_SECONDS:
                break
    return measured


@contextmanager
def _alone(work: Path) -> Iterator[None]:
    with (work / "lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise RuntimeError(f"another benchmark is running in {work}; wait for it, or name another --work") from None
        yield


def _round(
    measured: Measured, tasks: list[tuple[str, Task]], lab: Network, contenders: set[type[Contender]], place: Path
) -> None:
    """Everybody once, and the lines."""
    enough = min(_TO_MEASURE_A_LINE, measured.contents["disk"].allocated)
    for way in dict.fromkeys(task.way for _, task in tasks):
        measured.goodput[way.name].append(lab.goodput(way, enough))
        _say(f"{way.name}: {measured.goodput[way.name][-1] * 8 / MB:.0f} Mbit/s")
    for name, task in tasks:
        for contender in (each for each in task.contenders if each in contenders):
            names: list[Name] = list(task.contents)
            if not contender.knows_holes:
                names = ["disk.qcow2" if each == "disk" else each for each in names]
            with measuring.prepared(lab, task.way, [measured.contents[each] for each in names], place) as run:
                taking_part = contender()
                taking_part.serve(run)
                if task.earlier:
                    taking_part.have(run, measured.contents[task.earlier])
                result = run.measure(lambda: taking_part.copy(run))  # noqa: B023 - called at once
            measured.runs[name, contender.name].append(result)
            _say(f"{task.title}, {task.way.name}: {contender.name} {result.seconds:.2f} s")
    measured.load.append(os.getloadavg()[0])


def _say(what: str) -> None:
    sys.stderr.write(what + "\n")


if __name__ == "__main__":
    main()
