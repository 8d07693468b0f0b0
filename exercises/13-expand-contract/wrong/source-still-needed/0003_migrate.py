"""migrate: every message has its text

Comes with v6. v4 has ended, v5 still runs, and writes both. All rows, not only those without a text: v4 may have edited
one that v5 had written.

Revision ID: 0003
Revises: 0002
"""

from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None


def upgrade():
    op.execute("UPDATE messages SET text = source")
