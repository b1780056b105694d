"""The source dies in the middle of a relocation: nothing is lost."""

from __future__ import annotations

import os
from collections.abc import Iterator

import httpx
import pytest

from tests.labs.agency import Guestbook, running_agency_process, wait_until

pytestmark = pytest.mark.integration

ENTRIES = [("Ada", "The engine might act upon other things besides number."), ("Žofie", "Ahoj — 👋")]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """A guestbook for this module, with entries and a picture. The volume is large enough to be hit on its way."""
    folder = tmp_path_factory.mktemp("source-killed")
    with running_agency_process(folder / "state") as lab:
        book = Guestbook(lab, folder / "book", size_mib=32)
        book.deploy()
        book.write(*ENTRIES)
        yield book


@pytest.fixture
def book(deployed: Guestbook) -> Guestbook:
    """The guestbook at aurora, whatever an earlier test did with it."""
    deployed.lab.idle(deployed.name)
    deployed.lab.tidy()
    if deployed.place != "aurora":
        deployed.relocate("aurora")
    return deployed


ALL = ("fence-web", "stop-web", "fetch-volume-data", "launch-web")
POINTS = ALL if os.environ.get("AGENCY_TEST_EVERY_KILL") else ("stop-web", "fetch-volume-data")


@pytest.mark.parametrize("task", POINTS)
def test_killing_the_source_loses_nothing(book: Guestbook, task: str) -> None:
    """When the source is killed on the way, the application runs with all its data once the source is back: there
    again, or at the target."""
    lab, content = book.lab, book.content()
    last = lab.last_event(book.name)
    command = lab.begin("relocate", book.name, "--to", "cirrus", "--apply")
    lab.await_event(book.name, "task-started", task, after=last)
    killed = lab.kill_cloud("aurora")
    stdout, stderr = command.communicate(timeout=120)

    lab.cloud_back("aurora", killed)
    status = lab.idle(book.name)
    assert status["status"] == "running", stdout + stderr
    assert book.place == ("cirrus" if command.returncode == 0 else "aurora")
    wait_until("it answers", lambda: _answers(book))
    assert book.content() == content
    lab.tidy()
    lab.assert_whole(book.name)


def _answers(book: Guestbook) -> bool:
    try:
        return bool(book.content())
    except httpx.HTTPError:
        return False
