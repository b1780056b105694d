"""What goes wrong in a command is told in words, or as one JSON document: never as a traceback, never with a secret."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path

import pytest

from tests.labs.agency import Answer, run

pytestmark = pytest.mark.integration

SHORT_KEY = base64.b64encode(b"k" * 31).decode()


def failed(*arguments: str | Path, code: str, status: int = 1, **environment: str) -> Answer:
    """Run a command that must fail with that problem, in words and without a traceback or the master key."""
    answer = run(*arguments, env={**os.environ, **environment})
    assert answer.status == status, answer
    assert "Traceback" not in answer.stdout + answer.stderr
    assert SHORT_KEY not in answer.stdout + answer.stderr
    if "--json" in arguments:
        assert json.loads(answer.stdout)["problem"]["code"] == code, answer
    else:
        assert answer.stdout == ""
        assert code in answer.stderr, answer
        assert "what to do" in answer.stderr
    return answer


@pytest.mark.parametrize("more", [(), ("--json",)], ids=["words", "json"])
def test_a_vendor_command_tells_no_secret(tmp_path: Path, more: tuple[str, ...]) -> None:
    """A vendor command that cannot use the master key says so, and prints no traceback with the key in it."""
    arguments = ("vendor", "remove", "acme", "--state", tmp_path, *more)
    failed(*arguments, code="bad-master-key", AGENCY_MASTER_KEY=SHORT_KEY)


def test_a_vendor_command_on_what_is_no_database(tmp_path: Path) -> None:
    """A vendor command on a file that is no database says so, and standard output has JSON and nothing else."""
    (tmp_path / "agency.db").write_text("no database " * 100)
    failed("vendor", "remove", "acme", "--state", tmp_path, "--json", code="store-unusable")
