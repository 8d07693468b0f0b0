"""The secrets of this installation: generated once, readable by their owner only, never a default.

A secret is 32 random bytes, written as base64url. Two endings have a meaning: X_PRIVATE_KEY and X_PUBLIC_KEY are a key
pair (Ed25519, RFC 8032). Such a private key is any 32 bytes, and its public key is derived from it, so only the private
key is stored.
"""

import base64
import json
import secrets

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from workshop import paths
from workshop.files import write_atomically

BYTES = 32  # 256 bits, the length of an Ed25519 key
PRIVATE, PUBLIC = "_PRIVATE_KEY", "_PUBLIC_KEY"


def secret(name: str) -> str:
    """Return the secret called `name`, generating it the first time."""
    if name.endswith(PUBLIC):
        return _public_key(secret(name.removesuffix(PUBLIC) + PRIVATE))
    known = json.loads(paths.SECRETS.read_text()) if paths.SECRETS.exists() else {}
    if name not in known:
        known[name] = secrets.token_urlsafe(BYTES)
        write_atomically(paths.SECRETS, json.dumps(known, indent=2))
    return known[name]


def _public_key(private_key: str) -> str:
    """Return the public key of a private key, both as base64url without padding, as in a JSON Web Key (RFC 8037)."""
    key = Ed25519PrivateKey.from_private_bytes(base64.urlsafe_b64decode(private_key + "="))
    return base64.urlsafe_b64encode(key.public_key().public_bytes_raw()).decode().rstrip("=")
