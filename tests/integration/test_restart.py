"""Everything survives the agency's end, however it ends."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from tests.labs.agency import Guestbook, running_agency_process, wait_until

pytestmark = pytest.mark.integration

ENTRIES = (("Ada", "before"), ("Žofie", "— and after 👋"))


def test_all_is_as_before_after_the_agency_ended(tmp_path: Path) -> None:
    """After SIGTERM and after SIGKILL an agency that is started again, at once, shows the same status, and the
    application answers at the same address with the same entries."""
    with running_agency_process(tmp_path / "state") as lab:
        book = Guestbook(lab, tmp_path / "book")
        book.deploy()
        book.write(*ENTRIES)
        before, content, status = lab.application(book.name), book.content(), lab.json("status")

        assert lab.terminate() == 0
        assert not lab.processes(), "an agency that was asked to stop takes its clouds and machines along"
        with pytest.raises(httpx.TransportError):
            httpx.get(before["endpoints"]["web"], trust_env=False)
        lab.restart()
        assert lab.application(book.name) == before
        assert lab.json("status") == status
        assert wait_for_content(book) == content

        lab.kill()
        lab.restart()
        assert lab.application(book.name) == before
        assert lab.json("status") == status
        assert wait_for_content(book) == content
        lab.assert_whole(book.name)


def wait_for_content(book: Guestbook) -> bytes:
    """The content once the cloud has started its machines again."""

    def answer() -> bytes | None:
        try:
            return book.content()
        except httpx.HTTPError:
            return None

    return wait_until("the application answers", answer)


def test_an_agency_can_follow_at_once_though_a_machine_is_slow_to_end(tmp_path: Path) -> None:
    """An agency that is started right after another was killed waits for the clouds that still stop their machines."""
    with running_agency_process(tmp_path / "state") as lab:
        offers = lab.json("submit", Path(__file__).parent / "data" / "stubborn" / "application.xml")["offers"]
        lab.client().post(f"/offers/{next(o['offer'] for o in offers if o['chosen'])}/accept")
        lab.client().follow("/applications/stubborn/deploy", lambda _: None)
        before = lab.application("stubborn")
        lab.kill()
        lab.restart()
        assert lab.application("stubborn") == before
        url = before["endpoints"]["web"]
        wait_until("the application answers", lambda: _answers(url))


def _answers(url: str) -> bool:
    try:
        return httpx.get(url, trust_env=False).is_success
    except httpx.HTTPError:
        return False
