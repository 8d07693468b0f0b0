"""The key pair of the tokens: Ed25519 (RFC 8032). The private key signs tokens, the public key only checks them.

Only the service that issues tokens gets the private key. A service with the public key alone can't make a token.
"""

import base64

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from .config import MissingSetting, required


def private_key(environ):
    """Return what issuing tokens takes."""
    return {"JWT_PRIVATE_KEY": read_key(environ, "JWT_PRIVATE_KEY", Ed25519PrivateKey.from_private_bytes)}


def public_key(environ):
    """Return what checking tokens takes."""
    return {"JWT_PUBLIC_KEY": read_key(environ, "JWT_PUBLIC_KEY", Ed25519PublicKey.from_public_bytes)}


def read_key(environ, name, from_bytes):
    """Return the key in a setting: 32 bytes as base64url without padding, as in a JSON Web Key (RFC 8037).

    Raises MissingSetting.
    """
    try:
        return from_bytes(base64.urlsafe_b64decode(required(environ, name) + "="))
    except ValueError as error:
        raise MissingSetting(f"The environment variable {name} is not a key of 32 bytes in base64url.") from error
