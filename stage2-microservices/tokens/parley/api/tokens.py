"""Tokens: sign in and sign out."""

from flask import Blueprint, current_app, g, request

from common import auth, services
from common.auth import token_required
from common.database import write_transaction
from common.parameters import query_int

from ..models.revocation import revoke_all_tokens, revoke_token, time_of_issue

tokens = Blueprint("tokens", __name__, url_prefix="/api/tokens")


@tokens.post("")
def create():
    """Sign in: exchange nickname and password for a token."""
    # Before the check: if the password is changed while we check the old one, the token is born revoked.
    issued_at = time_of_issue()
    user_id = check_password(*auth.basic_credentials())
    return {"token": auth.issue_token(user_id, issued_at, current_app.config["JWT_PRIVATE_KEY"])}


@tokens.delete("")
@token_required
def revoke():
    """Sign out: refuse this token from now on, or with ?all=1 all of the user's until now."""
    everywhere = query_int("all", 0, 1, default=0)
    with write_transaction() as session:
        if everywhere:
            revoke_all_tokens(session, g.claims, auth.LIFETIME)
        else:
            revoke_token(session, g.claims)
    return "", 204


def check_password(nickname, password):
    """Return the id of the user with this nickname and password; raises Declined and Unavailable.

    Tokens needs users here, as users needs tokens to sign somebody out everywhere: a cycle between the two.
    """
    answer = services.call(
        "users",
        "GET",
        "/api/users/me",
        auth=(nickname.encode(), password.encode()),
        headers={"X-Forwarded-For": request.remote_addr},  # by which users counts wrong passwords
    )
    return answer.json()["id"]
