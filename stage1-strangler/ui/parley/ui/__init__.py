"""The page: one HTML file and its ES modules, served under a strict Content-Security-Policy."""

from flask import Blueprint, render_template

# Everything comes from this origin, nothing is inline: a script that slips into a message is not run.
CONTENT_SECURITY_POLICY = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' data:",
        "font-src 'self'",
        "connect-src 'self'",  # 'self' includes ws: and wss: to the same host and port
        "base-uri 'none'",
        "form-action 'self'",
        "frame-ancestors 'none'",
    )
)

ui = Blueprint("ui", __name__, template_folder="templates", static_folder="static", static_url_path="/static")


@ui.get("/")
def index():
    """Answer the page."""
    return render_template("index.html")


@ui.get("/api/stats")
def no_stats():
    """Answer for an optional service: the load balancer sends its path here only while it is not part of the stage."""
    return "", 204


@ui.after_request
def add_security_headers(response):
    """Tell the browser what this page may load, and nothing else."""
    response.headers["Content-Security-Policy"] = CONTENT_SECURITY_POLICY
    response.headers["X-Content-Type-Options"] = "nosniff"
    response.headers["Referrer-Policy"] = "same-origin"
    return response
