"""For the other services: which tokens are revoked, and signing somebody out everywhere. Not reachable from outside."""

from flask import Blueprint
from sqlalchemy import select

from common.auth import LIFETIME
from common.database import db, write_transaction
from common.parameters import json_body

from ..models.revocation import Revocation, revoke_tokens_until

internal = Blueprint("internal", __name__, url_prefix="/internal/tokens/revocations")


@internal.get("")
def index():
    """List all revocations."""
    return {"revocations": [revocation.to_dict() for revocation in db.session.scalars(select(Revocation))]}


@internal.post("")
def create():
    """Revoke all tokens of a user that were issued until a time; twice does no harm."""
    body = json_body()
    with write_transaction() as session:
        revoke_tokens_until(session, body["user_id"], body["issued_until"], LIFETIME)
    return "", 204
