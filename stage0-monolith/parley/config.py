"""Configuration: one line per variable, all of them read from the environment."""


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
        # Signs the tokens. HS256 wants a key at least as long as its hash: 32 bytes (RFC 7518, section 3.2).
        "JWT_SECRET_KEY": required(environ, "JWT_SECRET_KEY", at_least=32),
        # Networks that link expansion may reach although they are not public: 127.0.0.0/8,10.0.0.0/8
        "LINK_ALLOWED_NETWORKS": environ.get("LINK_ALLOWED_NETWORKS", ""),
        # Enough for a message of 4,000 characters, each written as two \uXXXX escapes.
        "MAX_CONTENT_LENGTH": 64 * 1024,
    }


def required(environ, name, at_least=1):
    """Return the setting, which must have at least that many characters."""
    value = environ.get(name, "")
    if len(value) < at_least:
        problem = f"is shorter than {at_least} characters" if value else "is not set"
        raise MissingSetting(f"The environment variable {name} {problem}; parley/config.py says what it is for.")
    return value
