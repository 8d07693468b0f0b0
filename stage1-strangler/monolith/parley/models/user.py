"""Users."""

import logging
import time

from sqlalchemy import BigInteger, String, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Mapped, mapped_column

from common.database import db, write_transaction
from common.refusals import Invalid, NotSignedIn

log = logging.getLogger(__name__)


class User(db.Model):
    """Somebody who registered."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger, index=True)
    last_seen_at: Mapped[int] = mapped_column(BigInteger)
    nickname: Mapped[str] = mapped_column(String(32), unique=True)
    password_hash: Mapped[str] = mapped_column(String(256))
    online: Mapped[bool] = mapped_column(default=False)

    def to_dict(self):
        """Return what clients may see."""
        return {
            "id": self.id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "last_seen_at": self.last_seen_at,
            "nickname": self.nickname,
            "online": self.online,
            "_links": {"self": f"/api/users/{self.id}", "messages": "/api/messages", "tokens": "/api/tokens"},
        }


def check_nickname(nickname):
    """Return the nickname; raises Invalid.

    No colon, since HTTP Basic separates the password with one; no blank at either end, since "ann" and "ann "
    look the same. Python's isprintable() leaves out control and invisible characters.
    """
    if not isinstance(nickname, str) or not 1 <= len(nickname) <= 32 or not nickname.isprintable():
        raise Invalid("A nickname has 1 to 32 printable characters.")
    if ":" in nickname or nickname != nickname.strip():
        raise Invalid("A nickname has no colon, and no blank at its beginning or end.")
    return nickname


def check_new_password(password):
    """Return the password; raises Invalid."""
    if not isinstance(password, str) or not 8 <= len(password) <= 128:
        raise Invalid("A password has 8 to 128 characters.")
    try:
        password.encode()
    except UnicodeEncodeError as error:
        raise Invalid("The password has characters that can't be stored.") from error
    return password


def mark_seen(user_id):
    """Note that a user was here: at most one write per second, and never worth failing a request."""
    now = int(time.time())
    last_seen_at = db.session.scalar(select(User.last_seen_at).where(User.id == user_id))
    if last_seen_at is None:
        raise NotSignedIn("The user of this token is not known. Please sign in again.")
    if now <= last_seen_at <= now + 1:  # later than that: the clock was set back
        return
    try:
        with write_transaction(lock_wait=0.1) as session:
            session.execute(update(User).where(User.id == user_id).values(last_seen_at=now))
    except OperationalError as error:
        log.warning("User %d was seen, but the database was busy: %s", user_id, error)


def mark_all_seen(user_ids):
    """Note that these users were here; return which of them are known."""
    known = db.session.scalars(select(User.id).where(User.id.in_(user_ids))).all()
    with write_transaction() as session:
        session.execute(update(User).where(User.id.in_(known)).values(last_seen_at=int(time.time())))
    return known
