"""The outbox of the users service: whom the tokens service still has to be told to sign out everywhere.

A password and this row are changed in one transaction; so who changes a password is signed out, if not at once because
tokens is away, then a second after it is back.
"""

import time

from sqlalchemy import delete, select
from sqlalchemy.orm import Mapped, mapped_column

from common import services
from common.database import db, write_transaction


class SignOut(db.Model):
    """All tokens of a user issued until then are to be revoked."""

    __tablename__ = "sign_outs"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int]
    issued_until: Mapped[float]


def sign_out_everywhere(session, claims):
    """Have all tokens of a user revoked that were issued until now, the one that asks for it among them."""
    session.add(SignOut(user_id=claims["user_id"], issued_until=max(time.time(), claims["iat"])))


def deliver_sign_outs():
    """Tell the tokens service, and forget what it has taken; raises Unavailable.

    Two instances may deliver the same one: that does no harm.
    """
    sign_outs = db.session.scalars(select(SignOut).order_by(SignOut.id)).all()
    db.session.commit()  # gives the connection back while we wait for tokens
    for sign_out in sign_outs:
        told = {"user_id": sign_out.user_id, "issued_until": sign_out.issued_until}
        services.call("tokens", "POST", "/internal/tokens/revocations", json=told, repeatable=True)
        with write_transaction() as session:
            # The time as well: an id may be another row's by now, if another instance has delivered this one.
            session.execute(delete(SignOut).filter_by(**told, id=sign_out.id))
