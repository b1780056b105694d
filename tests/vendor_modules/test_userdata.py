"""User data as a script: what a machine does with it at its first boot."""

from __future__ import annotations

import subprocess
import time
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from descriptors.machine import MachineManifest
from vendor_modules import userdata
from vendor_modules.errors import InvalidRequest
from vendor_modules.resources import UserData
from vendor_modules.userdata import script


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine's working directory, on a machine without systemd."""
    monkeypatch.setattr(userdata, "HOME", str(tmp_path / "machine"))
    monkeypatch.setattr(userdata, "SYSTEMD", str(tmp_path / "none"))
    return tmp_path / "machine"


def run(data: UserData) -> None:
    """Boot: a real shell runs the script."""
    subprocess.run(["/bin/sh"], input=script(data), check=True, timeout=120, capture_output=True)


def appears(file: Path) -> bool:
    """Whether the file is there within some seconds."""
    for _ in range(1200):
        if file.exists() and file.read_bytes():
            return True
        time.sleep(0.05)
    return False


def test_files_are_written_byte_for_byte(home: Path) -> None:
    """Any bytes arrive, below folders that are made, under names with spaces, quotes and dollar signs."""
    files = {"program.py": b"print(1)\n", "a b/$c/'d'": bytes(range(256)) * 20, "empty": b""}
    run(UserData(files=files))
    assert {str(f.relative_to(home)): f.read_bytes() for f in home.rglob("*") if f.is_file()} == files


def test_the_service_is_installed_and_started(home: Path) -> None:
    """Install commands run once, in order, before the start; the service finds HOST and PORT, and runs in the
    background."""
    start = """sh -c 'echo "$HOST:$PORT" > started'"""
    run(UserData(manifest=MachineManifest(install=("mkdir made", "touch made/it"), start=start)))
    assert (home / "made" / "it").exists()
    assert appears(home / "started")
    assert (home / "started").read_text() == f"0.0.0.0:{userdata.PORT}\n"


def test_what_was_installed_is_not_installed_again(home: Path) -> None:
    """A machine made from a bundle has been installed already."""
    run(UserData(manifest=MachineManifest(install=("touch it",), installed=True)))
    assert not (home / "it").exists()


def test_a_failing_install_command_stops_it(home: Path) -> None:
    """The service is not started on what was installed by half."""
    data = UserData(manifest=MachineManifest(install=("false",), start="touch started"))
    with pytest.raises(subprocess.CalledProcessError):
        run(data)
    assert not (home / "started").exists()


@pytest.mark.parametrize("path", ["/etc/passwd", "../out", "a/../../out", "..", ""])
def test_nothing_is_written_elsewhere(path: str) -> None:
    """A path that leads out of the working directory is refused."""
    with pytest.raises(InvalidRequest, match="not below"):
        script(UserData(files={path: b"x"}))


@given(st.dictionaries(st.text("abc", min_size=1), st.binary(max_size=2000), max_size=3), st.integers(0, 4000))
def test_it_is_never_larger_than_the_provider_takes(files: dict[str, bytes], largest: int) -> None:
    """A script that fits is the same as without a limit; one that does not is refused with both sizes in words."""
    data = UserData(files=files)
    whole = script(data)
    if len(whole) <= largest:
        assert script(data, largest=largest) == whole
    else:
        with pytest.raises(InvalidRequest, match=rf"{len(whole)} bytes.* {largest}$"):
            script(data, largest=largest)
