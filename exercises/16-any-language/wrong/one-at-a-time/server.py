"""Words: which words were used most in the newest messages. The same service once more, in Python."""

import json
import logging
import os
import re
import uuid
from collections import Counter
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import requests

PATIENCE = 3  # seconds for the application's answer: the load balancer gives our own 4.5
MESSAGES = 100  # the newest ones are looked at
LISTED = 10  # words

port, application = int(os.environ["PORT"]), os.environ["INTERNAL_URL"]
service, version, instance = (os.environ[name] for name in ("SERVICE", "VERSION", "INSTANCE"))

log = logging.getLogger("words")


def healthz(_request_id: str) -> dict:
    return {"status": "ok", "service": service, "version": version, "instance": instance}


def words(request_id: str) -> dict:
    messages = ask(f"/api/messages?limit={MESSAGES}", request_id)["messages"]
    found = (word for message in messages for word in re.findall("[a-z]+", message["source"].lower()))
    counts = Counter(word for word in found if word not in stop_words)
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return {"words": [{"word": word, "count": count} for word, count in ranked[:LISTED]]}


ROUTES = {"/healthz": healthz, "/api/words": words}


def ask(path: str, request_id: str) -> dict:
    """Ask the application as everybody can: through its API. The request's id goes along."""
    answer = requests.get(application + path, headers={"X-Request-ID": request_id}, timeout=PATIENCE)
    answer.raise_for_status()
    return answer.json()


class Handler(BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        request_id = self.headers.get("X-Request-ID") or uuid.uuid4().hex
        path = self.path.partition("?")[0]
        status, body = 404, {"error": "There is nothing at this address.", "request_id": request_id}
        try:
            if path in ROUTES:
                status, body = 200, ROUTES[path](request_id)
        except requests.RequestException as error:
            log.warning("%s %s", request_id, error)
            status = 503
            body = {"error": "No word can be counted: please try again in a moment.", "request_id": request_id}
        data = json.dumps(body).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)
        if path != "/healthz":  # that is several a second
            log.info("%s GET %s %s", request_id, path, status)

    def log_message(self, *_arguments) -> None:
        """Say nothing: the line above has the request's id."""


logging.basicConfig(level=logging.INFO, format=f"%(asctime)s %(levelname)s {instance} %(name)s: %(message)s")
# Before we listen: who answers, can.
stop_words = set(Path(os.environ["STOPWORDS"]).read_text(encoding="utf-8").split())
server = HTTPServer(("127.0.0.1", port), Handler)
server.serve_forever()  # until SIGTERM, which ends a Python program that does not mind it
