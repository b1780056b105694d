"""The table of conversations."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

_LABEL = sa.String(255)


def upgrade() -> None:
    """Create it."""
    op.create_table(
        "conversations",
        sa.Column("agent", _LABEL, primary_key=True),
        sa.Column("id", _LABEL, primary_key=True),
        sa.Column("peer", _LABEL, primary_key=True),
        sa.Column("role", _LABEL, nullable=False),
        sa.Column("protocol", _LABEL, nullable=False),
        sa.Column("state", _LABEL, nullable=False),
        sa.Column("asked", _LABEL, nullable=False),
        sa.Column("said", sa.JSON, nullable=False),
        sa.Column("heard", sa.JSON, nullable=False),
        sa.Column("expires", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_index("ix_conversations_expires", "conversations", ["expires"])


def downgrade() -> None:
    """Remove it: who is in the middle of an acceptance forgets it."""
    op.drop_table("conversations")
