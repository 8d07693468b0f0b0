"""Users."""

import itertools
import logging
import time

from sqlalchemy import BigInteger, String, or_, select, update
from sqlalchemy.exc import OperationalError
from sqlalchemy.orm import Mapped, mapped_column

from ..database import db, time_of_change, write_transaction
from ..nicknames import LONGEST, nickname_key, visible
from ..refusals import Invalid, NotSignedIn

log = logging.getLogger(__name__)

CHUNK = 500  # users who get their keys in one transaction: about 0.1 s


class User(db.Model):
    """Somebody who registered."""

    __tablename__ = "users"

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger, index=True)
    last_seen_at: Mapped[int] = mapped_column(BigInteger)
    nickname: Mapped[str] = mapped_column(String(32), unique=True)
    # The form in which nicknames are compared; NULL: stored by a version that knew no keys.
    nickname_key: Mapped[str | None] = mapped_column(String(128), index=True, unique=True)
    # The idempotency key with which the user registered; NULL: there was none.
    registration_key: Mapped[str | None] = mapped_column(String(128))
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


def find_by_nickname(nickname):
    """Return the user with this nickname, or None; the exact spelling goes before one that only looks alike."""
    if "\0" in nickname:
        return None  # nobody has that, and PostgreSQL would not even look for it
    is_theirs = or_(User.nickname == nickname, User.nickname_key == nickname_key(nickname))
    return db.session.scalar(select(User).where(is_theirs).order_by(User.nickname != nickname).limit(1))


def fill_keys():
    """Give a key to each user whom a version without keys has stored.

    While that version still runs, it may store more. Where two users look alike, the older one keeps the nickname, and
    the younger one gets a number behind it.
    """
    without_key = select(User).where(User.nickname_key.is_(None)).order_by(User.created_at, User.id).limit(CHUNK)
    while db.session.scalars(without_key).first():
        with write_transaction() as session:
            users = session.scalars(without_key.with_for_update()).all()  # or another instance does the same now
            keys = {user.id: nickname_key(user.nickname) for user in users}
            taken = set(session.scalars(select(User.nickname_key).where(User.nickname_key.in_(keys.values()))))
            taken.add("")  # nothing of the nickname is seen
            alike = []
            for user in users:
                if keys[user.id] in taken:
                    alike.append(user)
                else:
                    user.nickname_key = keys[user.id]
                    taken.add(user.nickname_key)
            for user in alike:
                add_number(session, user)


def add_number(session, user):
    """Give a user the first nickname with a number behind it that is free, and say so in the log."""
    old = user.nickname
    for number in itertools.count(2):
        suffix = f"-{number}"
        nickname = (visible(old) or "user")[: LONGEST - len(suffix)] + suffix
        is_same = or_(User.nickname == nickname, User.nickname_key == nickname_key(nickname))
        if not session.scalar(select(User.id).where(is_same).limit(1)):
            break
    user.nickname, user.nickname_key = nickname, nickname_key(nickname)
    user.updated_at = time_of_change(session, User)
    log.warning("User %d is now called %s: %a looks like the nickname of an older user", user.id, user.nickname, old)


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
