"""Ports that clouds of one computer choose."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from vendor_modules.testbed import ports
from vendor_modules.testbed.ports import Claims


def test_no_two_clouds_choose_the_same_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A port that one cloud has chosen is no other's, though nobody listens there, until it is given up or the cloud's
    state directory is gone."""
    monkeypatch.setattr(ports.tempfile, "gettempdir", lambda: str(tmp_path))
    for name in ("one", "other"):
        (tmp_path / name).mkdir()
    one, other = Claims(tmp_path / "one"), Claims(tmp_path / "other")
    port = one.choose()
    monkeypatch.setattr(ports, "_CHOICE", range(port, port + 1))
    with pytest.raises(OSError, match="no free port"):
        other.choose()
    other.release(port)  # as an older cloud may, whose ports were never claimed
    with pytest.raises(OSError, match="no free port"):
        other.choose()
    one.release(port)
    assert other.choose() == port
    with pytest.raises(OSError, match="no free port"):
        one.choose()
    shutil.rmtree(tmp_path / "other")
    assert one.choose() == port
