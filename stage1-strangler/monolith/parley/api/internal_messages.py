"""For the socketio service: a message that came through the socket. Not reachable from outside."""

from flask import Blueprint, g

from common.auth import token_required
from common.parameters import json_body

from .messages import post

internal = Blueprint("internal", __name__, url_prefix="/internal/messages")


@internal.post("")
@token_required
def create():
    """Post a message; the idempotency key, which a client of the socket chose freely, comes in the body."""
    body = json_body()
    message, _is_new = post(g.user_id, body.get("source"), body.get("idempotency_key"))
    return {"id": message.id}
