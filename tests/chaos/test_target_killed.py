"""The target dies in the middle of a relocation: the application stays at its source, whole."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.labs.agency import LONG_AWAY, Guestbook, running_agency_process

pytestmark = pytest.mark.integration

ENTRIES = [("Ada", "The engine might act upon other things besides number."), ("Žofie", "Ahoj — 👋")]


@pytest.fixture(scope="module")
def deployed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guestbook]:
    """A guestbook for this module, with entries and a picture. The volume is large enough to be hit on its way."""
    folder = tmp_path_factory.mktemp("target-killed")
    with running_agency_process(folder / "state", AGENCY_CLOUD_RESTART_SECONDS=LONG_AWAY) as lab:
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


@pytest.mark.parametrize("task", ["fetch-volume-data", "upload-machine-web", "launch-web"])
def test_killing_the_target_leaves_the_application_at_its_source(book: Guestbook, task: str) -> None:
    """Whatever was being done when the target is killed, the application runs at its source with its data, the error
    says what happened and what to do, and nothing is left at the target once that is back."""
    lab, before, content = book.lab, book.lab.application(book.name), book.content()
    last = lab.last_event(book.name)
    command = lab.begin("relocate", book.name, "--to", "cirrus", "--apply")
    lab.await_event(book.name, "task-started", task, after=last)
    killed = lab.kill_cloud("cirrus")
    stdout, stderr = command.communicate(timeout=120)

    assert command.returncode == 1, stdout + stderr
    assert "rolled-back" in stderr
    assert "goes on at aurora with its data" in stderr.replace("\n", " ")
    assert "what to do" in stderr
    assert "cirrus" in stderr
    (receipt,) = [r for r in lab.client().get("/receipts")["receipts"] if r["id"] in stderr]
    assert receipt["outcome"] == "rolled-back"
    assert receipt["problems"]

    after = lab.application(book.name)
    assert (after["status"], after["busy"]) == ("running", None)
    assert after["resources"] == before["resources"]
    assert after["endpoints"] == before["endpoints"]
    assert after["agreements"] == before["agreements"]
    assert book.content() == content
    assert book.read() == ENTRIES

    lab.cloud_back("cirrus", killed)
    lab.tidy()
    assert not lab.held()["cirrus"]
    lab.assert_whole(book.name)


def test_killing_the_target_while_it_is_verified_leaves_one_whole_application(book: Guestbook) -> None:
    """A component is given time until it works: a target that dies then may be back before that ends. Either way the
    application runs at one place with its data, and nothing is left at the other."""
    lab, content = book.lab, book.content()
    last = lab.last_event(book.name)
    command = lab.begin("relocate", book.name, "--to", "cirrus", "--apply")
    lab.await_event(book.name, "task-started", "verify-web", after=last)
    killed = lab.kill_cloud("cirrus")
    stdout, stderr = command.communicate(timeout=120)
    assert command.returncode in (0, 1), stdout + stderr
    lab.cloud_back("cirrus", killed)
    assert lab.idle(book.name)["status"] == "running"
    assert book.place == ("cirrus" if command.returncode == 0 else "aurora")
    assert book.content() == content
    lab.tidy()
    lab.assert_whole(book.name)
