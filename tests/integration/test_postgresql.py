"""The whole agency on PostgreSQL, as in production."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.labs.agency import Guestbook, running_agency_process
from tests.labs.postgresql import running_postgresql

pytestmark = pytest.mark.integration


def test_the_main_job_on_postgresql(tmp_path: Path) -> None:
    """With store and workflows on PostgreSQL an application is deployed, relocated with its data, and still known after
    a restart."""
    with running_postgresql() as url:
        databases = {"AGENCY_DATABASE": url, "AGENCY_WORKFLOW_DATABASE": url}
        with running_agency_process(tmp_path / "state", **databases) as lab:
            book = Guestbook(lab, tmp_path / "book")
            book.deploy()
            book.write(("Ada", "on another database"))
            content = book.content()
            book.relocate("cirrus")
            assert (book.place, book.content()) == ("cirrus", content)
            lab.terminate()
            lab.start()
            assert (book.place, book.content()) == ("cirrus", content)
        assert not (tmp_path / "state" / "agency.db").exists()
        assert not (tmp_path / "state" / "workflows.db").exists()
