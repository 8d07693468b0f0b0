"""Configuration: one line per variable, all of them read from the environment."""

from common import config

PARTS = {"users", "messages"}


def read(environ):
    """Return the application's configuration from a mapping of environment variables."""
    return {
        **config.base(environ),
        **config.token_key(environ),
        **config.database(environ),
        **config.queue(environ),
        # Networks that link expansion may reach although they are not public: 127.0.0.0/8,10.0.0.0/8
        "LINK_ALLOWED_NETWORKS": environ.get("LINK_ALLOWED_NETWORKS", ""),
        # What Celery works for. Once messages are kept by a service of their own, only for users: the rows that are
        # still here are out of date, and who worked on them would push what has long been changed.
        "PARTS": parts(environ.get("PARTS", "users messages")),
    }


def parts(value):
    """Return the parts that the words of a setting name."""
    words = set(value.split())
    if unknown := words - PARTS:
        wrong = ", ".join(sorted(unknown))
        raise config.MissingSetting(f"The environment variable PARTS names {wrong}: there are users and messages.")
    return words
