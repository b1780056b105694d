"""Setting up an XMPP server for the agents of a site: a directory with a hardened configuration of ejabberd or Prosody.

What is in the directory afterwards:

- the configuration, which holds the component's secret; ``start``, which runs the server in the foreground as a user
  without privileges; an example of a systemd unit;
- ``tls/``: certificate, key and ``ca.pem``, the authorities that the server believes (another site's is appended
  there); the site's own authority with its key, if we made one;
- ``data/`` and ``run/``, the server's own.

Set up by root, everything is root's but what the server must read and write: it cannot change what root will run.
"""

from __future__ import annotations

import grp
import ipaddress
import os
import pwd
import re
import secrets
import shutil
from dataclasses import dataclass, field
from enum import StrEnum
from importlib.resources import files
from pathlib import Path
from string import Template

from pydantic import SecretStr

from agency.certificates import Authority, Identity, certify, given, new_authority, put
from agency.problems import refuse
from agency.servers import secrets as kept
from agency.settings import Settings
from agency.state import opened

_LABEL = r"[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
_DOMAIN = re.compile(rf"{_LABEL}(\.{_LABEL})+")
_OWN_DOMAIN = re.compile(r'^(?:hosts: \[|VirtualHost )"([^"]+)"', re.MULTILINE)
_PLAIN_PATH = re.compile(r"/[A-Za-z0-9/._+-]+")


class Kind(StrEnum):
    """The servers that we have templates for."""

    EJABBERD = "ejabberd"
    PROSODY = "prosody"

    @property
    def configuration(self) -> str:
        """The name of its configuration file."""
        return "ejabberd.yml" if self is Kind.EJABBERD else "prosody.cfg.lua"


@dataclass(frozen=True)
class Plan:
    """What is to be set up. ``listen``: addresses for clients and other servers; components come over loopback only."""

    kind: Kind
    domain: str
    directory: Path
    listen: tuple[str, ...] = ("127.0.0.1",)
    c2s_port: int = 5222
    s2s_port: int = 5269
    component_port: int = 5347
    user: str | None = None
    """Whom the server runs as; by default whoever sets it up, and for root the user of the server's package."""
    certificate: tuple[Path, Path, Path] | None = None
    """Files with a certificate, its key and its authority; by default an authority of the site's own is made."""

    @property
    def agents(self) -> str:
        """The agents' domain, the component's."""
        return f"agency.{self.domain}"

    @property
    def ca(self) -> Path:
        """The file with the authorities that the server believes, and that its clients should."""
        return self.directory / "tls" / "ca.pem"

    @property
    def names(self) -> list[str]:
        """The names that the certificate must cover."""
        return [self.domain, self.agents, f"pubsub.{self.domain}"]


@dataclass(frozen=True)
class SetUp:
    """A server that is set up: how it is started, and what an agency must be told to use it."""

    server: str
    domain: str
    directory: str
    start: str
    unit: str
    ca: str
    pubsub: str
    environment: dict[str, str] = field(default_factory=dict)


async def set_up(plan: Plan, state: Path, *, force: bool = False) -> SetUp:
    """Write the directory, and keep the component's secret in the state directory. Refused, with nothing written, where
    the plan cannot be carried out; and where something is there already, unless ``force`` says to write the
    configuration, the secret and the certificate anew: accounts and the site's own authority stay."""
    directory = plan.directory.absolute()
    _check(plan, directory, force=force)
    user = _user(plan)
    authority, identity = _identity(plan, directory)
    secret = SecretStr(secrets.token_urlsafe(32))
    values = _values(plan, directory, user) | {"secret": secret.get_secret_value()}
    async with opened(Settings(state=state)) as (_, credentials):
        await kept.keep(credentials, plan.agents, secret)
    _write(plan, directory, user, values, authority, identity)
    return SetUp(
        server=plan.kind,
        domain=plan.domain,
        directory=str(directory),
        start=str(directory / "start"),
        unit=str(directory / values["unit"]),
        ca=str(plan.ca.absolute()),
        pubsub=f"pubsub.{plan.domain}",
        environment={
            "AGENCY_LINK": "component",
            "AGENCY_DOMAIN": plan.agents,
            "AGENCY_SERVER": f"127.0.0.1:{plan.component_port}",
        },
    )


def server_in(directory: Path) -> tuple[Kind, str]:
    """Which server a directory was set up for, and its domain; refused if none."""
    for kind in Kind:
        try:
            configuration = (directory / kind.configuration).read_text("utf-8")
        except FileNotFoundError:
            continue
        except OSError as error:
            message = f"{directory / kind.configuration}: {error.strerror}"
            raise refuse("not-ours", message, "ask as the server's user, or as root") from None
        if domain := _OWN_DOMAIN.search(configuration):
            return kind, domain[1]
    remedy = "name the directory that `agency server init` has written"
    raise refuse("no-server", f"no XMPP server of ours is set up in {directory}", remedy)


# --- before anything is written ---


def _check(plan: Plan, directory: Path, *, force: bool) -> None:
    if len(plan.domain) > 200 or not _DOMAIN.fullmatch(plan.domain):
        raise refuse(
            "bad-value",
            f"{plan.domain!r} cannot be an XMPP domain here",
            "give a DNS name of at least two labels in lower case (in its xn-- form if need be), such as a.example",
        )
    for address in plan.listen:
        try:
            ipaddress.ip_address(address)
        except ValueError:
            raise refuse(
                "bad-value", f"{address!r} is no IP address to listen at", "give one such as 0.0.0.0 or ::"
            ) from None
    if len({plan.c2s_port, plan.s2s_port, plan.component_port}) < 3:
        raise refuse("bad-value", "clients, servers and components have each a port of their own", "give three ports")
    if not _PLAIN_PATH.fullmatch(str(directory)):
        remedy = "name one with letters, digits and . _ + - only: it is written into files of four languages"
        raise refuse("bad-value", f"{directory} cannot be a server's directory", remedy)
    try:
        there = sorted(directory.iterdir())
    except FileNotFoundError:
        return
    except OSError as error:
        raise refuse("bad-value", f"{directory}: {error.strerror}", "name a directory that is ours to write") from None
    if there and not (force and server_in(directory)[0] is plan.kind):
        remedy = (
            "name another; or, where a server of ours of this kind is, use --force: configuration, secret and "
            "certificate are then written anew, accounts and the site's authority stay"
        )
        raise refuse("already-exists", f"{directory} is not empty", remedy)


def _user(plan: Plan) -> pwd.struct_passwd:
    """Whom the server runs as."""
    me = pwd.getpwuid(os.geteuid())
    name = plan.user or (plan.kind if me.pw_uid == 0 else me.pw_name)
    try:
        user = pwd.getpwnam(name)
    except KeyError:
        remedy = "install the server's package, which makes its user; or name another user with --user"
        raise refuse("no-user", f"there is no user {name!r} on this machine", remedy) from None
    if user.pw_uid == 0:
        raise refuse("bad-value", "the server is not to run as root", "name another user with --user")
    if me.pw_uid not in (0, user.pw_uid):
        raise refuse("bad-value", f"only root can set up a server for {name}", f"run this as {name}, or as root")
    return user


def _identity(plan: Plan, directory: Path) -> tuple[Authority | None, Identity]:
    """The certificate that was given; else a new one of the site's own authority, which is made if it is not there."""
    if plan.certificate is not None:
        return None, given(*plan.certificate, plan.names)
    tls = directory / "tls"
    if (tls / "authority-key.pem").is_file():
        authority = Authority((tls / "authority.pem").read_bytes(), (tls / "authority-key.pem").read_bytes())
    else:
        authority = new_authority(plan.domain)
    identity = certify(authority, [*plan.names, f"*.{plan.domain}"])
    if (tls / "ca.pem").is_file():  # with other sites' authorities
        identity = Identity(identity.certificate, identity.key, (tls / "ca.pem").read_bytes())
    return authority, identity


# --- writing ---


class _Template(Template):
    """``@{name}`` is filled in, and ``@@`` is an at sign: YAML, Lua and shell need the dollar for themselves."""

    delimiter = "@"


def _filled(name: str, values: dict[str, str]) -> str:
    return _Template((files("agency.servers") / "templates" / name).read_text("utf-8")).substitute(values)


def _values(plan: Plan, directory: Path, user: pwd.struct_passwd) -> dict[str, str]:
    values = {
        "server": plan.kind.value,
        "domain": plan.domain,
        "agents": plan.agents,
        "directory": str(directory),
        "user": user.pw_name,
        "group": grp.getgrgid(user.pw_gid).gr_name,
        "c2s_port": str(plan.c2s_port),
        "s2s_port": str(plan.s2s_port),
        "component_port": str(plan.component_port),
        "unit": f"cloud-agency-{plan.kind}.service",
        "addresses": ", ".join(f'"{address}"' for address in plan.listen),
    }
    if plan.kind is Kind.EJABBERD:
        each = (_filled("ejabberd-listeners.yml", values | {"address": address}) for address in plan.listen)
        values["listeners"] = "".join(each).rstrip("\n")
    return values


def _write(
    plan: Plan,
    directory: Path,
    user: pwd.struct_passwd,
    values: dict[str, str],
    authority: Authority | None,
    identity: Identity,
) -> None:
    directory.mkdir(parents=True, exist_ok=True)
    # others may pass through to what they may read: ca.pem
    for folder, mode in ((".", 0o711), ("tls", 0o711), ("data", 0o700), ("run", 0o700)):
        (directory / folder).mkdir(exist_ok=True)
        (directory / folder).chmod(mode)
    if authority is not None:
        _put(directory / "tls/authority.pem", authority.certificate, 0o644)
        _put(directory / "tls/authority-key.pem", authority.key, 0o600)
    _put(directory / "tls/ca.pem", identity.authorities, 0o644)
    _put(directory / "start", _filled(f"{plan.kind}-start", values).encode(), 0o755)
    _put(directory / values["unit"], _filled("service", values).encode(), 0o644)
    _put(directory / "tls/certificate.pem", identity.certificate, 0o600, user)
    _put(directory / "tls/key.pem", identity.key, 0o600, user)
    _put(directory / plan.kind.configuration, _filled(plan.kind.configuration, values).encode(), 0o600, user)
    for folder in ("data", "run"):
        _give(directory / folder, user)


def _put(file: Path, content: bytes, mode: int, owner: pwd.struct_passwd | None = None) -> None:
    put(file, content, mode, lambda draft: None if owner is None else _give(draft, owner))


def _give(path: Path, user: pwd.struct_passwd) -> None:
    if os.geteuid() == 0:
        shutil.chown(path, user.pw_uid, user.pw_gid)
