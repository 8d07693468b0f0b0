"""Parley's ui service: the page, and nothing else. All its code is the monolith's, only the wiring is new."""

from flask import Flask

from parley import errors, logs
from parley.health import health
from parley.ui import ui


def create_app():
    """Wire the application together."""
    app = Flask("parley", static_folder=None)
    app.config.from_mapping(SERVICE="monolith", VERSION="v1", INSTANCE="monolith")
    app.json.sort_keys = False

    logs.init_app(app)
    errors.init_app(app)

    for blueprint in (health, ui):
        app.register_blueprint(blueprint)
    return app
