"""What an agency is told from outside: options of the command line, else ``AGENCY_…`` environment variables."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field
from pydantic_settings import BaseSettings, SettingsConfigDict

from agency.places import default_state


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
    call_seconds: float = Field(default=10.0, gt=0, le=3600)
    """How long vendors have to answer a call for proposals."""
    cloud_restart_seconds: float = Field(default=5.0, gt=0)
    """How long a testbed cloud that died stays away before it is started again."""

    def store_url(self) -> str:
        """The store's URL."""
        return self.database or f"sqlite+aiosqlite:///{self.state.absolute()}/agency.db"

    def workflow_url(self) -> str:
        """The workflow database's URL."""
        return self.workflow_database or f"sqlite:///{self.state.absolute()}/workflows.db"
