"""expand: messages have a text

Comes with v5. v4 still runs, and knows nothing of it.

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
    raise NotImplementedError("TODO 1: give messages a column `text` that v4 need not know (0002_expand.py)")
