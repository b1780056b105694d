"""Vendors that are killed while they are asked and accepted, and a server that is killed: a short soak."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from agency.servers.setting_up import Kind
from tests.labs.xmpp import skip_unless_installed


@pytest.mark.integration
def test_rounds_go_on_while_vendors_and_the_server_are_killed() -> None:
    """Of rounds over ejabberd, with a vendor killed every second and the server once: each ends in time with an answer
    or a reason for each vendor, no conversation is stuck, no call leads to two agreements, and both sides know of the
    same ones."""
    skip_unless_installed(Kind.EJABBERD)
    options = {"--seconds": "12", "--vendors": "6", "--restarts": "1", "--offers-last": "6"}
    command = [sys.executable, "-m", "benchmarks.contract_net_soak", "--json"]
    command += [word for option in options.items() for word in option]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.stdout, done.stderr
    report = json.loads(done.stdout)
    assert not report["broken"]
    assert done.returncode == 0, done.stderr
    assert report["vendors_killed"] > 5
    assert len(report["server_outages_seconds"]) == 1
    assert report["answers"]["offer"] > 0
    assert report["acceptances"]["agreed"] > 0
