"""A PostgreSQL server for tests: its own cluster in a temporary directory, on a free port of the loopback interface."""

from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from agency.servers.running import reserved_ports

READY_WITHIN = 60
"""Seconds; the machine that tests run on may be busy with other things."""


def _program(name: str) -> str:
    """Where Debian keeps the server's programs, or wherever else one is; skips the test when there is none."""
    found = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"))
    path = str(found[-1]) if found else shutil.which(name)
    if path is None:
        pytest.skip(f"PostgreSQL's {name} is not installed: Debian's package is postgresql")
    return path


@contextmanager
def running_postgresql(socket_directory: Path | None = None) -> Iterator[str]:
    """Run a server until the block ends; gives the URL of an empty database. Its Unix socket is in that directory, or
    in its own."""
    owner = "postgres" if os.geteuid() == 0 else pwd.getpwuid(os.geteuid()).pw_name  # it refuses to run as root
    initdb, server = _program("initdb"), _program("postgres")
    directory = Path(tempfile.mkdtemp(prefix="agency-postgresql-"))
    shutil.chown(directory, owner)
    try:
        options = ["--auth=trust", "--username=agency", "--encoding=UTF8", "--no-sync"]
        subprocess.run([initdb, "-D", directory / "data", *options], user=owner, check=True, capture_output=True)
        with reserved_ports(1) as (port,):
            settings = [
                f"-cport={port}",
                "-clisten_addresses=127.0.0.1",
                f"-cunix_socket_directories={socket_directory or directory}",
            ]
            process = subprocess.Popen(
                [server, "-D", directory / "data", *settings, "-cfsync=off"], user=owner, stderr=subprocess.DEVNULL
            )
            try:
                _await(process, port)
                yield f"postgresql://agency@127.0.0.1:{port}/postgres"
            finally:
                process.terminate()
                process.wait(60)
    finally:
        shutil.rmtree(directory)


def _await(process: subprocess.Popen[bytes], port: int) -> None:
    ready = [_program("pg_isready"), "-q", "-h", "127.0.0.1", "-p", str(port), "-t", "1"]
    for _ in range(4 * READY_WITHIN):
        assert process.poll() is None, "PostgreSQL ended at once"
        if subprocess.run(["timeout", "2", *ready], check=False).returncode == 0:
            return
        subprocess.run(["sleep", "0.25"], check=True)
    raise AssertionError(f"PostgreSQL is not ready after {READY_WITHIN} s")
