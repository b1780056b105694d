"""Azurite, Microsoft's emulator of Azure's storage, as a process of the test's own. It checks signatures.

It is an npm package; ``npm install`` puts it into a cache of this user once. A test that wants it is skipped where it
cannot be had (no ``node``, no ``npm``, no registry); its version is fixed.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

VERSION = "3.35.0"  # later ones need a Node.js that Debian 12 has not
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
"""The emulator's well-known account: it is printed in its documentation."""
INSTALL_WITHIN = 500.0
"""Seconds that npm has."""


@contextmanager
def start_azurite(folder: Path) -> Iterator[str]:
    """The blob service; gives its URL. State is kept in memory, the log in ``folder``."""
    command = _program()
    with (folder / "azurite.log").open("w") as log:
        arguments = ["--blobPort", "0", "--inMemoryPersistence", "--disableTelemetry", "--skipApiVersionCheck"]
        process = subprocess.Popen(
            [*command, "--blobHost", "127.0.0.1", *arguments], stdout=subprocess.PIPE, stderr=log, text=True, cwd=folder
        )
        try:
            yield _address(process)
        finally:
            process.kill()  # asked to end, it would wait for all connections; it keeps nothing
            process.wait()
            assert process.stdout is not None
            process.stdout.close()


def _address(process: subprocess.Popen[str]) -> str:
    assert process.stdout is not None
    for line in process.stdout:
        if "successfully listen" in line:
            return line.split()[-1]
    raise RuntimeError("azurite did not start: see its log")


def _program() -> list[str]:
    node, npm = shutil.which("node"), shutil.which("npm")
    if node is None or npm is None:
        pytest.skip("azurite needs node and npm")
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "cloud-agency" / f"azurite-{VERSION}"
    if not cache.exists():
        cache.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=cache.parent) as making:
            _install(npm, Path(making))
            _keep(Path(making), cache)
    return [node, str(cache / "node_modules/azurite/dist/src/blob/main.js")]


def _install(npm: str, folder: Path) -> None:
    """Install into ``folder``; the test is skipped where that fails, or takes too long."""
    install = [npm, "install", "--no-audit", "--no-fund", "--ignore-scripts", f"azurite@{VERSION}"]
    try:
        made = subprocess.run(install, cwd=folder, capture_output=True, text=True, timeout=INSTALL_WITHIN, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(f"azurite cannot be installed: npm was not done after {INSTALL_WITHIN:g} s")
    if made.returncode:
        pytest.skip(f"azurite cannot be installed: {made.stderr.strip()[-200:]}")


def _keep(made: Path, cache: Path) -> None:
    """Let what was made be the cache, unless another run of this user was faster: then it is its."""
    try:
        made.rename(cache)
    except OSError:
        if not cache.exists():
            raise
    made.mkdir(exist_ok=True)  # the temporary directory, to be removed
