"""The benchmarks run, and say what they compare with. What they measure is nobody's business here."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

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
def test_a_contract_net_is_measured_over_a_real_server() -> None:
    """`python -m benchmarks.contract_net` has agents and bare components go through ejabberd, and gives their ratio."""
    command = [sys.executable, "-m", "benchmarks.contract_net", "--json", "--sizes", "20", "--rounds", "3"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    (measured,) = report["component"]
    assert measured["vendors"] == 20
    assert report["ratio_to_floor_at_20"] == pytest.approx(measured["ours"] / measured["floor"], abs=1e-3)
