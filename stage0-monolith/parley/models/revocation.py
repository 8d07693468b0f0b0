"""Revoked tokens: refused although their signature is good and their time is not over."""

import math
import time

from sqlalchemy import BigInteger, String, and_, func, or_, select
from sqlalchemy.orm import Mapped, mapped_column

from ..database import db


class Revocation(db.Model):
    """One token, by its jti; or all tokens of a user that were issued until then, by user_id and issued_until."""

    __tablename__ = "revocations"

    id: Mapped[int] = mapped_column(primary_key=True)
    jti: Mapped[str | None] = mapped_column(String(64), index=True)
    user_id: Mapped[int | None] = mapped_column(index=True)
    issued_until: Mapped[float | None]
    expires_at: Mapped[int] = mapped_column(BigInteger, index=True)


def revoke_token(session, claims):
    """Refuse this token from now on."""
    session.add(Revocation(jti=claims["jti"], expires_at=claims["exp"]))


def revoke_all_tokens(session, claims, lifetime):
    """Refuse all tokens of a user issued until now; lifetime, in seconds, is how long the youngest of them lives.

    The token that asks for it is among them, also when the clock was set back after it was issued. Where that ends: one
    that was issued later than that, and before the clock was set back, lives on until its time is over.
    """
    now = max(time.time(), claims["iat"])
    session.add(Revocation(user_id=claims["user_id"], issued_until=now, expires_at=int(now) + lifetime + 1))


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
