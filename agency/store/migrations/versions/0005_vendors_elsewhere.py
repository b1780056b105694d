"""Vendors whose agents are at other sites."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """For those that are there, this site's own agents speak."""
    with op.batch_alter_table("vendors") as table:
        table.add_column(sa.Column("agent", sa.String, nullable=True))


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("vendors") as table:
        table.drop_column("agent")
