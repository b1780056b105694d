"""`agency prices` and `agency prices update`, as processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.labs.agency import run
from vendor_modules.catalog import Catalog, Query

pytestmark = pytest.mark.integration

SLOW = ("libcloud", "sqlalchemy", "spade", "lxml", "structlog", "pydantic_settings", "rich.table", "descriptors")
"""What no answer may wait for."""


@pytest.fixture
def state(tmp_path: Path, whole: Path) -> Path:
    """A state directory with a catalogue of everything."""
    (tmp_path / "state" / "prices").mkdir(parents=True)
    (tmp_path / "state" / "prices" / "catalogue.db").write_bytes((whole / "catalogue.db").read_bytes())
    return tmp_path / "state"


def test_the_answer_as_json(state: Path, whole: Path) -> None:
    """The answer is the catalogue's; prices are exact text, memory is asked for in GiB."""
    command = ("prices", "--min-cores", "4", "--min-memory", "16", "--region", "eu", "--sort", "price", "--json")
    done = run(*command, "--state", state)
    assert (done.status, done.stderr) == (0, "")
    answer = json.loads(done.stdout)
    expected = Catalog(whole).query(Query(min_cores=4, min_memory_mib=16384, region="eu", limit=20))
    assert answer["found"] == expected.found
    assert [row.pop("price_per_hour") for row in answer["prices"]] == [str(p.per_hour) for p in expected.prices]
    assert answer["prices"] == [
        {name: value for name, value in price._asdict().items() if name != "per_hour"} for price in expected.prices
    ]
    assert len(answer["prices"]) == 20


def test_the_answer_in_words(state: Path) -> None:
    """A table with the price of each, how many there are in all, and where the prices are from; unknown ones last."""
    done = run("prices", "--provider", "ec2", "--region", "eu-west-1", "--unknown", "--limit", "0", "--state", state)
    assert done.status == 0
    first, header, *rows, source = done.stdout.splitlines()
    assert first == f"{len(rows)} of {len(rows)} machines that fit:"
    assert header.split() == ["provider", "region", "law", "size", "os", "cores", "GiB", "per", "hour"]
    assert rows[0].split()[:4] == ["ec2", "eu-west-1", "EU", "t4g.nano"]
    assert rows[0].endswith(" USD")
    assert rows[-1].endswith("unknown")
    unknown = [row.endswith("unknown") for row in rows]
    assert unknown == sorted(unknown)
    assert source == "From libcloud/data/pricing.json, 2025-03-02."


def test_updating(state: Path, table: Callable[..., Path]) -> None:
    """Prices from a file are there afterwards; where currencies meet it is said that nothing is converted, and what a
    file says does not control the terminal."""
    file = table("provider,region,size,price_per_hour,currency\nacme,north,s\x1b[31m1,0.05,EUR\nacme,north,s2,0,EUR\n")
    done = run("prices", "update", file, "--state", state)
    assert done.status == 0, done
    assert "acme has 2 prices now, from acme.csv." in done.stdout
    assert "1 of them are unknown" in done.stdout
    shown = run("prices", "--provider", "acme", "--unknown", "--state", state)
    assert "s?[31m1" in shown.stdout
    assert "0.05 EUR" in shown.stdout
    assert "unknown" in shown.stdout
    assert "nothing is converted" in run("prices", "--limit", "0", "--state", state).stdout
    again = json.loads(run("prices", "update", file, "--json", "--state", state).stdout)
    assert (again["file"], again["providers"], again["unknown"]) == ("acme.csv", {"acme": 2}, 1)


@pytest.mark.parametrize(
    ("arguments", "status", "code"),
    [
        (("--region", "atlantis"), 1, "not-listed"),
        (("--provider", "acme"), 1, "not-listed"),
        (("update", "no-such-file.csv"), 2, "bad-price-file"),
    ],
    ids=str,
)
def test_problems(state: Path, arguments: tuple[str, ...], status: int, code: str) -> None:
    """What goes wrong ends with its status, a code, words, and what to do: on standard error, or as JSON."""
    words = run("prices", *arguments, "--state", state)
    assert (words.status, words.stdout) == (status, "")
    assert code in words.stderr
    assert "what to do" in words.stderr
    problem = run("prices", *arguments, "--state", state, "--json")
    assert problem.status == status
    assert json.loads(problem.stdout)["problem"]["code"] == code


def test_a_state_directory_that_cannot_be(tmp_path: Path) -> None:
    """A file in the place of the state directory ends with status 1 and words."""
    (tmp_path / "file").write_text("")
    done = run("prices", "--state", tmp_path / "file")
    assert (done.status, done.stdout) == (1, "")
    assert "prices-unusable" in done.stderr


@pytest.mark.parametrize(
    "option", [("--sort", "beauty"), ("--min-cores", "0"), ("--limit", "-1"), ("--min-memory", "x")]
)
def test_wrong_usage(state: Path, option: tuple[str, str]) -> None:
    """Wrong usage ends with status 2 and words."""
    done = run("prices", *option, "--state", state)
    assert (done.status, done.stdout) == (2, "")
    assert done.stderr


def test_an_answer_waits_for_nothing_slow(state: Path) -> None:
    """Neither help nor an answer imports what takes long, libcloud least of all."""
    program = "import sys; from agency.cli import app; app(sys.argv[1:], standalone_mode=False); " + (
        f"print([name for name in {SLOW!r} if name in sys.modules], file=sys.stderr)"
    )
    for arguments in (("prices", "--region", "eu", "--state", str(state)), ("prices", "--json", "--state", str(state))):
        command = [sys.executable, "-c", program, *arguments]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert done.stderr.strip() == "[]"
