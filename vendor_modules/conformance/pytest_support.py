"""For test files that run the conformance suite with pytest: import :func:`lender` there, beside a fixture ``subject``
of module scope that is the :class:`~vendor_modules.conformance.Subject`. Needs pytest and pytest-asyncio."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest_asyncio

from vendor_modules.conformance.lender import Lender
from vendor_modules.conformance.subject import Subject


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def lender(subject: Subject) -> AsyncIterator[Lender]:
    """What the module's checks share, removed when all of them have run."""
    lent = Lender(subject)
    yield lent
    problems = await lent.close()
    assert not problems, "; ".join(problems)  # noqa: S101 - a test's
