"""Parley's tokens service: signs people in and out."""

import os

from common import auth, background, config, database, keys, seen
from common.application import make_app

from .api.internal import internal
from .api.tokens import tokens
from .models.revocation import is_revoked, sweep_expired

SWEEP_EXPIRED_EVERY = 60  # seconds


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    settings = config.base(environ) | keys.private_key(environ) | keys.public_key(environ) | config.database(environ)
    app = make_app(settings, database.explain)
    database.init_app(app)
    seen.init_app(app)
    auth.init_app(app, is_revoked=is_revoked, mark_seen=seen.mark_seen)
    background.every(app, SWEEP_EXPIRED_EVERY, sweep_expired)

    for blueprint in (tokens, internal):
        app.register_blueprint(blueprint)
    return app
