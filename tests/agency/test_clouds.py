"""The agency's own testbed clouds."""

from __future__ import annotations

from pathlib import Path

import pytest

from agency.clouds import CLOUDS, Cloud

pytestmark = pytest.mark.integration


async def test_a_cloud_does_not_inherit_the_agencys_secrets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cloud's process has the few environment variables that it needs, and none of the agency's own."""
    monkeypatch.setenv("AGENCY_MASTER_KEY", "key-hush")
    monkeypatch.setenv("AGENCY_DATABASE", "postgresql://agency:hush@db/agency")
    monkeypatch.setenv("SOMEBODYS_TOKEN", "hush")
    cloud = Cloud(CLOUDS[0], tmp_path, "a password", restart_after=1.0)
    await cloud.start()
    try:
        environment = Path(f"/proc/{cloud.pid}/environ").read_bytes()
    finally:
        await cloud.stop()
    assert b"PATH=" in environment
    assert b"hush" not in environment
    assert b"AGENCY_" not in environment
