"""The error tree: every error says what to do, whether a retry helps, and is drawn in the module's docstring."""

from __future__ import annotations

import re
from collections.abc import Iterator

import pytest

from vendor_modules import errors
from vendor_modules.errors import Throttled, VendorError


def _tree(error: type[VendorError] = VendorError) -> Iterator[type[VendorError]]:
    yield error
    for below in error.__subclasses__():
        yield from _tree(below)


ALL = [error for error in _tree() if error.__module__ == errors.__name__]


@pytest.mark.parametrize("error", ALL)
def test_every_error_has_words(error: type[VendorError]) -> None:
    """Each error has a docstring, a remedy, and an answer to whether a retry helps."""
    assert error.__doc__
    assert error.remedy.strip()
    assert isinstance(error.retryable, bool)


def test_tree_in_the_docstring_is_the_tree() -> None:
    """The drawing names every error once, with the right answer about retries, and none that is not there."""
    drawn = dict(re.findall(r"[├└]── (\w+) +(yes|no) ", errors.__doc__ or ""))
    assert drawn == {error.__name__: "yes" if error.retryable else "no" for error in ALL if error is not VendorError}


def test_message_says_where() -> None:
    """The text names vendor and operation as far as they are known, and then the provider's words."""
    assert str(VendorError("no")) == "no"
    assert str(VendorError("no", vendor="alpha", operation="create volume")) == "alpha: create volume: no"
    assert str(VendorError("no", vendor="alpha")) == "alpha: no"


def test_throttled_says_when() -> None:
    """A throttled call knows when to come back, in seconds."""
    assert Throttled("busy", retry_after=7.5).retry_after == 7.5
