"""Logs tell what happened and never a secret."""

from __future__ import annotations

import asyncio
import base64
import json
import logging
import stat
import warnings
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import httpx
import loguru
import pytest
import structlog
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, SecretStr

from agency import logs
from vendor_modules.services.credentials import PasswordCredentials

SECRET = "correct/horse battery?staple"


@pytest.fixture(autouse=True)
def _as_before() -> Iterator[None]:
    """Leave logging as it was found."""
    root = logging.getLogger()
    handlers, level = list(root.handlers), root.level
    yield
    for handler in root.handlers:
        if handler not in handlers:
            handler.close()
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    loguru.logger.remove()
    structlog.reset_defaults()
    logs.forget_hidden()


@pytest.fixture
def log(tmp_path: Path) -> Any:
    """A logger of ours, writing to the directory of the test."""
    logs.configure(tmp_path)
    return structlog.get_logger("agency.test")


def _lines(directory: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (directory / logs.FILE).read_text().splitlines()]


def test_event_is_one_line_of_json(log: Any, tmp_path: Path) -> None:
    """An event is one line of JSON with its moment in UTC, its level, its logger and its values."""
    log.info("crééd", vendor="alpha", key="key-1", size=3, price=Decimal("0.1"), many=[1, None], deep={"a": True})
    (line,) = _lines(tmp_path)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "crééd",
        "level": "info",
        "logger": "agency.test",
        "vendor": "alpha",
        "key": "key-1",
        "size": 3,
        "price": "0.1",
        "many": [1, None],
        "deep": {"a": True},
    }


def test_file_is_private_also_when_it_was_not(tmp_path: Path) -> None:
    """The file is for its owner only, after a rotation and when it was open to others before."""
    (tmp_path / logs.FILE).touch(mode=0o644)
    logs.configure(tmp_path)
    (file,) = logging.getLogger().handlers
    assert isinstance(file, logging.handlers.RotatingFileHandler)
    file.doRollover()
    structlog.get_logger("agency").info("after")
    assert {p.name: stat.S_IMODE(p.stat().st_mode) for p in tmp_path.iterdir()} == {
        "agency.log": 0o600,
        "agency.log.1": 0o600,
    }


class Login(BaseModel):
    """A model with a secret that is not marked as one."""

    user: str = "ada"
    password: str = SECRET


CORPUS: dict[str, dict[str, Any]] = {
    "secret string": {"value": SecretStr(SECRET)},
    "password": {"password": SECRET},
    "upper case": {"DB_PASSWORD": SECRET},
    "secret key": {"secret_key": SECRET},
    "token": {"transfer_token": SECRET},
    "private key": {"private-key": SECRET},
    "api key": {"apiKey": SECRET},
    "api key with hyphen": {"x-api-key": SECRET},
    "authorization": {"headers": {"Authorization": SECRET}},
    "cookie": {"headers": {"Set-Cookie": SECRET}},
    "list under a secret name": {"tokens": ["a", SECRET]},
    "dictionary under a secret name": {"credentials": {"word": SECRET}},
    "deep": {"request": [{"body": ({"password": SECRET},)}]},
    "model": {"login": Login()},
    "credentials": {"login": PasswordCredentials(username="ada", password=SecretStr(SECRET))},
    "url": {"url": "postgresql://ada:correct%2Fhorse@db/x?y=1"},
    "url with a raw password": {"url": f"https://ada:{SECRET.replace(' ', '')}@db:5432/x"},
    "url with a token": {"remote": "https://correcthorse@git.example/x"},
    "url in a sentence": {"why": "cannot reach 'http://ada:correct-horse@db/x' now"},
    "basic header": {"text": "Authorization: Basic " + base64.b64encode(f"ada:{SECRET}".encode()).decode()},
    "bearer header": {"text": "sent 'authorization': 'Bearer correct.horse-battery'"},
    "assignment": {"command": "PGPASSWORD=correct-horse psql"},
    "json": {"body": '{"user": "ada", "password": "correct horse, battery"}'},
    "python": {"body": "{'secret_key': 'correct horse'}"},
    "query": {"url": "https://s3.example/x?X-Amz-Signature=correcthorse&a=1"},
    "pem": {"text": "-----BEGIN EC PRIVATE KEY-----\ncorrecthorse\n-----END EC PRIVATE KEY-----\nafter"},
    "pem cut short": {"text": "-----BEGIN PRIVATE KEY-----\ncorrecthorse\nand so on"},
    "exception": {"error": ValueError("password: correcthorse")},
}


@pytest.mark.parametrize("values", CORPUS.values(), ids=CORPUS.keys())
def test_what_looks_secret_is_masked(log: Any, tmp_path: Path, values: dict[str, Any]) -> None:
    """Values with a secret's name or form are masked wherever they are in an event."""
    log.info("event", **values)
    content = (tmp_path / logs.FILE).read_text()
    assert logs.MASK in content
    assert "correct" not in content
    assert base64.b64encode(b"ada:correct").decode()[:12] not in content


HARMLESS = [
    "created volume vol-1 for key relocation-1/volume-data",
    "http://127.0.0.1:8080/notes?limit=5",
    "xmpp: ada@agency.example joined",
    "the password of 'ada' is wrong",
    "blake3:" + "0" * 64,
    "basic machine, 2 cores",
]


@pytest.mark.parametrize("words", HARMLESS)
def test_what_is_harmless_stays(words: str) -> None:
    """Ordinary sentences, addresses and digests are not touched."""
    assert logs.masked(words) == words


@pytest.mark.parametrize(
    "form",
    [
        f"it is {SECRET}.",
        f"https://x/?q={httpx.QueryParams({'q': SECRET})}",
        base64.b64encode(SECRET.encode()).decode(),
        json.dumps({"x": SECRET}),
        repr([SECRET]),
    ],
)
def test_hidden_value_is_masked_anywhere(log: Any, tmp_path: Path, form: str) -> None:
    """A registered secret is masked in events, values, names and exceptions, in the forms that it travels in."""
    logs.hide(SecretStr(SECRET))
    try:
        raise ValueError(form)
    except ValueError:
        log.exception(form, place=[{form: form}])
    content = (tmp_path / logs.FILE).read_text()
    assert "horse" not in content
    assert base64.b64encode(SECRET.encode()).decode() not in content
    assert "ValueError" in content


def test_hidden_value_in_a_cause_is_masked(log: Any, tmp_path: Path) -> None:
    """The causes of an exception are written too, and masked."""
    logs.hide(SECRET)
    try:
        try:
            raise KeyError(SECRET)
        except KeyError as error:
            raise RuntimeError("login failed") from error
    except RuntimeError as error:
        log.error("failed", exc_info=error)
    (line,) = _lines(tmp_path)
    assert "login failed" in line["exception"]
    assert "horse" not in line["exception"]


def test_short_values_are_not_hidden() -> None:
    """A value too short to tell from ordinary words does not blot out everything."""
    logs.hide("a")
    logs.hide("")
    assert logs.masked("a banana") == "a banana"


@given(st.text(min_size=4), st.text(), st.text())
def test_no_hidden_value_is_left(secret: str, before: str, after: str) -> None:
    """Whatever a registered secret is and wherever it stands, it is not in what is written."""
    logs.hide(secret)
    assert secret not in logs.masked(f"{before}{secret}{after}").replace(logs.MASK, "") or secret in logs.MASK


def test_libraries_take_the_same_way(log: Any, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What libraries log is masked and written to the file too, and nothing to stdout or stderr."""
    logging.getLogger("dbos").setLevel(logging.ERROR)  # as DBOS left it, when it was asked for less before
    logs.configure(tmp_path)
    logs.adopt_loguru()
    logs.hide(SECRET)
    for name in ("uvicorn", "uvicorn.access", "uvicorn.error", "spade", "slixmpp", "dbos", "httpx"):
        logging.getLogger(name).warning("%s says %s", name, SECRET)
    loguru.logger.warning("loguru says {}", SECRET)
    with pytest.warns(UserWarning, match="says"):
        warnings.warn(f"warnings says {SECRET}", stacklevel=1)
    try:
        raise OSError(SECRET)
    except OSError:
        logging.getLogger("slixmpp").exception("broken")
        loguru.logger.exception("broken too")
    written = (tmp_path / logs.FILE).read_text()
    assert "horse" not in written
    assert written.count(f"says {logs.MASK}") == 8
    assert written.count("OSError") >= 2
    assert capfd.readouterr() == ("", "")


def test_libraries_chatter_is_left_out(log: Any, tmp_path: Path) -> None:
    """Below WARNING, libraries are not heard: an XMPP library's DEBUG has passwords in it."""
    logs.adopt_loguru()
    logging.getLogger("slixmpp").info("SEND: <auth>…</auth>")
    loguru.logger.info("loguru")
    logging.getLogger("vendor_modules.testbed").info("ours")
    log.debug("not asked for")
    assert [line["event"] for line in _lines(tmp_path)] == ["ours"]


async def test_libraries_that_bring_handlers(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """DBOS and uvicorn, started after logging was configured, do not write to the terminal."""
    from dbos._logger import init_logger
    from uvicorn import Config, Server

    logs.configure(tmp_path)
    init_logger()
    logging.getLogger("dbos").setLevel(logging.WARNING)  # other tests ask DBOS for less
    Server(Config(app=lambda: None, log_config=None))
    logging.getLogger("dbos").warning("dbos is here")
    logging.getLogger("uvicorn.error").warning("uvicorn is here")
    await asyncio.sleep(0)
    assert [line["event"] for line in _lines(tmp_path)] == ["dbos is here", "uvicorn is here"]
    assert capfd.readouterr() == ("", "")


def test_people_read_words_on_stderr(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """On request, events go to stderr in words too, masked alike; stdout stays free."""
    logs.configure(tmp_path, human=True)
    structlog.get_logger("agency").warning("vendor call failed", vendor="alpha", password=SECRET)
    out, err = capfd.readouterr()
    assert out == ""
    assert "vendor call failed" in err
    assert "vendor=alpha" in err
    assert "horse" not in err


def test_value_that_cannot_print_itself(log: Any, tmp_path: Path) -> None:
    """A value whose str() fails does not stop the line from being written."""

    class Awkward:
        def __str__(self) -> str:
            raise RuntimeError("no words")

    log.info("event", value=Awkward())
    assert _lines(tmp_path)[0]["value"] == "<Awkward>"


def test_configuring_again_replaces(tmp_path: Path) -> None:
    """Configured twice, each event is written once, to the second place."""
    logs.configure(tmp_path / "one")
    logs.configure(tmp_path / "two", level="DEBUG")
    structlog.get_logger("agency").debug("event")
    assert len(_lines(tmp_path / "two")) == 1
    assert _lines(tmp_path / "one") == []


def test_without_a_directory_nothing_is_printed(capfd: pytest.CaptureFixture[str]) -> None:
    """Logging without a directory prints nothing anywhere, tracebacks and the values in them least of all."""
    logs.configure(None)
    try:
        raise LookupError(SECRET)
    except LookupError as error:
        structlog.get_logger("agency").error("unforeseen", exc_info=error)
        logging.getLogger("a.library").error("unforeseen", exc_info=error)
    assert capfd.readouterr() == ("", "")
