"""Parley's messages service: what people have written, and what they have linked to."""

import os

from common import auth, background, database, push, revocations, seen
from common.application import make_app

from . import config, tasks
from .api.internal import internal
from .api.messages import messages


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.read(environ), database.explain)
    database.init_app(app)
    push.init_app(app)
    revocations.init_app(app)
    seen.init_app(app)
    auth.init_app(app, is_revoked=revocations.is_revoked, mark_seen=seen.mark_seen)
    background.every(app, tasks.SWEEP_LINKS_EVERY, tasks.sweep_links)
    background.every(app, tasks.SWEEP_EXPIRED_EVERY, tasks.sweep_expired)

    for blueprint in (messages, internal):
        app.register_blueprint(blueprint)
    return app
