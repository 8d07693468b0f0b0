"""migrate: every message has its text; nobody has to write the source any more

Comes with v6, when v4 has ended. v5 still runs. v7, which knows no source, will run on this schema as well.

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
    raise NotImplementedError("TODO 3: fill in `text`, and let v7 leave out `source` (0003_migrate.py)")
