"""What v5 knows of a message's text: both columns. It writes both, and reads the new one where there is something."""

from sqlalchemy import Text
from sqlalchemy.orm import Mapped, mapped_column


class HasText:
    """A part of the model of messages: what the API calls `source`."""

    old: Mapped[str] = mapped_column("source", Text)
    text: Mapped[str | None] = mapped_column(Text)

    @property
    def source(self):
        return self.old if self.text is None else self.text

    @source.setter
    def source(self, source):
        self.old = self.text = source
