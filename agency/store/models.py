"""The store's tables. A change here needs a migration in ``migrations/versions``; a test compares the two."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    DateTime,
    Dialect,
    Index,
    LargeBinary,
    MetaData,
    String,
    Text,
    TypeDecorator,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

Label = String(255)


class Moment(TypeDecorator[datetime]):
    """An aware datetime, kept in UTC: SQLite drops the zone, so it is put back on the way out."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To UTC; ``ValueError`` for a datetime without a zone, whose meaning nobody knows."""
        if value is not None and value.tzinfo is None:
            raise ValueError(f"{value} has no time zone")
        return value and value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """In UTC, aware."""
        return value and (value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC))


class Row(DeclarativeBase):
    """Base of all tables. Constraints have names, so that a migration can drop them on any database."""

    metadata = MetaData(
        naming_convention={
            "ix": "ix_%(table_name)s_%(column_0_N_name)s",
            "uq": "uq_%(table_name)s_%(column_0_N_name)s",
            "pk": "pk_%(table_name)s",
        }
    )
    type_annotation_map = {str: Label, datetime: Moment, dict[str, Any]: JSON}  # noqa: RUF012 - SQLAlchemy's own form


class DocumentRow(Row):
    """One document, in its JSON form. ``tag`` is the kind of document."""

    __tablename__ = "documents"

    tag: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    application: Mapped[str | None] = mapped_column(index=True)
    revision: Mapped[int]
    created: Mapped[datetime]
    updated: Mapped[datetime]
    digest: Mapped[str]
    body: Mapped[str] = mapped_column(Text)


class CredentialRow(Row):
    """Encrypted credentials of one scope. An empty ``resource`` or ``agreement`` means any."""

    __tablename__ = "credentials"

    vendor: Mapped[str] = mapped_column(primary_key=True)
    resource: Mapped[str] = mapped_column(primary_key=True)
    agreement: Mapped[str] = mapped_column(primary_key=True)
    ciphertext: Mapped[bytes] = mapped_column(LargeBinary)


class ResourceRow(Row):
    """A resource that was or is to be made at a vendor; ``id`` keeps the order in which they were first saved."""

    __tablename__ = "resources"
    __table_args__ = (UniqueConstraint("vendor", "kind", "key"), Index(None, "vendor", "kind", "resource"))

    id: Mapped[int] = mapped_column(primary_key=True)
    vendor: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str]
    status: Mapped[str]
    resource: Mapped[str | None]
    """The provider's identifier; none between the intent and the provider's answer."""


class VendorRow(Row):
    """A vendor that the agency was told of."""

    __tablename__ = "vendors"

    name: Mapped[str] = mapped_column(primary_key=True)
    module: Mapped[str]
    settings: Mapped[dict[str, Any]]
    negotiation: Mapped[dict[str, Any]]
    """How it negotiates; empty: it does not."""
    agent: Mapped[str | None]
    """The address of the agent that speaks for it, at another site; None: this site's own does."""


class CleanupRow(Row):
    """Something at a vendor that is still to be removed."""

    __tablename__ = "cleanups"
    __table_args__ = (UniqueConstraint("vendor", "kind", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    vendor: Mapped[str]
    kind: Mapped[str]
    key: Mapped[str]
    reason: Mapped[str] = mapped_column(Text)
    since: Mapped[datetime]
    attempts: Mapped[int]
    last_error: Mapped[str | None] = mapped_column(Text)


class EventRow(Row):
    """Something that happened: written once, never changed."""

    __tablename__ = "events"
    __table_args__ = (Index(None, "application", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime]
    application: Mapped[str | None]
    kind: Mapped[str]
    text: Mapped[str] = mapped_column(Text)
    data: Mapped[dict[str, Any]]


class SiteRow(Row):
    """A public key that a site certifies its agents with, and that is trusted. A site may have several."""

    __tablename__ = "sites"

    site: Mapped[str] = mapped_column(primary_key=True)
    key: Mapped[str] = mapped_column(primary_key=True)
    own: Mapped[bool]
    """Whether the site is this one."""
    added: Mapped[datetime]


class TokenRow(Row):
    """A signed document that something rests on: written once, never changed."""

    __tablename__ = "tokens"
    __table_args__ = (UniqueConstraint("kid", "nonce"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    kid: Mapped[str]
    nonce: Mapped[str]
    tag: Mapped[str]
    digest: Mapped[str] = mapped_column(index=True)
    """The document's."""
    application: Mapped[str] = mapped_column(index=True)
    conversation: Mapped[str]
    issuer: Mapped[str]
    issued: Mapped[datetime]
    expires: Mapped[datetime]
    token: Mapped[str] = mapped_column(Text)


class ConversationRow(Row):
    """Where one of our agents stands in a conversation with one peer, as far as it binds."""

    __tablename__ = "conversations"

    agent: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    peer: Mapped[str] = mapped_column(primary_key=True)
    role: Mapped[str]
    protocol: Mapped[str]
    state: Mapped[str]
    asked: Mapped[str]
    """The initiator's place in it: which of its messages was the last."""
    said: Mapped[dict[str, Any]]
    """What the agent said last that binds it, as it was said; empty if nothing, or if ``heard`` has the same: an offer
    is what a participant said, and what binds it."""
    heard: Mapped[dict[str, Any]]
    """What the peer said last that binds it."""
    expires: Mapped[datetime] = mapped_column(index=True)
    """When it may be forgotten, unless it is still open."""
