"""A new Vendor Module to begin with: it runs, and the conformance suite says what of it is still to be written."""

from __future__ import annotations

from importlib.resources import files
from pathlib import Path
from string import Template

FILES = {
    "module.py": "{package}.py",
    "test.py": "test_{package}.py",
    "vendor.yaml": "vendor.yaml",
    "pyproject.toml": "pyproject.toml",
}
"""Each template, and the file that is made from it."""


def write(name: str, directory: Path) -> list[Path]:
    """Write a module called ``name`` (lower-case letters, digits and hyphens) below ``directory``, in a new folder of
    that name; returns its files. :class:`FileExistsError` if there is something of that name: nothing is overwritten.
    """
    package = name.replace("-", "_")
    words = {"name": name, "package": package, "Class": "".join(part.capitalize() for part in name.split("-"))}
    words["CLASS"] = package.upper()
    target = directory / name
    target.mkdir(parents=True)
    written = []
    for template, made in FILES.items():
        file = target / made.format(package=package)
        text = files(__package__).joinpath("templates", f"{template}.template").read_text()
        file.write_text(Template(text).substitute(words))
        written.append(file)
    return written
