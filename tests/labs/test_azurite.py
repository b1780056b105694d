"""Having Azurite: what becomes of an installation that is late, or too slow."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.labs import azurite


def test_the_faster_of_two_runs_fills_the_cache(tmp_path: Path) -> None:
    """A run that comes second uses the first's cache; where there is none, its failure is told."""
    made, cache = tmp_path / "making", tmp_path / "cache"
    for folder, text in ((cache, "first"), (made, "second")):
        folder.mkdir()
        (folder / "program").write_text(text)
    azurite._keep(made, cache)
    assert (cache / "program").read_text() == "first"
    with pytest.raises(OSError, match="none"):
        azurite._keep(made, tmp_path / "none" / "cache")


def test_an_installation_that_takes_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """When npm is not done in time, the test that wants the emulator is skipped."""
    npm = tmp_path / "npm"
    npm.write_text("#!/bin/sh\nexec sleep 60\n")
    npm.chmod(0o755)
    monkeypatch.setattr(azurite, "INSTALL_WITHIN", 0.1)
    with pytest.raises(pytest.skip.Exception, match=r"not done after 0\.1 s"):
        azurite._install(str(npm), tmp_path)
