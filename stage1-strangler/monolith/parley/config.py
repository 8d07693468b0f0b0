"""Configuration: one line per variable, all of them read from the environment."""

from common import config, keys


def read(environ):
    """Return the service's configuration from a mapping of environment variables."""
    return {
        **config.base(environ),
        **keys.public_key(environ),
        **config.database(environ),
        **config.queue(environ),
        # Networks that link expansion may reach although they are not public: 127.0.0.0/8,10.0.0.0/8
        "LINK_ALLOWED_NETWORKS": environ.get("LINK_ALLOWED_NETWORKS", ""),
    }
