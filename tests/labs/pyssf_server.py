"""An OCCI service that is not ours: pyssf 0.4.7 from PyPI, written for Python 2 in 2012, made to run by lib2to3.

Nothing of pyssf is in this repository: pip gets its source archive, the standard library's converter rewrites its
syntax, and :mod:`tests.labs.pyssf_service` runs on it in a process of its own. lib2to3 ended with Python 3.12.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

PYSSF = "pyssf==0.4.7"


class NotToBeHad(Exception):
    """The service cannot be installed here; the message says why."""


def install(folder: Path) -> Path:
    """Put pyssf, converted, into the folder; returns what is to be on the path."""
    fetch = [
        sys.executable,
        "-m",
        "pip",
        "download",
        "-q",
        "--no-deps",
        "--no-binary",
        ":all:",
        "-d",
        str(folder),
        PYSSF,
    ]
    _run(fetch, "pip cannot get pyssf")
    (archive,) = folder.glob("pyssf-*.tar.gz")
    with tarfile.open(archive) as tar:
        safely: dict[str, Any] = {"filter": "data"} if hasattr(tarfile, "data_filter") else {}  # new in 3.11.4
        tar.extractall(folder, **safely)  # noqa: S202 - PyPI's archive of a version that is pinned
    source = folder / archive.name.removesuffix(".tar.gz")
    convert = [sys.executable, "-W", "ignore", "-m", "lib2to3", "-w", "-n", "--no-diffs", str(source / "occi")]
    _run(convert, "lib2to3 cannot convert pyssf")
    return source


def _run(command: list[str], otherwise: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    if done.returncode:
        raise NotToBeHad(f"{otherwise}: {done.stderr.strip()[-300:]}")


@contextmanager
def running(source: Path) -> Iterator[str]:
    """The service, while the block lasts; its URL."""
    program = Path(__file__).with_name("pyssf_service.py")
    environment = os.environ | {"PYTHONPATH": str(source)}
    process = subprocess.Popen(
        [sys.executable, "-W", "ignore", str(program)], env=environment, stdout=subprocess.PIPE, text=True
    )
    try:
        assert process.stdout
        port = process.stdout.readline().strip()
        if not port:
            raise NotToBeHad(f"the service ended with {process.wait()}")
        yield f"http://127.0.0.1:{port}"
    finally:
        process.kill()
        process.communicate()
