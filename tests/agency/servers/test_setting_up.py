"""`agency server init` and its companions: what is written, for whom, and what is refused."""

from __future__ import annotations

import asyncio
import json
import os
import stat
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr
from typer.testing import CliRunner

from agency import certificates
from agency.certificates import certify, given, new_authority
from agency.cli import app
from agency.problems import AgencyError
from agency.servers import accounts, secrets
from agency.servers.setting_up import Kind, Plan, set_up
from agency.settings import Settings
from agency.state import opened

NAMES = ["a.example", "agency.a.example", "pubsub.a.example"]


def user() -> str:
    """Somebody whom a server may run as: nobody, or whoever runs the tests."""
    return "nobody" if os.geteuid() == 0 else ""


def init(directory: Path, *more: str, kind: str = "prosody", domain: str = "a.example") -> Any:
    """The command, and what it answered as JSON."""
    as_user = ["--user", user()] if user() else []
    state = ["--state", str(directory.parent / "state")]
    words = ["server", "init", kind, "--domain", domain, "--dir", str(directory), *as_user, *state, "--json", *more]
    done = CliRunner().invoke(app, words)
    assert done.exit_code in (0, 1), done.output
    return json.loads(done.stdout)


def kept(state: Path, jid: str) -> str | None:
    """The secret of that JID in the state directory."""

    async def ask() -> SecretStr | None:
        async with opened(Settings(state=state)) as (_, credentials):
            return await secrets.find(credentials, jid)

    found = asyncio.run(ask())
    return None if found is None else found.get_secret_value()


@pytest.mark.parametrize("kind", list(Kind))
def test_the_secret_is_in_the_server_s_file_and_the_state_only(tmp_path: Path, kind: Kind) -> None:
    """The component's secret is in the server's configuration, which only its user can read, and encrypted in the state
    directory; it is in no answer and no other file; nothing but the authority is for others to read."""
    answer = init(tmp_path / "xmpp", kind=kind)
    secret = kept(tmp_path / "state", "agency.a.example")
    assert secret is not None
    assert len(secret) > 40
    assert secret not in json.dumps(answer)
    holders = [file for file in tmp_path.rglob("*") if file.is_file() and secret.encode() in file.read_bytes()]
    assert holders == [tmp_path / "xmpp" / kind.configuration]
    modes = {
        str(file.relative_to(tmp_path / "xmpp")): oct(stat.S_IMODE(file.stat().st_mode))
        for file in (tmp_path / "xmpp").rglob("*")
    }
    for private in (kind.configuration, "tls/key.pem", "tls/authority-key.pem", "tls/certificate.pem"):
        assert modes[private] == "0o600"
    assert (modes["data"], modes["run"], modes["start"]) == ("0o700", "0o700", "0o755")
    assert "@{" not in (tmp_path / "xmpp" / kind.configuration).read_text()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root sets a server up for somebody else")
def test_the_server_cannot_change_what_root_runs(tmp_path: Path) -> None:
    """Set up by root, the start script, the directory that it is in and the authority's key stay root's."""
    init(tmp_path / "xmpp")
    for name in (".", "tls", "start", "tls/authority-key.pem"):
        assert (tmp_path / "xmpp" / name).stat().st_uid == 0


def test_what_is_there_is_not_overwritten(tmp_path: Path) -> None:
    """A second time is refused, and nothing changes; with --force the secret and the certificate are new, and the
    site's authority and those of others that were appended to ca.pem stay; another server's or person's directory is
    refused even so."""
    first = init(tmp_path / "xmpp")
    ca = tmp_path / "xmpp/tls/ca.pem"
    ca.write_bytes(ca.read_bytes() + new_authority("b.example").certificate)
    before = {file: file.read_bytes() for file in (tmp_path / "xmpp").rglob("*") if file.is_file()}
    secret = kept(tmp_path / "state", "agency.a.example")
    assert init(tmp_path / "xmpp")["problem"]["code"] == "already-exists"
    assert {file: file.read_bytes() for file in before} == before
    assert kept(tmp_path / "state", "agency.a.example") == secret
    assert init(tmp_path / "xmpp", "--force") == first
    changed = {file.name for file, content in before.items() if file.read_bytes() != content}
    assert changed == {"prosody.cfg.lua", "certificate.pem", "key.pem"}
    assert kept(tmp_path / "state", "agency.a.example") not in (secret, None)
    assert init(tmp_path / "xmpp", "--force", kind="ejabberd")["problem"]["code"] == "already-exists"
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/letter").touch()
    assert init(tmp_path / "mine", "--force")["problem"]["code"] == "no-server"
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter"]


@pytest.mark.parametrize(
    ("more", "code", "words"),
    [
        ({"domain": "A.example"}, "bad-value", "lower case"),
        ({"domain": "localhost"}, "bad-value", "two labels"),
        ({"domain": 'a.example"]\nx: ["'}, "bad-value", "two labels"),
        ({"domain": f"{'a' * 64}.example"}, "bad-value", "two labels"),
        ({"listen": ("everywhere",)}, "bad-value", "everywhere"),
        ({"s2s_port": 5222}, "bad-value", "three ports"),
        ({"directory": Path("/tmp/a b")}, "bad-value", "/tmp/a b"),
        ({"directory": Path('/tmp/a"b')}, "bad-value", '/tmp/a"b'),
        ({"user": "no-such-user"}, "no-user", "no-such-user"),
        ({"user": "root"}, "bad-value", "root"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_written(
    tmp_path: Path, more: dict[str, Any], code: str, words: str
) -> None:
    """A domain, address, port, directory or user that cannot be is named, with what to do, and nothing is written."""
    plan = Plan(Kind.PROSODY, "a.example", tmp_path / "xmpp", user=user() or None)
    with pytest.raises(AgencyError) as refused:
        asyncio.run(set_up(replace(plan, **more), tmp_path / "state"))
    assert refused.value.problem.code == code
    assert words in f"{refused.value.problem.message} {refused.value.problem.remedy}"
    assert list(tmp_path.iterdir()) == []


def files_of(directory: Path, certificate: bytes, key: bytes, authority: bytes) -> tuple[Path, Path, Path]:
    """The three files that --cert, --key and --ca name."""
    paths = (directory / "cert.pem", directory / "key.pem", directory / "ca.pem")
    for path, content in zip(paths, (certificate, key, authority), strict=True):
        path.write_bytes(content)
    return paths


def test_a_certificate_that_was_given_is_used(tmp_path: Path) -> None:
    """With --cert, --key and --ca the server has just these, and no authority is made."""
    authority = new_authority("corporation")
    ours = certify(authority, NAMES)
    cert, key, ca = files_of(tmp_path, ours.certificate, ours.key, authority.certificate)
    init(tmp_path / "xmpp", "--cert", str(cert), "--key", str(key), "--ca", str(ca))
    assert sorted(file.name for file in (tmp_path / "xmpp/tls").iterdir()) == ["ca.pem", "certificate.pem", "key.pem"]
    assert (tmp_path / "xmpp/tls/key.pem").read_bytes() == ours.key


def test_a_certificate_that_others_would_not_believe_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of another name, of another authority, expired, with another's key, or no certificate at all: refused with the
    reason; the key is in no message."""
    authority, other = new_authority("one"), new_authority("two")
    ours = certify(authority, NAMES)
    with monkeypatch.context() as past:
        past.setattr(certificates, "CERTIFICATE_DAYS", 0)
        past.setattr(certificates, "_AGO", timedelta(days=2))
        long_ago = certificates.utc_now() - timedelta(days=1)
        past.setattr(certificates, "utc_now", lambda: long_ago)
        expired = certify(authority, NAMES)
    cases = {
        "does not do for agency.a.example": (certify(authority, NAMES[:1]), authority),
        "unable to get local issuer": (ours, other),
        "expired": (expired, authority),
        "KEY_VALUES_MISMATCH": (replace(ours, key=certify(authority, NAMES).key), authority),
        "cannot be used": (replace(ours, certificate=b"-----BEGIN NONSENSE-----"), authority),
    }
    for words, (identity, believed) in cases.items():
        with pytest.raises(AgencyError) as refused:
            given(*files_of(tmp_path, identity.certificate, identity.key, believed.certificate), NAMES)
        assert words in refused.value.problem.message
        assert "PRIVATE" not in repr(identity)
    with pytest.raises(AgencyError, match="No such file"):
        given(tmp_path / "none", tmp_path / "none", tmp_path / "none", NAMES)


def test_a_secret_from_elsewhere_is_kept(tmp_path: Path) -> None:
    """`agency server secret` reads it from standard input, keeps it, and shows it nowhere; an empty one is refused."""
    words = ["server", "secret", "agency.b.example", "--state", str(tmp_path / "state")]
    done = CliRunner().invoke(app, words, input="from elsewhere\n")
    assert (done.exit_code, "elsewhere" in done.output) == (0, False)
    assert kept(tmp_path / "state", "agency.b.example") == "from elsewhere"
    assert CliRunner().invoke(app, words, input="\n").exit_code == 2
    assert kept(tmp_path / "state", "agency.b.example") == "from elsewhere"


@pytest.mark.parametrize(("name", "code"), [("a@b", "bad-value"), ("", "bad-value"), ("broker", "no-server")])
def test_an_account_that_cannot_be_is_refused(tmp_path: Path, name: str, code: str) -> None:
    """A name that is none, and a directory that is no server's, are told; nothing is kept."""
    with pytest.raises(AgencyError) as refused:
        asyncio.run(accounts.make(name, tmp_path, tmp_path / "state"))
    assert refused.value.problem.code == code
    assert list(tmp_path.iterdir()) == []


def test_ejabberd_that_does_not_run_makes_no_accounts(tmp_path: Path) -> None:
    """The refusal says how to start it, and no password is kept for an account that is not there."""
    init(tmp_path / "xmpp", kind="ejabberd")
    with pytest.raises(AgencyError) as refused:
        asyncio.run(accounts.make("broker", tmp_path / "xmpp", tmp_path / "state"))
    assert refused.value.problem.code == "server-unreachable"
    assert "xmpp/start" in refused.value.problem.remedy
    assert kept(tmp_path / "state", "broker@a.example") is None
