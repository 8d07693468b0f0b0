"""For the other services: who was seen, and which connections are open. Not reachable from outside."""

from flask import Blueprint

from common.parameters import json_body

from .. import presence
from ..models.user import mark_all_seen

internal = Blueprint("internal", __name__, url_prefix="/internal/users")


@internal.put("/seen")
def see():
    """Note that these users were here, and answer which of them are known."""
    return {"known": mark_all_seen(json_body()["ids"])}


@internal.put("/<int:user_id>/connections/<connection>")
def ping(user_id, connection):
    """Count a connection of a user for another minute."""
    presence.ping(user_id, connection)
    return "", 204


@internal.delete("/<int:user_id>/connections/<connection>")
def close(user_id, connection):
    """Stop counting it."""
    presence.close(user_id, connection)
    return "", 204
