"""Tests that share a lab are kept together."""

from __future__ import annotations

import pytest

from tests.labs.sharing import keep_together

pytest_plugins = ["pytester"]

LABS = """
import pytest

@pytest.fixture(scope="session")
def lab(): ...

@pytest.fixture(scope="session")
def other(): ...

@pytest.fixture
def either(request):
    request.getfixturevalue(request.param)
"""
TESTS = """
import pytest

def test_lab(lab): ...
def test_again(lab): ...
@pytest.mark.parametrize("either", ["other"], indirect=True)
def test_parameter(either): ...
def test_other(other): ...
def test_alone(tmp_path): ...
"""


@pytest.fixture(autouse=True)
def _quiet(pytester: pytest.Pytester) -> None:
    pytester.makeini("[pytest]\nasyncio_default_fixture_loop_scope = function")


def test_who_shares_a_lab_is_in_one_group(pytester: pytest.Pytester) -> None:
    """Tests of one lab have one group, also when a parameter names it; others have another group, or none."""
    pytester.makepyfile(**{"sub/__init__": "", "sub/conftest": LABS, "sub/test_it": TESTS})
    items = pytester.inline_genitems()[0]
    keep_together(items)
    groups = {item.name: [mark.args[0] for mark in item.iter_markers("xdist_group")] for item in items}
    lab, other = groups["test_lab"], groups["test_other"]
    assert groups == {
        "test_lab": lab,
        "test_again": lab,
        "test_parameter[other]": other,
        "test_other": other,
        "test_alone": [],
    }
    assert lab != other
    assert lab
    assert other


def test_who_shares_both_brings_them_together(pytester: pytest.Pytester) -> None:
    """When one test has two labs, the tests of both are of one group."""
    pytester.makepyfile(
        **{"sub/__init__": "", "sub/conftest": LABS, "sub/test_it": TESTS + "\ndef test_both(lab, other): ..."}
    )
    items = pytester.inline_genitems()[0]
    keep_together(items)
    groups = {item.name: [mark.args[0] for mark in item.iter_markers("xdist_group")] for item in items}
    assert groups.pop("test_alone") == []
    assert len({tuple(group) for group in groups.values()}) == 1
