"""Accounts for agents that come as clients: registration is closed, so the server's owner makes them, on its machine.

- ejabberd: over its HTTP API at a socket in ``run/``, which only its user may enter; it must run.
- Prosody: ``prosodyctl``, as its user; whether it runs does not matter.

No password is ever in a command line.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import socket
import subprocess
from pathlib import Path

import httpx
from pydantic import SecretStr

from agency.problems import AgencyError, refuse
from agency.servers import secrets as kept
from agency.servers.setting_up import Kind, server_in
from agency.settings import Settings
from agency.state import opened

_NAME = re.compile(r"[a-z0-9][a-z0-9._-]{0,62}")
_WITHIN = 60.0
"""Seconds that the server has; a machine may be busy."""


async def make(name: str, directory: Path, state: Path, password: SecretStr | None = None) -> str:
    """Make an account at the server that is set up in ``directory``, or give the account a new password: a random one,
    unless given; and keep it in the state directory. Returns the account's JID."""
    if not _NAME.fullmatch(name):
        remedy = "give lower-case letters, digits and . _ - only, at most 63"
        raise refuse("bad-value", f"{name!r} cannot be an agent's name", remedy)
    directory = directory.absolute()
    kind, host = server_in(directory)
    password = password or SecretStr(secrets.token_urlsafe(32))
    register = _at_ejabberd if kind is Kind.EJABBERD else _at_prosody
    register(directory, name, host, password)
    jid = f"{name}@{host}"
    await keep(jid, password, state)
    return jid


async def keep(jid: str, secret: SecretStr, state: Path) -> None:
    """Keep the secret of an account, or of a component, in the state directory."""
    async with opened(Settings(state=state)) as (_, credentials):
        await kept.keep(credentials, jid, secret)


def _at_ejabberd(directory: Path, user: str, host: str, password: SecretStr) -> None:
    address = str(directory / "run/api.sock")
    account = {"user": user, "host": host}
    try:
        with socket.socket(socket.AF_UNIX) as trial:
            trial.connect(address)  # httpx would leave its socket open where nobody listens
        transport = httpx.HTTPTransport(uds=address)
        with httpx.Client(transport=transport, base_url="http://ejabberd/api/", timeout=_WITHIN) as client:
            answer = client.post("register", json=account | {"password": password.get_secret_value()})
            if answer.status_code == httpx.codes.CONFLICT:
                answer = client.post("change_password", json=account | {"newpass": password.get_secret_value()})
    except (OSError, httpx.TransportError) as error:
        message = f"ejabberd does not answer in {directory}: {error}"
        raise refuse(
            "server-unreachable", message, f"start it with {directory}/start, and ask as its user or root"
        ) from None
    if answer.status_code != httpx.codes.OK:
        raise _refused(user, host, answer.text)


def _at_prosody(directory: Path, user: str, host: str, password: SecretStr) -> None:
    control = shutil.which("prosodyctl")
    if control is None:
        raise refuse("not-installed", "there is no prosodyctl on this machine", "install Debian's package prosody")
    for command in ("adduser", "passwd"):
        done = subprocess.run(
            [control, "--config", directory / Kind.PROSODY.configuration, command, f"{user}@{host}"],
            input=f"{password.get_secret_value()}\n" * 2,  # it asks, and asks again
            capture_output=True,
            text=True,
            user=_owner(directory),
            timeout=_WITHIN,
            check=False,
        )
        if "already exists" not in done.stdout:
            break
    if done.returncode != 0:
        raise _refused(user, host, done.stdout + done.stderr)


def _owner(directory: Path) -> int | None:
    """Whom prosodyctl is to run as: whose the server's data are; None for ourselves."""
    owner = (directory / "data").stat().st_uid
    return None if owner == os.geteuid() else owner


def _refused(user: str, host: str, said: str) -> AgencyError:
    words = " ".join(said.split())[-500:]
    return refuse("account-refused", f"the server makes no account {user}@{host}: {words}", "see the log in its data/")
