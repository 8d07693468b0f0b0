"""Parley, a chat: the monolith, without what has left it."""

import os

from common import auth, background, database, push, revocations
from common.application import make_app

from . import attempts, config, presence, socket_server, tasks
from . import events as events  # its handlers register themselves
from .api.internal_messages import internal as internal_messages
from .api.internal_users import internal as internal_users
from .api.messages import messages
from .api.users import users
from .models.sign_out import deliver_sign_outs
from .models.user import mark_seen

DELIVER_SIGN_OUTS_EVERY = 1  # second


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.read(environ), database.explain)
    database.init_app(app)
    push.init_app(app)
    socket_server.init_app(app)
    presence.init_app(app)
    attempts.init_app(app)
    tasks.init_app(app)
    revocations.init_app(app)
    auth.init_app(app, is_revoked=revocations.is_revoked, mark_seen=mark_seen)
    background.every(app, DELIVER_SIGN_OUTS_EVERY, deliver_sign_outs)

    for blueprint in (users, messages):
        app.register_blueprint(blueprint)
    # Both are called "internal": each is one of the service to be.
    app.register_blueprint(internal_users, name="internal_users")
    app.register_blueprint(internal_messages, name="internal_messages")
    return app
