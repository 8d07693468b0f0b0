"""Configuration that all services share: one line per variable, all of them read from the environment."""

LOOPBACK = "127.0.0.1,localhost,[::1]"


class MissingSetting(RuntimeError):
    """A required setting is missing or unusable; the message names it."""


def base(environ):
    """Return the part of the configuration that every service has."""
    return {
        # Who this process is, in /healthz and in each log line.
        "SERVICE": required(environ, "SERVICE"),
        "VERSION": environ.get("VERSION", "v0"),
        "INSTANCE": environ.get("INSTANCE", "local"),
        # The load balancer's frontend for calls between services: http://127.0.0.1:21034
        "INTERNAL_URL": required(environ, "INTERNAL_URL"),
        # What the Host header of a request may name: the names of the load balancer, and our own address.
        "ALLOWED_HOSTS": [*environ.get("ALLOWED_HOSTS", LOOPBACK).split(","), environ.get("HOST", "127.0.0.1")],
        # Enough for a message of 4,000 characters, each written as two \uXXXX escapes.
        "MAX_CONTENT_LENGTH": 64 * 1024,
    }


def database(environ):
    """Return what having a database takes."""
    return {
        # Its own: sqlite:////absolute/path.db or postgresql+psycopg://user:password@host/name
        "SQLALCHEMY_DATABASE_URI": required(environ, "DATABASE_URL"),
    }


def queue(environ):
    """Return what pushing takes."""
    return {
        # Redis: the message queue, and presence. redis://:password@host:port/0
        "REDIS_URL": required(environ, "REDIS_URL"),
    }


def required(environ, name):
    """Return the setting; raises MissingSetting."""
    if not environ.get(name):
        raise MissingSetting(f"The environment variable {name} is not set. Add it to stage.toml, or set it yourself.")
    return environ[name]
