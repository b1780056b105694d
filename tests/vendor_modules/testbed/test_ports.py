"""Ports that clouds of one computer choose."""

from __future__ import annotations

import subprocess
import sys

import pytest

from vendor_modules.testbed import ports

ANOTHER_CLOUD = """
from vendor_modules.testbed import ports
ports._CHOICE = range({port}, {port} + 1)
print(ports.choose_port(()))
"""


def another_cloud(port: int) -> subprocess.CompletedProcess[str]:
    """Another process that chooses, where there is no other port."""
    command = [sys.executable, "-c", ANOTHER_CLOUD.format(port=port)]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_no_two_clouds_choose_the_same_port(monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that one cloud has chosen is no other's, though nobody listens there yet, until it is given up."""
    port = ports.choose_port(())
    refused = another_cloud(port)
    assert refused.returncode != 0
    assert "no free port" in refused.stderr
    monkeypatch.setattr(ports, "_CHOICE", range(port + 1, port + 200))
    ports.choose_port(())
    assert another_cloud(port).stdout == f"{port}\n"
