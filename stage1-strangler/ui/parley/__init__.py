"""Parley's ui service: the page, and nothing else."""

import os

from common import config
from common.application import make_app

from .ui import ui


def create_app(environ=os.environ):
    """Wire the application together; all configuration comes from the environment."""
    app = make_app(config.base(environ))
    app.register_blueprint(ui)
    return app
