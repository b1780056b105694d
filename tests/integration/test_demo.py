"""The demo as a user sees it: a story that checks itself, or one JSON document; it tells no secret."""

from __future__ import annotations

import base64
import json
import os
import re
import signal
import socket
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import select

from agency.demo import TARGET
from agency.store.credentials import Cipher, EncryptedCredentials
from agency.store.keyring import Keyring
from agency.store.models import CredentialRow
from agency.store.store import Store
from descriptors.application import Application
from descriptors.documents import load
from tests.labs.agency import AGENCY, GUESTBOOK, Lab, processes_of, run, wait_until
from vendor_modules.resources import AccessKey
from vendor_modules.services.credentials import KeyPairCredentials, PasswordCredentials

pytestmark = pytest.mark.integration

_ROWS = select(CredentialRow)
BLAKE3 = re.compile(r"blake3:[0-9a-f]{64}")


@pytest.fixture
def passable() -> Iterator[str]:
    """A place for temporary files that another user may get to: a server runs as one where we are root."""
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o711)
        yield folder


@pytest.mark.parametrize(
    ("options", "broker"),
    [((), "broker@agency.local"), (("--link", "client", "--server", "prosody"), "broker@demo.test")],
    ids=["in-process", "client-prosody"],
)
def test_the_demo_prints_one_document_and_leaves_nothing(
    tmp_path: Path, passable: str, options: tuple[str, ...], broker: str
) -> None:
    """``agency demo --json`` exits 0 with one JSON document and nothing else on standard output, in which all of the
    story is told and true, whatever link the environment names; its processes, an XMPP server of its own among them,
    and its state of the moment are gone."""
    environment = {**os.environ, "XDG_STATE_HOME": str(tmp_path), "AGENCY_LINK": "component", "TMPDIR": passable}
    status, stdout, stderr = run("demo", "--json", *options, env=environment)
    assert (status, stderr) == (0, "")
    report = json.loads(stdout)
    assert report["link"]["broker"] == broker
    assert not processes_of(tmp_path)
    assert not processes_of(Path(passable))
    assert not list(Path(passable).glob("agency-*"))
    assert list(tmp_path.rglob("*")) == [tmp_path / "cloud-agency"], "the default state is cleaned"

    rows = {row["vendor"]: row for row in report["offers"]}
    assert len(rows) == len(report["offers"]) >= 3
    for row in rows.values():
        assert {"vendor", "price_per_hour", "currency", "score", "chosen", "excluded_because"} <= row.keys()
        assert row["chosen"] or row["score"] is not None or row["excluded_because"]
    (chosen,) = [row for row in rows.values() if row["chosen"]]
    assert chosen["price_per_hour"] > 0
    assert chosen["currency"] == "EUR"
    assert chosen["score"] is not None
    assert not chosen["excluded_because"]
    assert rows["borealis"]["excluded_because"][0]["code"] == "other-jurisdiction"
    assert "block storage" in rows[TARGET]["excluded_because"][0]["message"]

    assert report["agreement"].startswith("agreement-")
    assert report["deployment"].startswith("deployment-")
    moved = report["relocation"]
    assert (moved["from"], moved["to"]) == (chosen["vendor"], TARGET)
    assert moved["moved"] == ["machine web"]
    assert moved["stayed"] == ["bucket pictures"]
    assert moved["adapted"] == ["volume data", "configuration web"]
    assert BLAKE3.fullmatch(moved["content_before"])
    assert moved["content_before"] == moved["content_after"]
    volume = load(GUESTBOOK / "application.xml", expect=Application).resource("data").size_mib
    assert volume
    assert moved["bytes_moved"] >= volume * 1024 * 1024
    assert 0 < moved["downtime_seconds"] < moved["seconds"] < 60
    assert moved["receipt"].startswith("receipt-")
    assert report["left_at_source"] == []
    assert report["leaked"] == []
    assert report["checks"]
    assert all(true is True for true in report["checks"].values())


@pytest.fixture(scope="module")
def kept(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Lab, str]]:
    """A demo that was told to keep running, in a state directory of its own, its agents a component of an ejabberd; and
    what it printed."""
    lab = Lab(tmp_path_factory.mktemp("demo") / "state")
    said: list[str] = []
    command = [AGENCY, "demo", "--link", "component", "--server", "ejabberd", "--keep", "--state", lab.state]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout
    with process.stdout as stdout:
        reader = threading.Thread(target=lambda: said.extend(stdout), daemon=True)
        reader.start()
        try:
            wait_until("the demo's end", lambda: process.poll() is not None or "Ctrl-C" in "".join(said), within=120)
            assert process.poll() is None, "".join(said)
            yield lab, "".join(said)
        finally:
            process.send_signal(signal.SIGINT)
            status = process.wait(60)
            reader.join(10)
            lab._forget_client()
    assert status == 0
    assert not lab.processes()
    server = re.search(r"over ejabberd at 127.0.0.1:(\d+)", "".join(said))
    assert server
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", int(server[1])))
    assert (lab.state / "agency.db").exists(), "a state directory that was named stays"


def test_the_story_is_told_in_words(kept: tuple[Lab, str]) -> None:
    """Without ``--json`` the demo tells every part of the story: offers, plan, receipt and all checks."""
    lab, said = kept
    for words in ("Offers for guestbook", "borealis is left out", "Plan plan-", "→ move", "= stay", "~ adapt",
                  "of downtime", "Receipt receipt-", "All ", "checks are true", str(lab.state)):  # fmt: skip
        assert words in said, words
    assert all(re.search(r"✗ +(borealis|cirrus)", line) for line in said.splitlines() if "✗" in line)


def test_a_kept_demo_goes_on_running(kept: tuple[Lab, str]) -> None:
    """With ``--keep`` the other commands reach the agency, and the application is at its new place."""
    lab, _ = kept
    status = lab.json("status", "guestbook")
    assert status["status"] == "running"
    assert next(r["vendor"] for r in status["resources"] if r["kind"] == "machine") == TARGET
    lab.tidy()
    lab.assert_whole("guestbook")


async def test_no_secret_is_told(kept: tuple[Lab, str]) -> None:
    """No password, access key, private key or token is in plain in any log, database or other file of the agency's,
    nor in what it prints or in a command line; the clouds' own insides and ``api.json`` apart."""
    lab, said = kept
    secrets = await _secrets(lab)
    assert len(secrets) >= 3 + 2 + 1 + 1 + 1, "clouds, two places, a bucket's key, the API's token, the XMPP server"
    forms = [form for secret in secrets for form in (secret.encode(), base64.b64encode(secret.encode()))]
    assert (lab.state / "api.json").stat().st_mode & 0o077 == 0
    files = [file for file in lab.state.rglob("*") if file.is_file() and not _inside_a_cloud(file, lab.state)]
    assert {"agency.db", "workflows.db", "agency.log", "log.jsonl"} <= {file.name for file in files}
    for file in files:
        content = file.read_bytes()
        assert not any(form in content for form in forms), f"{file} tells a secret"
    for text in (said, *lab.processes().values()):
        assert not any(form.decode() in text for form in forms)
    for process in lab.processes():
        environment = Path(f"/proc/{process}/environ").read_bytes()
        assert not any(form in environment for form in forms)


def _inside_a_cloud(file: Path, state: Path) -> bool:
    """Whether only the cloud's account, or the machine's, is to read it. A cloud's logs are for its operator."""
    parts = file.relative_to(state).parts
    own = parts[0] == "clouds" and file.name not in ("log.jsonl", "stderr.log") and "console" not in file.name
    return own or parts == ("api.json",)


async def _secrets(lab: Lab) -> list[str]:
    found = [json.loads((lab.state / "api.json").read_text())["token"]]
    async with Store.open(f"sqlite+aiosqlite:///{lab.state}/agency.db") as store:
        credentials = EncryptedCredentials(store, Cipher(Keyring(lab.state / "master.key").key()))
        async with store.transaction() as session:
            scopes = [(row.vendor, row.agreement or None) for row in (await session.scalars(_ROWS)).all()]
        for vendor, agreement in scopes:
            match await credentials.get(vendor, agreement=agreement):
                case PasswordCredentials(password=password):
                    found.append(password.get_secret_value())
                case KeyPairCredentials(private_key=key):
                    found.append(max(key.get_secret_value().splitlines(), key=len))
    held = await lab._held()
    keys = [r for resources in held.values() for _, r in resources if isinstance(r, AccessKey)]
    return found + [key.secret_key.get_secret_value() for key in keys]
