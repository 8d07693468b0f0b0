"""migrate: every message has its text; nobody has to write the source any more

Comes with v6. v4 has ended, v5 still runs, and writes both. All rows, not only those without a text: v4 may have edited
one that v5 had written.

Revision ID: 0003
Revises: 0002
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("UPDATE messages SET text = source WHERE text IS NULL OR length(text) <> length(source)")
    # SQLite cannot change a column: batch mode makes the table anew.
    with op.batch_alter_table("messages") as batch:
        batch.alter_column("source", existing_type=sa.Text(), nullable=True)
