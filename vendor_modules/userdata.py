"""User data as clouds hand it to a machine at its first boot: a shell script.

Every image with cloud-init runs user data that begins with ``#!`` once, as root, at the first boot
(https://docs.cloud-init.io/en/latest/explanation/format/userdata-script.html), so do Google's and most vendors' own
guest agents. The script is the whole of what a module must deliver.
"""

from __future__ import annotations

import shlex
from base64 import encodebytes
from pathlib import PurePosixPath

from vendor_modules.errors import InvalidRequest
from vendor_modules.resources import UserData

HOME = "/srv/machine"
"""The machine's working directory."""
SYSTEMD = "/run/systemd/system"
"""There where systemd runs."""
UNIT = "cloud-agency-machine.service"
PORT = 8080
"""Where a machine's service listens, on all its addresses."""


def script(user_data: UserData, *, largest: int | None = None) -> bytes:
    """The script that writes the files below :data:`HOME`, runs the manifest's install commands and starts its service,
    also after later boots where systemd runs. Its output goes to the console.

    :class:`~vendor_modules.errors.InvalidRequest` if it has more bytes than ``largest``, or a path leads outside.
    """
    lines = ["#!/bin/sh", "set -eu", f"mkdir -p {HOME}", f"cd {HOME}"]
    for path, content in user_data.files.items():
        lines += _file(path, content)
    lines += [f"export HOST=0.0.0.0 PORT={PORT}", "tty=/dev/console; [ -w $tty ] || tty=/dev/null"]
    if not user_data.manifest.installed:
        lines += [f"{command} >$tty 2>&1" for command in user_data.manifest.install]
    if user_data.manifest.start:
        lines += _service(user_data.manifest.start)
    made = "\n".join([*lines, ""]).encode()
    if largest is not None and len(made) > largest:
        raise InvalidRequest(f"the user data makes a script of {len(made)} bytes; the provider takes {largest}")
    return made


def _file(path: str, content: bytes) -> list[str]:
    parts = PurePosixPath(path)
    if parts.is_absolute() or ".." in parts.parts or not parts.name:
        raise InvalidRequest(f"user data has the file {path!r}, which is not below the working directory")
    target, folder = shlex.quote(str(parts)), shlex.quote(str(parts.parent))
    return [f"mkdir -p {folder}", f"base64 -d > {target} <<'='", encodebytes(content).decode().rstrip("\n"), "="]


def _service(command: str) -> list[str]:
    # base64 has no character that a shell or systemd reads in a way of its own
    runner = f"#!/bin/sh\ncd {HOME}\nexport HOST=0.0.0.0 PORT={PORT}\nexec {command}\n".encode()
    unit = (
        f"[Unit]\nAfter=network-online.target\n[Service]\nExecStart={HOME}/.start\nRestart=on-failure\n"
        "StandardOutput=journal+console\n[Install]\nWantedBy=multi-user.target\n"
    ).encode()
    return [
        *_file(".start", runner),
        "chmod +x .start",
        f"if [ -d {SYSTEMD} ]; then",
        f"base64 -d > /etc/systemd/system/{UNIT} <<'='",
        encodebytes(unit).decode().rstrip("\n"),
        "=",
        f"systemctl enable --now --no-block {UNIT}",
        "else",
        "./.start >$tty 2>&1 &",
        "fi",
    ]
