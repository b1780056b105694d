"""A server's process: it ends with whoever started it, and what is missing is told."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from agency.cli import app
from agency.problems import AgencyError
from agency.servers.running import check_installed
from agency.servers.setting_up import Kind
from tests.labs.agency import wait_until
from tests.labs.xmpp import server_set_up

STARTS_AND_DIES = """
import os, signal, sys
from pathlib import Path
from agency.servers.running import RunningServer
from agency.servers.setting_up import Kind, Plan
ports = dict(zip(("c2s_port", "s2s_port", "component_port"), map(int, sys.argv[2:])))
server = RunningServer(Plan(Kind.PROSODY, "a.test", Path(sys.argv[1]), **ports))
server.start()
print(server.pid, flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.integration
def test_a_server_ends_with_whoever_started_it() -> None:
    """A server whose starter was killed ends by itself, and its port is free again."""
    with server_set_up("prosody") as server:
        plan = server.plan
        where = [plan.directory, *map(str, (plan.c2s_port, plan.s2s_port, plan.component_port))]
        done = subprocess.run(
            [sys.executable, "-c", STARTS_AND_DIES, *where], capture_output=True, text=True, check=False
        )
        assert done.returncode == -signal.SIGKILL, done.stderr
        wait_until("the server's end", lambda: not Path(f"/proc/{int(done.stdout)}").exists())


@pytest.mark.integration
def test_a_server_that_does_not_start_says_why() -> None:
    """What the server complained of is in the refusal."""
    with server_set_up("prosody") as server:
        start = server.plan.directory / "start"
        start.write_text("#!/bin/sh\necho no such luck >&2\nexit 1\n")
        with pytest.raises(AgencyError, match="no such luck"):
            server.start()
        assert not server.running


@pytest.mark.parametrize("kind", list(Kind))
def test_a_server_that_is_not_installed(kind: Kind, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where the program is missing, the demo says which one and what to install, before it makes anything."""
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    with pytest.raises(AgencyError, check=lambda error: error.problem.code == "not-installed"):
        check_installed(kind)
    done = CliRunner().invoke(app, ["demo", "--link", "component", "--server", kind])
    assert done.exit_code == 1
    assert f"no {kind} on this machine" in done.output
    assert f"package {kind}" in done.output
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    "options",
    [
        ("--link", "pigeon"),
        ("--link", "component"),
        ("--server", "ejabberd"),
        ("--link", "client", "--server", "openfire"),
    ],
)
def test_a_link_and_a_server_go_together(options: tuple[str, ...]) -> None:
    """A link that there is not, one without its server, and a server that nobody would use are wrong usage."""
    done = CliRunner().invoke(app, ["demo", *options])
    assert done.exit_code == 2
    assert "--link" in done.output
