"""contract: messages have no source any more

Comes after v7, when v6 has ended.

Revision ID: 0004
Revises: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade():
    raise NotImplementedError("TODO 4: take `source` away, and have `text` be NOT NULL (0004_contract.py)")
