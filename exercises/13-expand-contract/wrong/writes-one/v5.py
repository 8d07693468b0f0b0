"""What v5 knows of a message's text: both columns. It still works with the old one; the migration fills the new one."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column


class HasText:
    """A part of the model of messages: what the API calls `source`."""

    source: Mapped[str] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text)
