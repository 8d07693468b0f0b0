"""expand: messages have a text

Comes with v5. v4 still runs, and goes on writing without it: so it may be NULL.

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade():
    op.add_column("messages", sa.Column("text", sa.String(255), nullable=True))
