"""What is said of the modules, made from their classes."""

from __future__ import annotations

from pathlib import Path

import pytest

from vendor_modules.abilities import Support
from vendor_modules.capabilities import CAPABILITIES, OPERATIONS, abilities, capabilities
from vendor_modules.documentation import about, installed, markdown
from vendor_modules.module import Proof

DOCS = Path(__file__).parent.parent.parent / "docs" / "vendors.md"


def test_the_page_is_what_the_classes_say() -> None:
    """docs/vendors.md is generated: `python -m vendor_modules.documentation > docs/vendors.md` makes it anew."""
    assert DOCS.read_text() == markdown(installed())


def test_there_are_twenty_providers() -> None:
    """At least twenty modules are installed, each with a proof level, what the proof was, and its credentials."""
    modules = installed()
    assert len(modules) >= 20
    for name, module in modules.items():
        assert module.title, name
        assert module.proof in Proof, name
        assert module.proven_by.endswith("."), name


def test_what_is_unproven_says_so() -> None:
    """A module that only follows a published protocol says that it is unproven against a live service."""
    for name, module in installed().items():
        if module.proof is Proof.PROTOCOL_ONLY:
            assert "unproven against a live service" in module.proven_by, name


@pytest.mark.parametrize("name", sorted(installed()))
def test_abilities_fit_the_class(name: str) -> None:
    """What a module declares of an operation exists, concerns a capability that it has, and an operation of one that it
    has not is unsupported."""
    module = installed()[name]
    known = {operation for operations in OPERATIONS.values() for operation in operations}
    assert set(module.abilities) <= known
    able = capabilities(module)
    for capability, operations in OPERATIONS.items():
        for operation in operations:
            if capability not in able:
                levels = {Support.UNSUPPORTED, Support.ON_CREATION}
                assert abilities(module)[operation].support in levels, f"{operation}: there is no {capability}"
    assert set(about(name, module)["capabilities"]) == set(CAPABILITIES)


@pytest.mark.parametrize("name", sorted(installed()))
def test_settings_are_explained(name: str) -> None:
    """Every setting of a module says what it is: forms and pages are made from that."""
    settings = about(name, installed()[name])["settings"]
    assert [field for field, said in settings.items() if not said["about"]] == []
