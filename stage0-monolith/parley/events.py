"""Socket.IO events from the browsers, each of them acknowledged with {"id"} or {"error", "status"}."""

import re
from functools import wraps

from flask import request, session
from flask_socketio import emit

from . import logs, presence
from .api.messages import post
from .auth import BAD_TOKEN, check_token
from .errors import describe
from .refusals import Invalid, NotSignedIn
from .socket_server import is_connected, socketio, trust

WELL_FORMED_TOKEN = re.compile(r"[A-Za-z0-9_.-]+")  # of a JWT in its compact form (RFC 7515, section 3.1)


def on(event):
    """Register the handler of an event: what it returns, or the failure it raises, is acknowledged and logged.

    A client whose token is refused is told so.
    """

    def register(handler):
        @socketio.on(event)
        @wraps(handler)
        def handle(*args):
            logs.start_event()
            try:
                acknowledgement, status = handler(*args), 200
            except Exception as error:  # described, and logged there if nobody expected it
                sentence, status = describe(error)
                acknowledgement = {"error": sentence, "status": status}
                if status == 401:
                    emit("expired_token")
            logs.log_event(event, status)
            return acknowledgement

        return handle

    return register


@on("ping_user")
def ping_user(token=None, *_):
    """Count this connection as its user's for another minute."""
    user_id = signed_in_user(token)
    previous = session.get("user_id")  # in a handler, session is the connection's own
    if previous not in (None, user_id):
        presence.close(previous, request.sid)  # somebody else signed in on this page
    session["user_id"] = user_id
    presence.ping(user_id, request.sid)
    if not is_connected(request.sid):  # it was closed in the meantime, when it did not count yet
        presence.close(user_id, request.sid)
    return {"id": user_id}


@on("post_message")
def post_message(body=None, token=None, idempotency_key=None, *_):
    """Post a message, as POST /api/messages does."""
    user_id = signed_in_user(token)
    if not isinstance(body, dict):
        raise Invalid("The message must be an object with a source.")
    message, _is_new = post(user_id, body.get("source"), idempotency_key)
    return {"id": message.id}


@on("disconnect")
def disconnect(*_):
    """Stop counting this connection."""
    if "user_id" in session:
        presence.close(session["user_id"], request.sid)


def signed_in_user(token):
    """Return the id of the token's user, whose connection may send more from now on; raises NotSignedIn."""
    if not isinstance(token, str) or not WELL_FORMED_TOKEN.fullmatch(token):  # PyJWT overlooks blanks and line breaks
        raise NotSignedIn(BAD_TOKEN)
    user_id = check_token(token)["user_id"]
    trust(request.sid)
    return user_id
