"""The first tables."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

_LABEL = sa.String(255)
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create them."""
    _create_documents()
    _create_vendors_and_what_they_hold()
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("at", _MOMENT, nullable=False),
        sa.Column("application", _LABEL),
        sa.Column("kind", _LABEL, nullable=False),
        sa.Column("text", sa.Text, nullable=False),
        sa.Column("data", sa.JSON, nullable=False),
    )
    op.create_index("ix_events_application_id", "events", ["application", "id"])


def _create_documents() -> None:
    op.create_table(
        "documents",
        sa.Column("tag", _LABEL, primary_key=True),
        sa.Column("id", _LABEL, primary_key=True),
        sa.Column("application", _LABEL),
        sa.Column("revision", sa.Integer, nullable=False),
        sa.Column("created", _MOMENT, nullable=False),
        sa.Column("updated", _MOMENT, nullable=False),
        sa.Column("digest", _LABEL, nullable=False),
        sa.Column("body", sa.Text, nullable=False),
    )
    op.create_index("ix_documents_application", "documents", ["application"])


def _create_vendors_and_what_they_hold() -> None:
    op.create_table(
        "vendors",
        sa.Column("name", _LABEL, primary_key=True),
        sa.Column("module", _LABEL, nullable=False),
        sa.Column("settings", sa.JSON, nullable=False),
    )
    op.create_table(
        "credentials",
        sa.Column("vendor", _LABEL, primary_key=True),
        sa.Column("resource", _LABEL, primary_key=True),
        sa.Column("agreement", _LABEL, primary_key=True),
        sa.Column("ciphertext", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "resources",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("vendor", _LABEL, nullable=False),
        sa.Column("kind", _LABEL, nullable=False),
        sa.Column("key", _LABEL, nullable=False),
        sa.Column("status", _LABEL, nullable=False),
        sa.Column("resource", _LABEL),
        sa.UniqueConstraint("vendor", "kind", "key"),
    )
    op.create_index("ix_resources_vendor_kind_resource", "resources", ["vendor", "kind", "resource"])
    op.create_table(
        "cleanups",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("vendor", _LABEL, nullable=False),
        sa.Column("kind", _LABEL, nullable=False),
        sa.Column("key", _LABEL, nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("since", _MOMENT, nullable=False),
        sa.Column("attempts", sa.Integer, nullable=False),
        sa.Column("last_error", sa.Text),
        sa.UniqueConstraint("vendor", "kind", "key"),
    )


def downgrade() -> None:
    """Remove them, with everything in them."""
    for table in ("events", "cleanups", "resources", "credentials", "vendors", "documents"):
        op.drop_table(table)
