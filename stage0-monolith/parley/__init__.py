"""Parley, a chat: the monolith."""

import os

from werkzeug.middleware.proxy_fix import ProxyFix

from . import attempts, auth, config, database, errors, keys, logs, presence, push, socket_server, tasks
from . import events as events  # its handlers register themselves
from .api.messages import messages
from .api.tokens import tokens
from .api.users import users
from .health import health
from .models.revocation import is_revoked
from .models.user import mark_seen
from .origins import SameOriginFlask
from .ui import ui


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = SameOriginFlask(__name__, static_folder=None)
    app.config.from_mapping(config.read(environ) | keys.private_key(environ) | keys.public_key(environ))
    app.json.sort_keys = False

    logs.init_app(app)
    errors.init_app(app, database.explain)
    database.init_app(app)
    push.init_app(app)
    socket_server.init_app(app)
    presence.init_app(app)
    attempts.init_app(app)
    tasks.init_app(app)
    auth.init_app(app, is_revoked=is_revoked, mark_seen=mark_seen)

    for blueprint in (users, tokens, messages, health, ui):
        app.register_blueprint(blueprint)
    # The client's address is the one that the load balancer names; it deletes what a client claims itself.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=0)
    return app
