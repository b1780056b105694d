"""`agency trust`, `agency proof` and `agency verify`, on state directories where no agency runs."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import structlog
from typer.testing import CliRunner

from agency import logs
from agency.cli import app
from agency.trust import proof
from agency.trust.keys import SiteKey
from tests.agency.trust.parties import HERE, THERE
from tests.agency.trust.test_proof import Story


@pytest.fixture(autouse=True)
def _logging() -> Iterator[None]:
    """Commands configure logging for a process of their own."""
    yield
    logs.configure(None)
    logging.getLogger().handlers.clear()
    structlog.reset_defaults()


def run(state: Path, *arguments: str, status: int = 0) -> str:
    """What a command prints."""
    result = CliRunner().invoke(app, [*arguments, "--state", str(state)])
    assert result.exit_code == status, result.output
    return result.output


def answer(state: Path, *arguments: str, status: int = 0) -> Any:
    """What a command answers in JSON."""
    return json.loads(run(state, *arguments, "--json", status=status))


def test_two_sites_trust_each_other(tmp_path: Path) -> None:
    """What one site shows is what the other adds; it is listed, and gone when it is removed."""
    here, there = tmp_path / "here", tmp_path / "there"
    name, key = run(there, "trust", "show").split()
    assert answer(there, "trust", "show") == {"sites": [{"site": name, "key": key}]}
    run(here, "trust", "show")
    assert answer(here, "trust", "add", THERE, key) == {"site": THERE, "key": key}
    assert [(s["site"], s["own"]) for s in answer(here, "trust", "list")["sites"]] == [(name, True), (THERE, False)]
    assert THERE in run(here, "trust", "list")
    run(here, "trust", "remove", THERE)
    assert [s["site"] for s in answer(here, "trust", "list")["sites"]] == [name]


def test_a_site_that_gets_a_domain(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a domain of its own, a site shows that name with the key that it had before, which stays."""
    _, key = run(tmp_path, "trust", "show").split()
    monkeypatch.setenv("AGENCY_DOMAIN", HERE)
    assert {"site": HERE, "key": key} in answer(tmp_path, "trust", "show")["sites"]
    monkeypatch.delenv("AGENCY_DOMAIN")
    assert len(answer(tmp_path, "trust", "show")["sites"]) == 2


def test_refusals(tmp_path: Path) -> None:
    """What cannot be done is refused with its code, and leaves nobody trusted."""
    other = SiteKey.generate(THERE).public
    for arguments, code in (
        (("trust", "add", THERE, "ed25519:nonsense"), "bad-key"),
        (("trust", "add", "Not A Domain", other), "bad-value"),
        (("trust", "remove", THERE), "unknown-site"),
    ):
        assert answer(tmp_path / "state", *arguments, status=1)["problem"]["code"] == code
    assert answer(tmp_path / "state", "trust", "list") == {"sites": []}
    assert "nothing-to-prove" in run(tmp_path / "state", "proof", "guestbook", status=1)


def test_listing_makes_nothing(tmp_path: Path) -> None:
    """To ask who is trusted, or to verify, makes no state directory."""
    state = tmp_path / "nowhere"
    assert answer(state, "trust", "list") == {"sites": []}
    file = _written(tmp_path, Story())
    assert answer(state, "verify", str(file), status=1)["problem"]["code"] == "unknown-key"
    assert not state.exists()


def test_verifying(tmp_path: Path) -> None:
    """Somebody who trusts both sites sees the chain; once a link is taken out, or one site not trusted, why not."""
    story, state = Story(), tmp_path / "auditor"
    file = _written(tmp_path, story)
    assert answer(state, "verify", str(file), status=1)["problem"]["code"] == "unknown-key"
    for key in (story.parties.here, story.parties.there):
        run(state, "trust", "add", key.name, key.public)
    shown = run(state, "verify", str(file))
    assert "all 7 links hold" in shown
    assert "acceptance-1" in shown
    links = answer(state, "verify", str(file))["links"]
    assert {link["signer"] for link in links if link["document"] == "offer"} == {f"vendor-alpha@{THERE}"}
    file = _written(tmp_path, story, without="acceptance")
    assert answer(state, "verify", str(file), status=1)["problem"]["code"] == "missing-link"
    run(state, "trust", "remove", HERE)
    assert answer(state, "verify", str(_written(tmp_path, story)), status=1)["problem"]["code"] == "unknown-key"


def test_verifying_what_is_no_proof(tmp_path: Path) -> None:
    """A file that is not there, or is no proof, is refused in words."""
    (tmp_path / "x.json").write_text("{}")
    assert answer(tmp_path, "verify", str(tmp_path / "x.json"), status=1)["problem"]["code"] == "bad-proof"
    assert answer(tmp_path, "verify", str(tmp_path / "y.json"), status=1)["problem"]["code"] == "system-refused"


def _written(directory: Path, story: Story, without: str = "") -> Path:
    file = directory / "proof.json"
    file.write_text(proof.write(story.proof(without=without)))
    return file
