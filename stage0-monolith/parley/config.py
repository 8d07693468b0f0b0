"""Configuration: one line per variable, all of them read from the environment."""

LOOPBACK = "127.0.0.1,localhost,[::1]"


class MissingSetting(RuntimeError):
    """A required setting is missing or unusable; the message names it."""


def read(environ):
    """Return the application's configuration from a mapping of environment variables."""
    return {
        # Who this process is, in /healthz and in each log line.
        "SERVICE": environ.get("SERVICE", "monolith"),
        "VERSION": environ.get("VERSION", "v0"),
        "INSTANCE": environ.get("INSTANCE", "local"),
        # The database: sqlite:////absolute/path.db or postgresql+psycopg://user:password@host/name
        "SQLALCHEMY_DATABASE_URI": required(environ, "DATABASE_URL"),
        # Redis: message queue, presence and Celery's broker. redis://:password@host:port/0
        "REDIS_URL": required(environ, "REDIS_URL"),
        # Networks that link expansion may reach although they are not public: 127.0.0.0/8,10.0.0.0/8
        "LINK_ALLOWED_NETWORKS": environ.get("LINK_ALLOWED_NETWORKS", ""),
        # What the Host header of a request may name: the names of the load balancer, and our own address.
        "ALLOWED_HOSTS": [*environ.get("ALLOWED_HOSTS", LOOPBACK).split(","), environ.get("HOST", "127.0.0.1")],
        # Enough for a message of 4,000 characters, each written as two \uXXXX escapes.
        "MAX_CONTENT_LENGTH": 64 * 1024,
    }


def required(environ, name):
    """Return the setting; raises MissingSetting."""
    if not environ.get(name):
        raise MissingSetting(f"The environment variable {name} is not set. Add it to stage.toml, or set it yourself.")
    return environ[name]
