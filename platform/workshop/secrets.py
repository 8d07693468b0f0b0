"""The secrets of this installation: generated once, readable by their owner only, never a default."""

import json
import secrets

from workshop import paths
from workshop.files import write_atomically

BYTES = 32  # 256 bits, the length of an HS256 key


def secret(name: str) -> str:
    """Return the secret called `name`, generating it the first time."""
    known = json.loads(paths.SECRETS.read_text()) if paths.SECRETS.exists() else {}
    if name not in known:
        known[name] = secrets.token_urlsafe(BYTES)
        write_atomically(paths.SECRETS, json.dumps(known, indent=2))
    return known[name]
