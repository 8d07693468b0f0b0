"""Socket.IO events from the browsers, each of them acknowledged with {"id"} or {"error", "status"}."""

import re
from functools import wraps

from flask import request, session
from flask_socketio import emit

from common import logs, services
from common.auth import BAD_TOKEN, check_token
from common.errors import describe
from common.refusals import Invalid, NotSignedIn

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
                if status == 401:  # also when it was messages that refused the token: it may have a newer list
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
        services.call("users", "DELETE", presence(previous))  # somebody else signed in on this page
    session["user_id"] = user_id
    services.call("users", "PUT", presence(user_id))
    if not is_connected(request.sid):  # it was closed in the meantime, when it did not count yet
        services.call("users", "DELETE", presence(user_id))
    return {"id": user_id}


@on("post_message")
def post_message(body=None, token=None, idempotency_key=None, *_):
    """Post a message, as POST /api/messages does."""
    signed_in_user(token)
    if not isinstance(body, dict):
        raise Invalid("The message must be an object with a source.")
    # Socket.IO also carries what no JSON can: bytes, NaN. The messages service checks all that it can be sent.
    if not isinstance(body.get("source"), str):
        raise Invalid("A message needs a text: source is missing or blank.")
    if not isinstance(idempotency_key, (str, type(None))):
        raise Invalid("An idempotency key has 1 to 128 printable ASCII characters.")
    answer = services.call(
        "messages",
        "POST",
        "/internal/messages",
        json={"source": body["source"], "idempotency_key": idempotency_key},
        headers={"Authorization": f"Bearer {token}"},
        repeatable=idempotency_key is not None,
    )
    return {"id": answer.json()["id"]}


@on("disconnect")
def disconnect(*_):
    """Stop counting this connection."""
    if "user_id" in session:
        services.call("users", "DELETE", presence(session["user_id"]))


def signed_in_user(token):
    """Return the id of the token's user, whose connection may send more from now on; raises NotSignedIn."""
    if not isinstance(token, str) or not WELL_FORMED_TOKEN.fullmatch(token):  # PyJWT overlooks blanks and line breaks
        raise NotSignedIn(BAD_TOKEN)
    user_id = check_token(token)["user_id"]
    trust(request.sid)
    return user_id


def presence(user_id):
    """Return where the users service counts this connection."""
    return f"/internal/users/{user_id}/connections/{request.sid}"
