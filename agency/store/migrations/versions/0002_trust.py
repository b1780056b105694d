"""Trusted sites, and the signed documents that things rest on."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

_LABEL = sa.String(255)
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """Create their tables."""
    op.create_table(
        "sites",
        sa.Column("site", _LABEL, primary_key=True),
        sa.Column("key", _LABEL, primary_key=True),
        sa.Column("own", sa.Boolean, nullable=False),
        sa.Column("added", _MOMENT, nullable=False),
    )
    op.create_table(
        "tokens",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("kid", _LABEL, nullable=False),
        sa.Column("nonce", _LABEL, nullable=False),
        sa.Column("tag", _LABEL, nullable=False),
        sa.Column("digest", _LABEL, nullable=False),
        sa.Column("application", _LABEL, nullable=False),
        sa.Column("conversation", _LABEL, nullable=False),
        sa.Column("issuer", _LABEL, nullable=False),
        sa.Column("issued", _MOMENT, nullable=False),
        sa.Column("expires", _MOMENT, nullable=False),
        sa.Column("token", sa.Text, nullable=False),
        sa.UniqueConstraint("kid", "nonce"),
    )
    op.create_index("ix_tokens_digest", "tokens", ["digest"])
    op.create_index("ix_tokens_application", "tokens", ["application"])


def downgrade() -> None:
    """Remove them, with everything in them."""
    op.drop_table("tokens")
    op.drop_table("sites")
