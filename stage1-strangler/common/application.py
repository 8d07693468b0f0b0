"""Makes the Flask application of a service, with all that is the same in each."""

from werkzeug.middleware.proxy_fix import ProxyFix

from . import errors, logs, services
from .health import health
from .origins import SameOriginFlask


def make_app(configuration, *stores):
    """Return an application that logs, answers failures and health checks, and can call other services.

    Each of `stores` explains a failure of a store that the service has: error -> sentence or None.
    """
    app = SameOriginFlask("parley", static_folder=None)
    app.config.from_mapping(configuration)
    app.json.sort_keys = False
    logs.init_app(app)
    errors.init_app(app, *stores)
    services.init_app(app)
    app.register_blueprint(health)
    # The client's address is the one that the load balancer names, or the service that calls on somebody's behalf.
    app.wsgi_app = ProxyFix(app.wsgi_app, x_for=1, x_proto=0)
    return app
