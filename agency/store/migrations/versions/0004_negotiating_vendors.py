"""How vendors negotiate."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    """Those that are there do not."""
    with op.batch_alter_table("vendors") as table:
        table.add_column(sa.Column("negotiation", sa.JSON, nullable=False, server_default="{}"))
    with op.batch_alter_table("vendors") as table:
        table.alter_column("negotiation", server_default=None)


def downgrade() -> None:
    """Forget it."""
    with op.batch_alter_table("vendors") as table:
        table.drop_column("negotiation")
