"""Who is calling: tokens are JWTs (RFC 7519), checked here, with nothing but the public key and two adapters.

create_app says how to find out whether a token is revoked, and what to do when a user was seen.
"""

import time
import uuid
from functools import wraps

import jwt
from flask import current_app, g, request

from .parameters import MAX_ID, MAX_TIME
from .refusals import NotSignedIn

ALGORITHM = "EdDSA"  # with an Ed25519 key (RFC 8037)
LIFETIME = 60 * 60  # seconds
REQUIRED_CLAIMS = ["user_id", "iat", "exp", "jti"]
MAX_JTI = 64
BAD_TOKEN = "The token is not valid or has expired. Please sign in again."  # noqa: S105


def init_app(app, is_revoked, mark_seen):
    """Take the adapters: is_revoked(claims) -> bool, mark_seen(user_id)."""
    app.extensions["auth"] = {"is_revoked": is_revoked, "mark_seen": mark_seen}


def issue_token(user_id, issued_at, private_key):
    """Return a new token; issued_at keeps its fraction of a second, so that revoking has a sharp edge.

    Every service has this code, but only one has the private key.
    """
    # issued_at lies in the future when the clock was set back after a revocation: the token lives no longer for that.
    expires_at = int(min(issued_at, time.time())) + LIFETIME
    claims = {"user_id": user_id, "iat": issued_at, "exp": expires_at, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, private_key, ALGORITHM)


def check_token(token):
    """Return the claims of a good token, whose user counts as seen; raises NotSignedIn."""
    try:
        claims = jwt.decode(
            token,
            current_app.config["JWT_PUBLIC_KEY"],
            algorithms=[ALGORITHM],  # never the one that the token asks for
            # iat is only for revoking: a clock that was set back must not sign everybody out.
            options={"require": REQUIRED_CLAIMS, "verify_iat": False},
        )
    except (jwt.InvalidTokenError, ValueError) as error:  # ValueError: characters that no token has
        raise NotSignedIn(BAD_TOKEN) from error
    if not are_well_formed(claims):
        raise NotSignedIn(BAD_TOKEN)
    adapters = current_app.extensions["auth"]
    if adapters["is_revoked"](claims):
        raise NotSignedIn("The token was revoked. Please sign in again.")
    adapters["mark_seen"](claims["user_id"])
    return claims


def are_well_formed(claims):
    """Return whether all claims have the type and size that issue_token gives them: a signature alone is no proof."""
    user_id, issued_at, expires_at, jti = (claims[name] for name in REQUIRED_CLAIMS)
    return (
        type(user_id) is int  # not isinstance: True is an int as well
        and 1 <= user_id <= MAX_ID
        and type(issued_at) in (int, float)
        and abs(issued_at) <= MAX_TIME  # neither infinite nor NaN
        and type(expires_at) is int
        and expires_at <= MAX_TIME
        and len(jti) <= MAX_JTI  # that it is a text, PyJWT has checked
        and jti.isascii()
        and jti.isprintable()
    )


def token_required(view):
    """Let only requests with a good token through; sets g.claims and g.user_id."""
    return _with_token(view, optional=False)


def token_optional(view):
    """Let anonymous requests through as well, but none with a bad token."""
    return _with_token(view, optional=True)


def _with_token(view, optional):
    @wraps(view)
    def checked(*args, **kwargs):
        g.claims = g.user_id = None
        if not (optional and "Authorization" not in request.headers):
            g.claims = check_token(bearer_token())
            g.user_id = g.claims["user_id"]
        return view(*args, **kwargs)

    return checked


def bearer_token():
    """Return the request's Bearer token (RFC 6750); raises NotSignedIn."""
    credentials = find_credentials("bearer")
    if credentials is None or not credentials.token:
        raise NotSignedIn("This needs a token: Authorization: Bearer <token>.")
    return credentials.token


def basic_credentials():
    """Return the request's nickname and password (HTTP Basic, RFC 7617); raises NotSignedIn."""
    credentials = find_credentials("basic")
    if credentials is None:
        raise NotSignedIn("This needs your nickname and password: Authorization: Basic.")
    return credentials.username, credentials.password


def find_credentials(kind):
    """Return the credentials of this kind that the request has, or None."""
    try:
        credentials = request.authorization
    except ValueError:  # not even ASCII
        return None
    return credentials if credentials and credentials.type == kind else None
