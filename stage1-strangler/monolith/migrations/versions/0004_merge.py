"""0002 and 0003 together

A database that comes from stage 0 has 0003 already, one of an earlier build of stage 1 has 0002.

Revision ID: 0004
Revises: 0002, 0003
"""

revision = "0004"
down_revision = ("0002", "0003")
branch_labels = None
depends_on = None


def upgrade():
    pass


def downgrade():
    pass
