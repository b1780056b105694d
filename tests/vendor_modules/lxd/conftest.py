"""The LXD that all tests of the module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs.lxd import Lxd, start_lxd


@pytest.fixture(scope="package")
def lab() -> Iterator[Lxd]:
    """An LXD server of our own; what tests make there, they remove."""
    with start_lxd() as running:
        yield running
