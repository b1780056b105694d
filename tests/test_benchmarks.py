"""The benchmarks run, and say what they compare with. What they measure is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from agency.servers.setting_up import Kind
from tests.labs.xmpp import skip_unless_installed

ROOT = Path(__file__).parent.parent


@pytest.mark.integration
def test_benchmarks_print_figures_as_json() -> None:
    """`make bench` runs `python -m benchmarks`; every figure has ours, a floor of the same run, and their ratio."""
    assert "python -m benchmarks" in (ROOT / "Makefile").read_text()
    command = [sys.executable, "-m", "benchmarks", "--json"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    figures = json.loads(done.stdout)["figures"]
    assert {figure["what"] for figure in figures} >= {
        "agency --help",
        "agency prices",
        "load XML",
        "Contract Net, 100 vendors",
    }
    for figure in figures:
        assert figure["seconds"] > 0
        assert figure["floor"]
        assert figure["ratio"] == pytest.approx(figure["seconds"] / figure["floor_seconds"], abs=1e-3)


@pytest.mark.integration
def test_a_contract_net_is_measured_in_all_ways() -> None:
    """`python -m benchmarks.contract_net` measures agents in process and on each link, bare components and stock SPADE
    agents over the same ejabberd, with the processor time of each process; the ratio to the floor is at the top."""
    skip_unless_installed(Kind.EJABBERD)
    command = [sys.executable, "-m", "benchmarks.contract_net", "--json", "--sizes", "10", "--rounds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    rows = {row["way"]: row for row in report["rows"]}
    floor, peer = rows["floor: bare components"], rows["peer: stock SPADE 4, unsigned"]
    assert {"in process", "component", "client"} < rows.keys()
    ours = rows["component"]
    assert ours["ratio_to_floor"] == pytest.approx(ours["seconds"] / floor["seconds"], abs=1e-3)
    for row in (ours, floor, peer, rows["client"]):
        assert row["cpu"].keys() == {"broker", "vendors", "ejabberd"}
    assert report["ratio_to_floor_at_10"] == rows["component"]["ratio_to_floor"]
    assert rows["component"]["started"] > 0
    assert peer["started"] > 0
    assert {row["vendors"] for row in report["rows"]} == {10}
