"""What v5 knows of a message's text: both columns. v4 runs beside it, on the same rows, and knows only the old one."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column


class HasText:
    """A part of the model of messages: what the API calls `source`."""

    source: Mapped[str] = mapped_column(Text)
    # TODO 2: map `text` as well; have both written whenever somebody sets `source`; read the one that is true
