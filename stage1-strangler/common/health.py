"""The health check: this process can serve."""

from flask import Blueprint, current_app

health = Blueprint("health", __name__)


@health.get("/healthz")
def healthz():
    """Say who answers. No store is asked: one that is down must not take every instance out of rotation."""
    config = current_app.config
    return {
        "status": "ok",
        "service": config["SERVICE"],
        "version": config["VERSION"],
        "instance": config["INSTANCE"],
    }
