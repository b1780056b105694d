"""What goes wrong in a command is told in words, or as one JSON document: never as a traceback, never with a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import os
import socket
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agency.cli import app
from agency.demo import _settings as _demo_settings
from agency.store.store import Store, VendorConfig
from tests.labs.agency import Answer, run, running_agency_process

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


def busy_port() -> socket.socket:
    """A port that somebody else has."""
    return socket.create_server(("127.0.0.1", 0))


def spoiled(state: Path, how: str) -> dict[str, str]:
    """Spoil the state directory, or what else the agency needs, in that way; gives the environment for it."""
    state.mkdir(parents=True)
    if how == "bad-master-key":
        return {"AGENCY_MASTER_KEY": SHORT_KEY}
    if how == "open-master-key":
        (state / "master.key").write_bytes(b"k" * 32)
        (state / "master.key").chmod(0o644)
    elif how == "no-database":
        (state / "agency.db").write_text("no database " * 100)
    elif how == "no-workflow-database":
        (state / "workflows.db").write_text("no database " * 100)
    elif how == "state-is-a-file":
        state.rmdir()
        state.touch()
    elif how == "no-postgresql":
        return {"AGENCY_DATABASE": "postgresql://agency:hush@127.0.0.1:9/agency"}
    elif how == "no-postgresql-for-workflows":
        return {"AGENCY_WORKFLOW_DATABASE": "postgresql+psycopg://agency:hush@127.0.0.1:9/agency"}
    elif how == "bad-setting":
        return {"AGENCY_CALL_SECONDS": "soon"}
    return {}


WAYS = {
    "bad-master-key": "bad-master-key",
    "open-master-key": "bad-master-key",
    "no-database": "store-unusable",
    "no-workflow-database": "store-failed",
    "state-is-a-file": "bad-state-directory",
    "no-postgresql": "store-unusable",
    "no-postgresql-for-workflows": "store-failed",
    "bad-setting": "bad-value",
}


@pytest.mark.parametrize("way", WAYS)
def test_an_agency_that_cannot_start_says_why(tmp_path: Path, way: str) -> None:
    """Whatever keeps an agency from starting, it is told with what to do about it, and nothing goes on running."""
    state = tmp_path / "state"
    environment = spoiled(state, way)
    answer = failed("up", "--no-testbed", "--state", state, code=WAYS[way], **environment)
    assert "hush" not in answer.stderr


@pytest.mark.parametrize("way", ["bad-master-key", "open-master-key", "no-database", "state-is-a-file", "bad-setting"])
def test_a_demo_that_cannot_start_prints_one_document(tmp_path: Path, way: str) -> None:
    """``agency demo --json`` that cannot start prints one JSON document with the problem and no checks, and ends with
    status 1."""
    state = tmp_path / "state"
    environment = spoiled(state, way)
    answer = failed("demo", "--json", "--state", state, code=WAYS[way], **environment)
    assert json.loads(answer.stdout)["checks"] == {}


def test_a_demo_has_databases_of_its_own(tmp_path: Path) -> None:
    """The demo never plays with the databases that the environment names for the real agency."""
    settings = _demo_settings(tmp_path)
    assert str(tmp_path) in settings.store_url()
    assert str(tmp_path) in settings.workflow_url()


def test_a_port_that_cannot_be_had(tmp_path: Path) -> None:
    """A port that is taken is a refusal with status 1; one that there is not is wrong usage, with status 2."""
    with busy_port() as other:
        port = str(other.getsockname()[1])
        failed("up", "--no-testbed", "--state", tmp_path, "--port", port, code="port-not-free")
        # the environment counts as much as the option
        failed("up", "--state", tmp_path, code="port-not-free", AGENCY_PORT=port, AGENCY_TESTBED="false")
    for number in ("70000", "-1"):
        answer = run("up", "--state", tmp_path, "--port", number)
        assert (answer.status, answer.stdout) == (2, ""), answer


@pytest.mark.parametrize(
    "content", ["{}", "[]", "null", "not json", '{"url": 1, "token": "t"}', '{"url": "x", "token": "t"}']
)
def test_a_damaged_api_file(tmp_path: Path, content: str) -> None:
    """An ``api.json`` that does not say where the agency is means that no agency answers."""
    (tmp_path / "api.json").write_text(content)
    result = CliRunner().invoke(app, ["status", "--state", str(tmp_path), "--json"])
    assert result.exit_code == 3
    assert json.loads(result.stdout)["problem"]["code"] == "unreachable"


def test_something_else_at_the_agencys_port(tmp_path: Path) -> None:
    """Where another program has taken the port that an agency had, no agency answers."""

    class Other(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(200)
            self.end_headers()
            self.wfile.write(b"<p>hello</p>")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Other) as other:
        answering = threading.Thread(target=other.handle_request)
        answering.start()
        url = f"http://127.0.0.1:{other.server_address[1]}"
        (tmp_path / "api.json").write_text(json.dumps({"url": url, "token": "t"}))
        result = CliRunner().invoke(app, ["status", "--state", str(tmp_path)])
        answering.join()
    assert result.exit_code == 3
    assert "is no agency" in result.stderr.replace("\n", " ")


def test_a_vendor_without_its_module_is_left_out(tmp_path: Path) -> None:
    """A vendor whose module is not installed any more, or takes other settings now, keeps no agency from starting:
    it is shown as out of reach, with the reason. The state directory may have any name."""
    state = tmp_path / "state [/y]"
    state.mkdir(parents=True)

    async def remember() -> None:
        async with Store.open(f"sqlite+aiosqlite:///{state}/agency.db") as store:
            await store.save_vendor(VendorConfig("gone", "uninstalled", {}))
            await store.save_vendor(VendorConfig("changed", "testbed", {"link": "x"}))

    asyncio.run(remember())
    with running_agency_process(state, AGENCY_TESTBED="false") as lab:
        rows = {row["name"]: row for row in lab.json("vendors")["vendors"]}
        shown = lab.cli("vendors")
    assert {name: row["reachable"] for name, row in rows.items()} == {"gone": False, "changed": False}
    assert "uninstalled" in rows["gone"]["problem"]
    assert "link" in rows["changed"]["problem"]
    assert shown.status == 0
    assert "uninstalled" in shown.stdout
