"""Parley's ui service: the page, and nothing else. All its code is the monolith's, only the wiring is new."""

import os

from flask import Flask

from parley import errors
from parley.health import health
from parley.ui import ui


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = Flask("parley", static_folder=None)
    app.config.from_mapping({name: environ[name] for name in ("SERVICE", "VERSION", "INSTANCE")})
    app.json.sort_keys = False

    errors.init_app(app)

    for blueprint in (health, ui):
        app.register_blueprint(blueprint)
    return app
