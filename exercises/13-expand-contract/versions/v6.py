"""What v6 knows of a message's text: both columns. It writes both, and reads the new one: v5 writes both as well."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column, validates


class HasText:
    """A part of the model of messages: what the API calls `source`."""

    source: Mapped[str] = mapped_column("text", Text)
    old: Mapped[str | None] = mapped_column("source", Text)

    @validates("source")
    def write_both(self, _name, source):
        """Called whenever somebody sets it, in a new message or in one that is edited."""
        self.old = source
        return source
