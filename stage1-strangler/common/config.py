"""Configuration that all services share: one line per variable, all of them read from the environment."""


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
        # Enough for a message of 4,000 characters, each written as two \uXXXX escapes.
        "MAX_CONTENT_LENGTH": 64 * 1024,
    }


def token_key(environ):
    """Return what checking tokens takes."""
    return {
        # Signs the tokens. HS256 wants a key at least as long as its hash: 32 bytes (RFC 7518, section 3.2).
        "JWT_SECRET_KEY": required(environ, "JWT_SECRET_KEY", at_least=32),
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


def required(environ, name, at_least=1):
    """Return the setting, which must have at least that many characters."""
    value = environ.get(name, "")
    if len(value) < at_least:
        problem = f"is shorter than {at_least} characters" if value else "is not set"
        raise MissingSetting(f"The environment variable {name} {problem}; common/config.py says what it is for.")
    return value
