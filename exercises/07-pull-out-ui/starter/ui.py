"""Parley's ui service: the page, and nothing else. All its code is the monolith's, only the wiring is new."""

import os

from flask import Flask


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = Flask("parley", static_folder=None)
    app.config.from_mapping({name: environ[name] for name in ("SERVICE", "VERSION", "INSTANCE")})
    app.json.sort_keys = False

    raise NotImplementedError("TODO 1: what of all that the monolith's create_app wires does a page need?")
    return app
