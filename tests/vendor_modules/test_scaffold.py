"""`agency vendor new`: what it writes runs at once, and the suite says what of it is missing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from vendor_modules import scaffold

BIN = Path(sys.executable).parent
CORE = {"_create_machine", "_describe_machine", "_list_machines", "_destroy_machine"}


def run(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    """Run one of the environment's commands."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    return subprocess.run(
        [BIN / arguments[0], *arguments[1:]],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.mark.integration
def test_new_module_is_checked_at_once(tmp_path: Path) -> None:
    """`agency vendor new acme && agency vendor check acme` needs nothing else: what is written passes, and the methods
    of the core that are missing are named."""
    done = run("agency", "vendor", "new", "acme", cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    done = run("agency", "vendor", "check", "acme", "--json", cwd=tmp_path)
    report = json.loads(done.stdout)
    outcomes = {check["name"]: check["outcome"] for check in report["checks"]}
    assert done.returncode == 1, "a module of which something is missing does not pass"
    assert outcomes["catalogue-is-sane"] == "passed"
    assert outcomes["unused-module-can-be-closed"] == "failed"
    assert outcomes["volume-is-listed"] == "skipped"
    assert set(report["missing"]) >= {"_create_machine", "_describe_machine", "_list_machines"}
    assert set(report["missing"]) <= CORE


@pytest.mark.integration
def test_its_test_file_runs(tmp_path: Path) -> None:
    """The test file that comes with a new module runs the suite on it, and fails by what is missing."""
    scaffold.write("acme-cloud", tmp_path)
    done = run("pytest", "-q", "-p", "no:cacheprovider", "-p", "no:randomly", cwd=tmp_path / "acme-cloud")
    assert done.returncode == 1, done.stdout + done.stderr
    assert "still to be written: _list_machines" in done.stdout
    assert "passed" in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.integration
def test_it_is_clean(tmp_path: Path) -> None:
    """What a new module consists of satisfies the linter and the type checker that this project uses."""
    scaffold.write("acme", tmp_path)
    config = Path(__file__).parent.parent.parent / "pyproject.toml"
    done = run(
        "ruff",
        "check",
        "--no-cache",
        "--ignore",
        "ANN,S101",
        "--config",
        str(config),
        "acme/acme.py",
        "acme/test_acme.py",
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout
    done = run("ruff", "format", "--check", "--no-cache", "--config", str(config), "acme", cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    done = run("mypy", "--strict", "--cache-dir", str(tmp_path / "cache"), "acme/acme.py", cwd=tmp_path)
    assert done.returncode == 0, done.stdout


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    """A folder of that name that is there already stays as it is."""
    scaffold.write("acme", tmp_path)
    (tmp_path / "acme" / "acme.py").write_text("mine")
    with pytest.raises(FileExistsError):
        scaffold.write("acme", tmp_path)
    assert (tmp_path / "acme" / "acme.py").read_text() == "mine"


@pytest.mark.integration
@pytest.mark.parametrize("name", ["Acme", "1acme", "../acme", "class", "x" * 41, "a_b", "json", "httpx"])
def test_names_that_cannot_be_are_refused(tmp_path: Path, name: str) -> None:
    """A name from which no module can be made is refused in words, and nothing is written."""
    done = run("agency", "vendor", "new", name, "--json", cwd=tmp_path)
    assert done.returncode == 1
    problem = json.loads(done.stdout)["problem"]
    assert problem["code"] == "bad-value"
    assert name in problem["message"]
    assert not list(tmp_path.iterdir())
