"""The Celery entry point: celery --app parley.worker worker (or beat)."""

from . import create_app

celery = create_app().extensions["celery"]
