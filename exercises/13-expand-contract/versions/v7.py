"""What v7 knows of a message's text: one column, again."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column


class HasText:
    """A part of the model of messages: what the API calls `source`."""

    source: Mapped[str] = mapped_column("text", Text)
