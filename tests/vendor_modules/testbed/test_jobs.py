"""Work that goes on after the API has answered."""

from __future__ import annotations

import asyncio

import structlog

from vendor_modules.testbed.jobs import Jobs


async def test_unforeseen_failure_of_a_job_is_told() -> None:
    """Whoever waits for a resource whose job failed in a way nobody foresaw is not left waiting."""
    told: list[tuple[str, str]] = []
    done = asyncio.Event()

    def tell(resource: str, problem: str) -> None:
        told.append((resource, problem))
        done.set()

    jobs = Jobs(structlog.get_logger(), tell)

    async def fails() -> None:
        raise AttributeError("no such thing in this version of Python")

    jobs.start("machine-1", fails())
    await done.wait()
    assert [resource for resource, _ in told] == ["machine-1"]
    assert "AttributeError" in told[0][1]


async def test_cancelled_job_has_not_failed() -> None:
    """A job that was cancelled leaves its resource to whoever cancelled it."""
    told: list[tuple[str, str]] = []
    jobs = Jobs(structlog.get_logger(), lambda resource, problem: told.append((resource, problem)))
    jobs.start("machine-1", asyncio.sleep(60))
    await jobs.cancel("machine-1")
    assert told == []
