"""Parley's users service: who there is, who is online, and whose password is right."""

import os

from common import auth, background, config, database, keys, push, redis_client, revocations
from common.application import make_app

from . import attempts, presence
from .api.internal import internal
from .api.users import users
from .models.sign_out import deliver_sign_outs
from .models.user import mark_seen

SWEEP_PRESENCE_EVERY = 1  # second
DELIVER_SIGN_OUTS_EVERY = 1  # second


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    settings = config.base(environ) | keys.public_key(environ) | config.database(environ) | config.queue(environ)
    app = make_app(settings, database.explain, redis_client.explain)
    database.init_app(app)
    push.init_app(app)
    presence.init_app(app)
    attempts.init_app(app)
    revocations.init_app(app)
    auth.init_app(app, is_revoked=revocations.is_revoked, mark_seen=mark_seen)
    background.every(app, SWEEP_PRESENCE_EVERY, presence.sweep)
    background.every(app, DELIVER_SIGN_OUTS_EVERY, deliver_sign_outs)

    for blueprint in (users, internal):
        app.register_blueprint(blueprint)
    return app
