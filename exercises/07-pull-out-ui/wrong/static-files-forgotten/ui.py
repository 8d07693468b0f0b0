"""Parley's ui service: the page, and nothing else. All its code is the monolith's, only the wiring is new."""

import os

from flask import Flask, render_template

from parley import errors, logs
from parley.health import health


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = Flask("parley", static_folder=None, template_folder="ui/templates")
    app.config.from_mapping({name: environ[name] for name in ("SERVICE", "VERSION", "INSTANCE")})
    app.json.sort_keys = False

    logs.init_app(app)
    errors.init_app(app)

    app.register_blueprint(health)

    @app.get("/")
    def index():
        return render_template("index.html")

    return app
