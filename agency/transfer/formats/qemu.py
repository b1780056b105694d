"""QEMU's tools, and how files are named to them: open ones, by their numbers, so that what was looked at is what is
used."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Mapping, Sequence
from typing import Any

from agency.problems import refuse

Node = Mapping[str, Any]
"""An image as QEMU's block layer describes it (``BlockdevOptions``): nothing is left for it to find out by itself."""

_PATIENCE = 600
"""Seconds that making an image may take; preallocating the tables of a TiB takes about 20."""


def node(driver: str, file: int, **options: Any) -> Node:
    """An image in that format in an open file."""
    return {"driver": driver, "file": {"driver": "file", "filename": path(file)}, **options}


def path(file: int) -> str:
    """An open file's name to a process that inherits it."""
    return f"/proc/self/fd/{file}"


def create(file: int, format_: str, size: int, name: str) -> None:
    """Make the open file an image of that many bytes, all zeros, in one of the formats; ``tool-missing``,
    ``image-unusable``."""
    require("qemu-img")
    options = {"qcow2": ["-o", "preallocation=metadata"], "vpc": ["-o", "force_size=on"]}.get(format_, [])
    order = ["qemu-img", "create", "-q", "-f", format_, *options, path(file), str(size)]
    try:
        subprocess.run(order, pass_fds=[file], capture_output=True, text=True, timeout=_PATIENCE, check=True)
    except subprocess.SubprocessError as error:
        said = told(error.stderr, [file], name) if isinstance(error, subprocess.CalledProcessError) else "no end"
        raise refuse(
            "image-unusable",
            f"QEMU cannot make {name} a {format_} image of {size} bytes: {said}",
            "see that there is room; or transfer it in another format",
        ) from error


def require(tool: str, package: str = "qemu-utils") -> None:
    """``tool-missing`` if it is not installed."""
    if shutil.which(tool) is None:
        raise refuse("tool-missing", f"{tool} is not installed", f"install Debian's package {package}")


def told(words: str, files: Sequence[int], name: str) -> str:
    """What a tool said, in one line, with the image's name instead of the numbers of files."""
    for file in files:
        words = words.replace(path(file), name)
    return "; ".join(line.strip() for line in words.splitlines() if line.strip())[:1000]
