"""Messages, and the idempotency keys that they were posted with."""

import hashlib

from sqlalchemy import BigInteger, ForeignKey, Index, String, Text, UniqueConstraint, select
from sqlalchemy.orm import Mapped, mapped_column

from ..database import db
from ..refusals import Invalid, KeyReused

DAY = 24 * 60 * 60


class Message(db.Model):
    """What somebody wrote, and the HTML that was made of it."""

    __tablename__ = "messages"
    __table_args__ = (Index(None, "updated_at", "id"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger)
    updated_at: Mapped[int] = mapped_column(BigInteger)
    source: Mapped[str] = mapped_column(Text)
    html: Mapped[str] = mapped_column(Text)
    user_id: Mapped[int] = mapped_column(ForeignKey("users.id"))
    # When its links are to be expanded; NULL: there is nothing (more) to do.
    expand_after: Mapped[int | None] = mapped_column(BigInteger, index=True)

    def to_dict(self):
        """Return what clients may see."""
        return {
            "id": self.id,
            "created_at": self.created_at,
            "updated_at": self.updated_at,
            "source": self.source,
            "html": self.html,
            "user_id": self.user_id,
            "_links": {"self": f"/api/messages/{self.id}", "user": f"/api/users/{self.user_id}"},
        }


class IdempotencyKey(db.Model):
    """Remembers which message a user's key made, so that a repeated request makes no second one."""

    __tablename__ = "idempotency_keys"
    __table_args__ = (UniqueConstraint("user_id", "key"),)

    id: Mapped[int] = mapped_column(primary_key=True)
    created_at: Mapped[int] = mapped_column(BigInteger, index=True)
    user_id: Mapped[int]
    key: Mapped[str] = mapped_column(String(128))
    digest: Mapped[str] = mapped_column(String(64))
    message_id: Mapped[int] = mapped_column(ForeignKey("messages.id"))


def check_source(source):
    """Return the text of a message; raises Invalid."""
    if not isinstance(source, str) or not source.strip():
        raise Invalid("A message needs a text: source is missing or blank.")
    if len(source) > 4000:
        raise Invalid("A message has at most 4,000 characters.")
    if "\0" in source or any("\ud800" <= character <= "\udfff" for character in source):
        raise Invalid("The message has characters that can't be stored.")
    return source


def digest(source):
    """Return the fingerprint that tells whether a repeated key came with the same body."""
    return hashlib.sha256(source.encode()).hexdigest()


def remember(message, key):
    """Return the row that says which message this key has made."""
    return IdempotencyKey(
        created_at=message.created_at,
        user_id=message.user_id,
        key=key,
        digest=digest(message.source),
        message_id=message.id,
    )


def find_repeat(session, user_id, key, source, now):
    """Return the message that this key already made within a day, or None; raises KeyReused."""
    known = session.scalar(select(IdempotencyKey).where(IdempotencyKey.user_id == user_id, IdempotencyKey.key == key))
    if known is None:
        return None
    if known.created_at < now - DAY:
        session.delete(known)
        session.flush()  # before the same key is inserted again
        return None
    if known.digest != digest(source):
        raise KeyReused("This idempotency key was used with another message. Use a new key for each message.")
    return session.get(Message, known.message_id)
