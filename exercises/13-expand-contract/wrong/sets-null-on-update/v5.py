"""What v5 knows of a message's text: both columns. It writes both, and reads the old one: v4 writes no other."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column


def _source(context):
    return context.get_current_parameters().get("source")


class HasText:
    """A part of the model of messages: what the API calls `source`."""

    source: Mapped[str] = mapped_column(Text)
    text: Mapped[str | None] = mapped_column(Text, default=_source, onupdate=_source)
