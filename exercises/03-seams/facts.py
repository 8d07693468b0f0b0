"""Prints, as JSON, what the monolith says of itself. Run in the folder and the environment of one of its instances."""

import json
from pathlib import Path

from sqlalchemy import inspect

from parley import create_app
from parley.database import db
from parley.socket_server import socketio

WIRING = {"__init__.py", "api/__init__.py", "models/__init__.py"}

app = create_app()
with app.app_context():
    stored = inspect(db.engine).get_table_names()
modules = {str(file.relative_to("parley")) for file in Path("parley").rglob("*.py")}
facts = {
    "tables": sorted(db.metadata.tables),
    "stored": stored,
    "modules": sorted(modules - WIRING),
    # /healthz is asked of each instance by its sidecar, and needs no route.
    "paths": [*sorted({rule.rule for rule in app.url_map.iter_rules()} - {"/healthz"}), "/socket.io/"],
    "events": sorted(socketio.server.handlers["/"]),
}
print(json.dumps(facts))
