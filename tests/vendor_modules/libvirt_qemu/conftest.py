"""The libvirt that all tests of the module share."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs.libvirt import Libvirt, start_libvirt


@pytest.fixture(scope="package")
def lab() -> Iterator[Libvirt]:
    """A libvirtd of our own; what tests make there, they remove."""
    with start_libvirt() as running:
        yield running
