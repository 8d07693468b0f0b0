"""Tokens: sign in and sign out. Takes the place of parley/api/tokens.py in the tokens service."""

# ruff: noqa: F841 (what is named in check_password, the answer uses)

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
    raise NotImplementedError("TODO 1: ask users: GET /api/users/me, with the credentials")


def issue_token(user_id, issued_at):
    """Return a new token, a JWT with the REQUIRED_CLAIMS; issued_at is in seconds, with a fraction."""
    raise NotImplementedError("TODO 2: make the claims, and sign them with the private key")


def check_token(token):
    """Return the claims of a token that is good and not revoked; raises NotSignedIn."""
    raise NotImplementedError(
        "TODO 3: check the signature with the public key, then the claims, then whether it is revoked"
    )


def revocation_of_one(claims):
    """Return the row that has this token refused, for as long as it would have lived."""
    raise NotImplementedError("TODO 4: a row with its jti")


def revocation_of_all(claims):
    """Return the row that has all tokens of its user refused that were issued until now."""
    raise NotImplementedError("TODO 5: a row with a user_id and a time")


def is_revoked(claims):
    """Return whether one of the rows, of either kind, is about this token."""
    raise NotImplementedError("TODO 6: look for a row with this jti, or with this user_id and late enough")
