"""What an agency is told from outside: options of the command line, else ``AGENCY_…`` environment variables."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, SecretStr, field_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict

from agency.places import default_state

DOMAIN = "agency.local"
"""The domain of agents that only each other can reach."""

LinkKind = Literal["in-process", "component", "client"]


class Settings(BaseSettings):
    """Settings of one agency."""

    model_config = SettingsConfigDict(env_prefix="AGENCY_", frozen=True, extra="ignore")

    state: Path = Field(default_factory=default_state)
    """Where everything is kept that the agency writes."""
    database: str | None = None
    """SQLAlchemy URL of the store; by default SQLite in the state directory."""
    workflow_database: str | None = None
    """SQLAlchemy URL of the workflow database; by default SQLite in the state directory."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the API on 127.0.0.1; 0 takes a free one."""
    testbed: bool = True
    """Whether the agency brings its own three testbed clouds."""
    deployers: Annotated[frozenset[str], NoDecode] = frozenset()
    """JIDs, with commas between them, that may ask the Mediator for what the command line can, and follow the events,
    over XMPP."""
    call_seconds: float = Field(default=10.0, gt=0, le=3600)
    """How long vendors have to answer a call for proposals."""
    cloud_restart_seconds: float = Field(default=5.0, gt=0)
    """How long a testbed cloud that died stays away before it is started again."""
    link: LinkKind = "in-process"
    """How the agents reach each other: directly, or over an XMPP server, on one connection for all (XEP-0114) or one
    each (C2S)."""
    domain: str = Field(default=DOMAIN, pattern=r"^[a-z0-9]([a-z0-9.-]*[a-z0-9])?$")
    """The domain of the agents' addresses."""
    server: str = Field(default="", pattern=r"^(\[[0-9a-fA-F:.]+\]|[^:\[\]]+):[0-9]{1,5}$|^$")
    """Where the XMPP server takes the agents' connections, ``host:port``; by default 127.0.0.1:5347 for a component,
    and port 5222 of the domain for clients."""
    ca: Path | None = None
    """PEM file with the authorities that a client believes an XMPP server's certificate from."""
    link_secret: SecretStr | None = None
    """What the component, or each client, logs in with; by default what the state directory keeps."""

    def server_address(self) -> tuple[str, int]:
        """Host and port of the XMPP server."""
        if not self.server:
            return ("127.0.0.1", 5347) if self.link == "component" else (self.domain, 5222)
        host, _, port = self.server.rpartition(":")
        return host.strip("[]"), int(port)

    @field_validator("deployers", mode="before")
    @classmethod
    def _listed(cls, value: object) -> object:
        return [each.strip().lower() for each in value.split(",") if each.strip()] if isinstance(value, str) else value

    @field_validator("deployers")
    @classmethod
    def _bare_jids(cls, value: frozenset[str]) -> frozenset[str]:
        if wrong := sorted(each for each in value if not re.fullmatch(r"[^@/\s]+@[^@/\s]+", each)):
            raise ValueError(f"{wrong[0]!r} is no JID such as ann@a.example")
        return value

    def store_url(self) -> str:
        """The store's URL."""
        return self.database or f"sqlite+aiosqlite:///{self.state.absolute()}/agency.db"

    def workflow_url(self) -> str:
        """The workflow database's URL."""
        return self.workflow_database or f"sqlite:///{self.state.absolute()}/workflows.db"
