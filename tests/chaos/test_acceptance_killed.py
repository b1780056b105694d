"""A process that is killed in the middle of an acceptance: the next one finishes it, and never makes two of it."""

from __future__ import annotations

import json
import subprocess
import sys

from tests.agency.conftest import in_memory


def test_an_acceptance_is_finished_whenever_the_process_dies() -> None:
    """Killed before and after every transaction and every message, both sides know of the same agreement or of none
    when a new process has taken up what was open; accepting the offer once more gives that agreement, and one only."""
    with in_memory() as folder:
        command = [sys.executable, "-m", "tests.chaos.killing", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    found = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert len(found) > 20
    for each in found:
        ours, theirs = each["by_itself"]
        assert ours == theirs
        assert len(ours) <= 1
        assert bool(ours) or not each["open"]
        assert each["after"] == [each["agreed"], each["agreed"]]
        assert each["agreed"][0][1] == "observed"
    assert [] in [each["by_itself"][0] for each in found]
    assert ["accepting"] in [each["open"] for each in found]
