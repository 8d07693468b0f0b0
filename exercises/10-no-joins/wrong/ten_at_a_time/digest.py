"""The digest: the newest messages with the names of their authors, composed of what two services answer.

In the monolith this would be a join. Here no database has both tables, and no service opens another's.
"""

import logging
import os

from flask import Blueprint

from common import config, services
from common.application import make_app
from common.parameters import query_int
from common.refusals import Declined, Unavailable

log = logging.getLogger(__name__)

MOST = 100  # messages, so 100 authors at most; users takes up to 500 ids at once

digest = Blueprint("digest", __name__, url_prefix="/api/digest")


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.base(environ))
    app.register_blueprint(digest)
    return app


@digest.get("")
def index():
    """Show the newest messages, oldest first, each with the nickname of its author."""
    messages = find_messages()
    nicknames = find_nicknames({message["user_id"] for message in messages})
    return {"messages": [compose(message, nicknames) for message in messages]}


def find_messages():
    """Return the newest messages, as many as the query's `limit` says; raises Unavailable, then there is no digest."""
    limit = query_int("limit", 1, MOST, default=20)
    return services.call("messages", "GET", "/api/messages", params={"limit": limit}).json()["messages"]


def find_nicknames(user_ids):
    """Return the nicknames of these users, {id: nickname}, asked for in one call; who is not found is not in it."""
    if not user_ids:
        return {}
    ordered, users = sorted(user_ids), []
    try:
        for first in range(0, len(ordered), 10):
            ids = ",".join(map(str, ordered[first : first + 10]))
            users += services.call("users", "GET", "/api/users", params={"ids": ids}).json()["users"]
    except (Declined, Unavailable) as error:
        log.warning("A digest without nicknames: %s", error)
        return {}
    return {user["id"]: user["nickname"] for user in users}


def compose(message, nicknames):
    """Return an entry of the digest; its author has no nickname when nobody could say it."""
    user_id = message["user_id"]
    author = {"id": user_id, "nickname": nicknames.get(user_id)}
    return {"id": message["id"], "created_at": message["created_at"], "html": message["html"], "author": author}
