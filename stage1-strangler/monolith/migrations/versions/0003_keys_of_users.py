"""the form in which nicknames are compared, and the idempotency keys of registrations

The number 0002 is that of the outbox in stage 1, whose monolith takes over the database of stage 0.

Revision ID: 0003
Revises: 0001
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0001"
branch_labels = None
depends_on = None


# Expand: the version before does not know these columns, and leaves them NULL. Migrate: the application fills
# nickname_key (fill_keys in models/user.py). Contract: a later build makes it NOT NULL, and drops uq_users_nickname.
# A user whom the version before renames keeps the key of the old nickname until the next change of the nickname.
# registration_key stays NULL for users who registered without a key.
def upgrade():
    op.add_column("users", sa.Column("nickname_key", sa.String(length=128), nullable=True))
    op.add_column("users", sa.Column("registration_key", sa.String(length=128), nullable=True))
    op.create_index("ix_users_nickname_key", "users", ["nickname_key"], unique=True)


def downgrade():
    op.drop_index("ix_users_nickname_key", "users")
    op.drop_column("users", "registration_key")
    op.drop_column("users", "nickname_key")
