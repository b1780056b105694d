"""The registry: modules by entry point, and clear words when one cannot be used."""

from __future__ import annotations

from importlib.metadata import EntryPoint
from pathlib import Path
from typing import Any

import pytest

from tests.vendor_modules.toy import ToyModule
from vendor_modules import registry
from vendor_modules.documentation import installed, rows
from vendor_modules.registry import GROUP, BrokenModule, UnknownModule
from vendor_modules.testbed.module import TestbedModule


def _installed(monkeypatch: pytest.MonkeyPatch, **values: str) -> None:
    points = [EntryPoint(name, value, GROUP) for name, value in values.items()]
    monkeypatch.setattr(registry, "entry_points", lambda *, group: points if group == GROUP else [])


def test_testbed_is_installed() -> None:
    """The testbed's module is found by the entry point that this project declares."""
    assert "testbed" in registry.names()
    assert registry.load("testbed") is TestbedModule


def test_third_party_module_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module from anywhere is loaded by its name; names are sorted, each once."""
    _installed(monkeypatch, toy="tests.vendor_modules.toy:ToyModule", another="x:Y")
    assert registry.names() == ["another", "toy"]
    assert registry.load("toy").title == "Toy Cloud"


def test_unknown_module_is_told_with_those_there_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown name raises UnknownModule, which lists the names that there are."""
    _installed(monkeypatch, toy="tests.vendor_modules.toy:ToyModule")
    with pytest.raises(UnknownModule, match=r"'nebula' is installed; there are: toy"):
        registry.load("nebula")
    _installed(monkeypatch)
    with pytest.raises(UnknownModule, match="there are: none"):
        registry.load("nebula")


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ("no.such.package:Module", "cannot be imported: No module named 'no'"),
        ("tests.vendor_modules.toy:Missing", "cannot be imported"),
        ("tests.vendor_modules.toy:CLOUDS", "is not a VendorModule class"),
        ("builtins:str", "is not a VendorModule class"),
    ],
)
def test_broken_module_is_explained(monkeypatch: pytest.MonkeyPatch, value: str, words: str) -> None:
    """A module that cannot be used raises BrokenModule with its name, its place and the reason."""
    _installed(monkeypatch, bad=value)
    with pytest.raises(BrokenModule, match=f"'bad' \\({value}\\) {words}") as caught:
        registry.load("bad")
    assert caught.value is not None


def test_module_that_fails_at_import(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a module raises while it is imported, BrokenModule comes out, with it as the cause."""

    class Exploding(EntryPoint):
        def load(self) -> Any:
            raise ZeroDivisionError("at import")

    monkeypatch.setattr(registry, "entry_points", lambda *, group: [Exploding("bad", "x:Y", group)])
    with pytest.raises(BrokenModule, match="at import") as caught:
        registry.load("bad")
    assert isinstance(caught.value.__cause__, ZeroDivisionError)


def test_a_module_whose_sdk_is_missing_says_which(monkeypatch: pytest.MonkeyPatch) -> None:
    """A module that needs a package that is not installed names it, and does not hide the others from a list."""
    _installed(monkeypatch, acme="no_such_sdk:Module", toy="tests.vendor_modules.toy:ToyModule")
    with pytest.raises(BrokenModule, match="cannot be imported: No module named 'no_such_sdk'"):
        registry.load("acme")
    acme, toy = rows()
    assert (acme["usable"], toy["usable"]) == (False, True)
    assert "no_such_sdk" in acme["problem"]


@pytest.mark.parametrize(
    "value", ["no_such_sdk:Module", "tests.vendor_modules.toy:CLOUDS", "vendor_modules.module:VendorModule"]
)
def test_a_broken_module_is_left_out(monkeypatch: pytest.MonkeyPatch, value: str) -> None:
    """A module that cannot be imported, is none, or says nothing of itself is left out of what is usable, and the list
    of all says why."""
    _installed(monkeypatch, bad=value, toy="tests.vendor_modules.toy:ToyModule")
    assert installed() == {"toy": ToyModule}
    bad, toy = rows()
    assert (bad["usable"], toy["usable"]) == (False, True)
    assert "'bad'" in bad["problem"]


def test_a_module_that_exits_ends_nothing(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """A module that ends the process while it is imported is a broken one."""
    (tmp_path / "leaving.py").write_text("import sys\nsys.exit('I need a licence')\n")
    monkeypatch.syspath_prepend(tmp_path)
    _installed(monkeypatch, bad="leaving:Module")
    with pytest.raises(BrokenModule, match="I need a licence"):
        registry.load("bad")
    with pytest.raises(BrokenModule, match="I need a licence"):
        registry.load_file(tmp_path / "leaving.py", "Module")


def test_a_file_is_loaded(tmp_path: Path) -> None:
    """A module that is being written is loaded from its file; what is wrong with the file is said."""
    file = tmp_path / "draft.py"
    with pytest.raises(UnknownModule, match="there is no Python file"):
        registry.load_file(file, "Draft")
    file.write_text("from vendor_modules.module import VendorModule\nclass Draft(VendorModule): ...\n")
    assert registry.load_file(file, "Draft").__name__ == "Draft"
    with pytest.raises(BrokenModule, match=r"Other in .* is not a VendorModule class"):
        registry.load_file(file, "Other")
    file.write_text("1/0\n")
    with pytest.raises(BrokenModule, match="division by zero"):
        registry.load_file(file, "Draft")
