"""The agency is killed after a task of a relocation: the next agency takes it up and brings it to its end."""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from agency.client import Unreachable
from tests.labs.agency import Guestbook, running_agency_process, wait_until

pytestmark = pytest.mark.integration

ENTRIES = [("Ada", "one"), ("Žofie", "two — 👋")]
TASKS = (
    "key-pair-cirrus", "security-group-web", "address-web", "access-key-pictures", "fence-web", "stop-web",
    "bundle-machine-web", "fetch-machine-web", "bundle-volume-data", "fetch-volume-data", "adapt-web",
    "upload-machine-web", "launch-web", "verify-web", "switch", "release-source", "release-temporary",
)  # fmt: skip
"""The tasks of moving the guestbook from aurora to cirrus."""
SAMPLE = ("fence-web", "fetch-volume-data", "launch-web", "switch", "release-source")
"""The tasks after which the agency is killed in every run; after each of them, which takes minutes, under
``AGENCY_TEST_EVERY_KILL``."""
POINTS = TASKS if os.environ.get("AGENCY_TEST_EVERY_KILL") else SAMPLE


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """A guestbook for this module, with entries and a picture."""
    folder = tmp_path_factory.mktemp("agency-killed")
    with running_agency_process(folder / "state") as lab:
        book = Guestbook(lab, folder / "book")
        book.deploy()
        book.write(*ENTRIES)
        yield book


@pytest.fixture
def book(deployed: Guestbook) -> Guestbook:
    """The guestbook at aurora, whatever an earlier test did with it."""
    deployed.lab.idle(deployed.name)
    if deployed.place != "aurora":
        deployed.relocate("aurora")
    deployed.lab.tidy()
    return deployed


def test_the_tasks_are_all_that_there_are(book: Guestbook) -> None:
    """The plan has exactly the tasks that the agency is killed after here, so that none is forgotten."""
    assert sorted(task["name"] for task in book.plan("cirrus")["tasks"]) == sorted(TASKS)


@pytest.mark.parametrize("task", POINTS)
def test_a_relocation_goes_on_after_the_agency_was_killed(book: Guestbook, task: str) -> None:
    """Killed right after a task, the agency that is started next brings the relocation to its end by itself: the
    application is at the target with its content and nowhere else, and nothing was done or left twice."""
    lab, content = book.lab, book.content()

    def kill(event: dict[str, Any]) -> None:
        if (event["kind"], event.get("text")) == ("task-done", task):
            lab.kill()

    plan = book.plan("cirrus")["id"]
    with pytest.raises(Unreachable) as caught:
        lab.client().follow(f"/plans/{plan}/apply", kill)
    assert str(lab.state) in str(caught.value) or "goes on with the work" in str(caught.value)

    lab.restart()
    lab.idle(book.name)
    (receipt,) = [r for r in lab.client().get("/receipts")["receipts"] if r["plan"] == plan]
    assert receipt["outcome"] == "relocated", receipt["problems"]
    assert receipt["content_before"] == receipt["content_after"]
    assert len(receipt["manifests"]) == 3, "of what was fetched, and of what was uploaded"
    assert book.place == "cirrus"
    wait_until("it answers", lambda: _answers(book))
    assert book.content() == content
    assert book.read() == ENTRIES
    lab.tidy()
    lab.assert_whole(book.name)
    machines = [vendor for vendor, found in lab.held().items() for kind, _ in found if kind == "machine"]
    assert machines == ["cirrus"]
    assert not list((lab.state / "spool").iterdir()), "nothing is left in transit"


def test_a_relocation_goes_on_after_the_agency_was_stopped(book: Guestbook) -> None:
    """Asked to end in the middle of a relocation, the agency ends at once, undoes nothing, and the next one goes on."""
    lab, content, plan = book.lab, book.content(), book.plan("cirrus")["id"]
    ended: list[int] = []

    def stop(event: dict[str, Any]) -> None:
        if event["kind"] == "progress" and event["task"] == "fetch-volume-data" and not ended:
            ended.append(lab.terminate())

    with pytest.raises(Unreachable):
        lab.client().follow(f"/plans/{plan}/apply", stop)
    assert ended == [0]
    lab.restart()
    lab.idle(book.name)
    (receipt,) = [r for r in lab.client().get("/receipts")["receipts"] if r["plan"] == plan]
    assert (receipt["outcome"], receipt["problems"]) == ("relocated", [])
    assert book.content() == content
    lab.tidy()
    lab.assert_whole(book.name)


def test_undoing_goes_on_after_the_agency_was_killed(book: Guestbook) -> None:
    """Killed while it undoes a relocation that was cancelled, the agency that is started next undoes the rest."""
    lab, content, before = book.lab, book.content(), book.lab.application(book.name)

    def cancel_and_kill(event: dict[str, Any]) -> None:
        if (event["kind"], event.get("text")) == ("task-started", "upload-machine-web"):
            (lab.state / "spool" / plan / "cancel").touch()  # as `agency cancel` does
        if event["kind"] == "undone":
            lab.kill()

    plan = book.plan("cirrus")["id"]
    with pytest.raises(Unreachable):
        lab.client().follow(f"/plans/{plan}/apply", cancel_and_kill)
    lab.restart()
    after = lab.idle(book.name)
    (receipt,) = [r for r in lab.client().get("/receipts")["receipts"] if r["plan"] == plan]
    assert receipt["outcome"] == "cancelled"
    assert {**after, "history": before["history"]} == before
    wait_until("it answers", lambda: _answers(book))
    assert book.content() == content
    lab.tidy()
    lab.assert_whole(book.name)


def _answers(book: Guestbook) -> bool:
    try:
        return bool(book.content())
    except httpx.HTTPError:
        return False
