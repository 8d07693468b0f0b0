"""sign-outs to be told

Revision ID: 0002
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


# Expand only. Nothing here uses the table revocations any more, but instances of the version before still do while
# this one is rolled out, and after a rollback. A later build drops it, when nobody goes back that far (contract).
def upgrade():
    op.create_table(
        "sign_outs",
        sa.Column("id", sa.Integer(), nullable=False),
        sa.Column("user_id", sa.Integer(), nullable=False),
        sa.Column("issued_until", sa.Double(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="pk_sign_outs"),
    )


def downgrade():
    op.drop_table("sign_outs")
