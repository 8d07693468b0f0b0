"""The gunicorn entry point, common.server:serve(): the service's application, and its work in the background."""

from parley import create_app

from . import background


def serve():
    """Return the application, at work."""
    app = create_app()
    background.start(app)
    return app
