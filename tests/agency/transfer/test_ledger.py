"""What tokens mean, and how often they are good."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest

from agency.problems import AgencyError
from agency.transfer.ledger import FILE, Ledger, State, Transfer
from agency.transfer.tokens import text_of, token_in

HOUR = timedelta(hours=1)


@pytest.fixture
def ledger(tmp_path: Path) -> Iterator[Ledger]:
    """A new one."""
    with closing(Ledger(tmp_path)) as made:
        yield made


def issue(ledger: Ledger, lifetime: timedelta = HOUR) -> tuple[Transfer, bytes]:
    """A token to write a file."""
    return ledger.issue("write", "disk.img", "raw", "transfer.a.example", None, lifetime)


def code(caught: pytest.ExceptionInfo[AgencyError]) -> str:
    """Why it was refused."""
    return caught.value.problem.code


def test_a_token_means_what_it_was_issued_for(ledger: Ledger) -> None:
    """Who comes with the token gets just the transfer that it was issued for, also after a restart."""
    transfer, token = issue(ledger)
    assert ledger.find(token) == transfer
    assert (transfer.direction, transfer.file, transfer.peer) == ("write", "disk.img", "transfer.a.example")


def test_a_file_of_an_earlier_version(tmp_path: Path) -> None:
    """What an earlier version has written, which knew of less, is gone on with."""
    with closing(Ledger(tmp_path)) as ledger:
        transfer, token = issue(ledger)
    with closing(sqlite3.connect(tmp_path / FILE, isolation_level=None)) as database:
        database.execute("ALTER TABLE transfers DROP COLUMN base")
    with closing(Ledger(tmp_path)) as ledger:
        assert ledger.find(token) == transfer
        assert issue(ledger)[0].state is State.WAITING


def test_the_token_is_not_kept(ledger: Ledger, tmp_path: Path) -> None:
    """Neither the file nor the transfer has the token, or anything that it could be told from, and only its owner can
    read the file."""
    transfer, token = issue(ledger)
    kept = (tmp_path / FILE).read_bytes() + repr(transfer).encode()
    assert token not in kept
    assert text_of(token).encode() not in kept
    assert (tmp_path / FILE).stat().st_mode & 0o077 == 0


@pytest.mark.parametrize("text", ["", "x", "A" * 42, "A" * 44, "A" * 42 + "B", "é" * 43, "A" * 42 + "=", "../../../x"])
def test_no_token(text: str) -> None:
    """What is no token is refused without being shown."""
    with pytest.raises(AgencyError) as caught:
        token_in(text)
    assert code(caught) == "bad-token"
    assert len(text) < 2 or text not in str(caught.value)


def test_an_unknown_token(ledger: Ledger) -> None:
    """A token that the proxy has not issued means nothing."""
    issue(ledger)
    with pytest.raises(AgencyError) as caught:
        ledger.begin(bytes(32))
    assert code(caught) == "unknown-token"


def test_one_transfer_at_a_time(ledger: Ledger) -> None:
    """While its transfer is under way, a token is good for no other."""
    _, token = issue(ledger)
    ledger.begin(token)
    with pytest.raises(AgencyError) as caught:
        ledger.begin(token)
    assert code(caught) == "transfer-running"


@pytest.mark.parametrize("state", [State.COMPLETE, State.CANCELLED])
def test_a_used_token(ledger: Ledger, tmp_path: Path, state: State) -> None:
    """A token whose transfer is complete, or was cancelled, is worth nothing, in the next process either."""
    _, token = issue(ledger)
    transfer = ledger.begin(token)
    ledger.change(transfer.id, state=state)
    with closing(Ledger(tmp_path)) as restarted:
        for each in (ledger, restarted):
            with pytest.raises(AgencyError) as caught:
                each.begin(token)
            assert code(caught) == "token-used"


def test_what_broke_off_goes_on(ledger: Ledger, tmp_path: Path) -> None:
    """A transfer that ran when the proxy was killed is broken off, and its token takes it up again."""
    _, token = issue(ledger)
    ledger.begin(token)
    with closing(Ledger(tmp_path)) as restarted:
        assert restarted.find(token).state is State.BROKEN
        assert restarted.begin(token).state is State.RUNNING


def test_an_expired_token(ledger: Ledger) -> None:
    """After its time a token begins nothing, and goes on with nothing."""
    _, token = issue(ledger, timedelta(0))
    with pytest.raises(AgencyError) as caught:
        ledger.begin(token)
    assert code(caught) == "token-expired"


def test_what_is_long_past_is_forgotten(ledger: Ledger) -> None:
    """Transfers whose tokens have expired long ago make room."""
    _, token = issue(ledger, -timedelta(days=31))
    issue(ledger)
    with pytest.raises(AgencyError) as caught:
        ledger.find(token)
    assert code(caught) == "unknown-token"
    assert len(ledger.all()) == 1
