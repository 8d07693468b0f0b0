"""Messages: post, list, edit."""

import time

from flask import Blueprint, g, request
from sqlalchemy import select
from sqlalchemy.exc import IntegrityError

from common.auth import token_optional, token_required
from common.database import db, time_of_change, write_transaction
from common.paging import answer_page
from common.parameters import MAX_ID, check_key, json_body
from common.push import push_model
from common.refusals import Forbidden, Invalid, NotFound

from .. import markup, tasks
from ..models.message import DAY, Message, check_source, find_repeat, remember

messages = Blueprint("messages", __name__, url_prefix="/api/messages")


@messages.post("")
@token_required
def create():
    """Post a message; with an Idempotency-Key header, a repeat answers the first one."""
    message, is_new = post(g.user_id, json_body().get("source"), request.headers.get("Idempotency-Key"))
    if not is_new:
        return message.to_dict()
    return message.to_dict(), 201, {"Location": f"/api/messages/{message.id}"}


@messages.get("")
@token_optional
def index():
    """List the messages of the last day by time of change: the newest, or all since a time, page by page."""
    last_day = select(Message).where(Message.updated_at >= int(time.time()) - DAY)
    return answer_page("messages", last_day, Message.updated_at, Message.id)


@messages.get("/<int:message_id>")
@token_optional
def show(message_id):
    """Show one message."""
    return find(message_id).to_dict()


@messages.put("/<int:message_id>")
@token_required
def change(message_id):
    """Edit one's own message."""
    if find(message_id).user_id != g.user_id:
        raise Forbidden("You can edit only your own messages.")
    edit(message_id, json_body().get("source"))
    return "", 204


def post(user_id, source, key=None):
    """Store a message, push it and have its links expanded.

    Returns the message, and whether it is new: a repeated idempotency key returns the first message.
    Raises Invalid and KeyReused.
    """
    key = check_key(key)
    content = make_content(source)
    try:
        message, is_new = insert(user_id, content, key)
    except IntegrityError:
        # The same key at the same time, on a database without SQLite's single write lock: the other one was faster.
        message, is_new = insert(user_id, content, key)
    if is_new:
        announce(message)
    return message, is_new


def edit(message_id, source):
    """Change the text of a message, push it and have its links expanded; raises Invalid."""
    content = make_content(source)
    with write_transaction() as session:
        message = session.get(Message, message_id, with_for_update=True)  # text and HTML of one edit, not of two
        for name, value in {**content, "updated_at": time_of_change(session, Message)}.items():
            setattr(message, name, value)
    announce(message)


def find(message_id):
    """Return a message; raises NotFound."""
    message = db.session.get(Message, message_id) if message_id <= MAX_ID else None
    if message is None:
        raise NotFound("There is no such message.")
    return message


def make_content(source):
    """Return what follows from a text; rendered before any lock is taken. Raises Invalid."""
    try:
        html, links = markup.render(check_source(source))
    except markup.TooComplex as error:
        raise Invalid(str(error)) from error
    return {"source": source, "html": html, "expand_after": int(time.time()) if links else None}


def insert(user_id, content, key):
    """Store a message with its idempotency key; return the message and whether it is new."""
    with write_transaction() as session:
        now = time_of_change(session, Message)
        if key and (message := find_repeat(session, user_id, key, content["source"], now)):
            return message, False
        message = Message(user_id=user_id, created_at=now, updated_at=now, **content)
        session.add(message)
        session.flush()  # gives the message its id
        if key:
            session.add(remember(message, key))
    return message, True


def announce(message):
    """After the commit: push the message, and queue the expansion of its links."""
    push_model(message)
    if message.expand_after is not None:
        tasks.queue_expansion(message.id)
