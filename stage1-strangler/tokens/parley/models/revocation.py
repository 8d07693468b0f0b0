"""Revoked tokens: refused although their signature is good and their time is not over."""

import math
import time

from sqlalchemy import BigInteger, String, and_, delete, func, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from common.database import db, write_transaction


class Revocation(db.Model):
    """One token, by its jti; or all tokens of a user that were issued until then, by user_id and issued_until."""

    __tablename__ = "revocations"

    id: Mapped[int] = mapped_column(primary_key=True)
    jti: Mapped[str | None] = mapped_column(String(64), index=True)
    user_id: Mapped[int | None] = mapped_column(index=True)
    issued_until: Mapped[float | None]
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)

    def to_dict(self):
        """Return what the other services need to know."""
        return {"jti": self.jti, "user_id": self.user_id, "issued_until": self.issued_until}


def revoke_token(session, claims):
    """Refuse this token from now on."""
    session.add(Revocation(jti=claims["jti"], expires_at=claims["exp"]))


def revoke_all_tokens(session, claims, lifetime):
    """Refuse all tokens of a user issued until now; lifetime, in seconds, is how long the youngest of them lives.

    The token that asks for it is among them, also when the clock was set back after it was issued. Where that ends: one
    that was issued later than that, and before the clock was set back, lives on until its time is over.
    """
    revoke_tokens_until(session, claims["user_id"], max(time.time(), claims["iat"]), lifetime)


def revoke_tokens_until(session, user_id, issued_until, lifetime):
    """Refuse all tokens of a user issued until a time."""
    expires_at = int(issued_until) + lifetime + 1
    session.add(Revocation(user_id=user_id, issued_until=issued_until, expires_at=expires_at))


def time_of_issue():
    """Return the time for a new token's iat: now, but after all revocations; those lie ahead if the clock went back."""
    newest = db.session.scalar(select(func.max(Revocation.issued_until)))
    db.session.commit()  # gives the connection back: what follows waits for Redis, and hashes
    return max(time.time(), math.nextafter(newest or 0, math.inf))


def is_revoked(claims):
    """Return whether a token with these claims is to be refused."""
    issued_until = and_(Revocation.user_id == claims["user_id"], Revocation.issued_until >= claims["iat"])
    query = select(Revocation.id).where(or_(Revocation.jti == claims["jti"], issued_until)).limit(1)
    return db.session.scalar(query) is not None


def sweep_expired():
    """Delete revocations of tokens that have expired by now."""
    with write_transaction() as session:
        session.execute(delete(Revocation).where(Revocation.expires_at < int(time.time())))
