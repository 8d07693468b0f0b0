"""messages have a text instead of a source

Comes with v5.

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
    with op.batch_alter_table("messages") as batch:
        batch.alter_column("source", existing_type=sa.Text(), new_column_name="text")
