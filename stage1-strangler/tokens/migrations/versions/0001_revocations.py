"""revocations

Revision ID: 0001
Revises:
"""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None


def upgrade():
    op.create_table(
        "revocations",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("jti", sa.String(length=64), nullable=True),
        sa.Column("user_id", sa.Integer(), nullable=True),
        sa.Column("issued_until", sa.Double(), nullable=True),
        sa.Column("expires_at", sa.BigInteger(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_revocations"),
    )
    op.create_index("ix_revocations_jti", "revocations", ["jti"])
    op.create_index("ix_revocations_user_id", "revocations", ["user_id"])
    op.create_index("ix_revocations_expires_at", "revocations", ["expires_at"])


def downgrade():
    op.drop_table("revocations")
