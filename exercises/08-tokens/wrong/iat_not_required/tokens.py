"""Tokens: sign in and sign out. Takes the place of parley/api/tokens.py in the tokens service."""

import time
import uuid

import jwt
from flask import Blueprint, current_app, request
from sqlalchemy import and_, or_, select

from common import auth, services
from common.database import db, write_transaction
from common.parameters import query_int
from common.refusals import NotSignedIn

from ..models.revocation import Revocation

ALGORITHM = "EdDSA"  # with an Ed25519 key
LIFETIME = 60 * 60  # seconds
REQUIRED_CLAIMS = ["user_id", "iat", "exp", "jti"]

tokens = Blueprint("tokens", __name__, url_prefix="/api/tokens")


@tokens.post("")
def create():
    """Sign in: exchange nickname and password for a token."""
    # Before the check: if the password is changed while we check the old one, the token is born revoked.
    issued_at = time.time()
    user_id = check_password(*auth.basic_credentials())
    return {"token": issue_token(user_id, issued_at)}


@tokens.delete("")
def revoke():
    """Sign out: refuse this token from now on, or with ?all=1 all of the user's until now."""
    claims = check_token(auth.bearer_token())
    everywhere = query_int("all", 0, 1, default=0)
    with write_transaction() as session:
        session.add(revocation_of_all(claims) if everywhere else revocation_of_one(claims))
    return "", 204


def check_password(nickname, password):
    """Return the id of the user with this nickname and password: users knows, whoever that is.

    Passes on what users declines (401, 429), and Unavailable when nobody answers: services.call raises both.
    """
    client_is = {"X-Forwarded-For": request.remote_addr}  # by which users counts wrong passwords
    credentials = (nickname.encode(), password.encode())
    answer = services.call("users", "GET", "/api/users/me", auth=credentials, headers=client_is)
    return answer.json()["id"]


def issue_token(user_id, issued_at):
    """Return a new token, a JWT with the REQUIRED_CLAIMS; issued_at is in seconds, with a fraction."""
    claims = {"user_id": user_id, "iat": issued_at, "exp": int(issued_at) + LIFETIME, "jti": uuid.uuid4().hex}
    return jwt.encode(claims, current_app.config["JWT_PRIVATE_KEY"], ALGORITHM)


def check_token(token):
    """Return the claims of a token that is good and not revoked; raises NotSignedIn."""
    try:
        claims = jwt.decode(
            token,
            current_app.config["JWT_PUBLIC_KEY"],
            algorithms=[ALGORITHM],  # never the one that the token asks for
            options={"require": ["exp", "jti"]},
        )
    except jwt.InvalidTokenError as error:
        raise NotSignedIn("The token is not valid or has expired. Please sign in again.") from error
    if is_revoked(claims):
        raise NotSignedIn("The token was revoked. Please sign in again.")
    return claims


def revocation_of_one(claims):
    """Return the row that has this token refused, for as long as it would have lived."""
    return Revocation(jti=claims["jti"], expires_at=claims["exp"])


def revocation_of_all(claims):
    """Return the row that has all tokens of its user refused that were issued until now."""
    now = time.time()
    return Revocation(user_id=claims["user_id"], issued_until=now, expires_at=int(now) + LIFETIME + 1)


def is_revoked(claims):
    """Return whether one of the rows, of either kind, is about this token."""
    everywhere = and_(Revocation.user_id == claims["user_id"], Revocation.issued_until >= claims["iat"])
    query = select(Revocation.id).where(or_(Revocation.jti == claims["jti"], everywhere)).limit(1)
    return db.session.scalar(query) is not None
