"""A tiny service that has all that services share, on a database with one table."""

from flask import g
from sqlalchemy.orm import Mapped, mapped_column

from common import auth, config, database, keys, push, revocations, seen
from common.application import make_app
from common.database import db
from common.parameters import json_body, query_ids, query_int


class Thing(db.Model):
    """Something to store."""

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]


def create_app(environ):
    """Wire the application together."""
    settings = config.base(environ) | keys.public_key(environ) | config.database(environ) | config.queue(environ)
    app = make_app(settings, database.explain)
    database.init_app(app)
    push.init_app(app)
    revocations.init_app(app)
    seen.init_app(app)
    auth.init_app(app, is_revoked=revocations.is_revoked, mark_seen=seen.mark_seen)

    @app.get("/things")
    @auth.token_optional
    def index():
        limit, ids = query_int("limit", 1, 500, default=100), query_ids("ids", at_most=3)
        return {"user_id": g.user_id, "limit": limit, "ids": ids}

    @app.post("/things")
    def create():
        return json_body(), 201

    return app
