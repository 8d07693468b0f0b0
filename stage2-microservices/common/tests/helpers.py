"""What the fixtures hand out: a Redis of our own, tokens, and a stand-in for the other services."""

import base64
import socket
import subprocess
import threading
import time

import redis
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from common.auth import issue_token
from common.services import BROKE_OFF, TOO_LATE

PRIVATE_KEY = Ed25519PrivateKey.generate()  # a new one for each run of the tests


def encode(key):
    """Write a key as a setting has it: base64url without padding."""
    return base64.urlsafe_b64encode(key).decode().rstrip("=")


# What a service that issues tokens is configured with, and what one that checks them is.
ISSUES = {"JWT_PRIVATE_KEY": encode(PRIVATE_KEY.private_bytes_raw())}
CHECKS = {"JWT_PUBLIC_KEY": encode(PRIVATE_KEY.public_key().public_bytes_raw())}


def finish(task):
    """Wait until what `background.soon` has started is done."""
    for thread in threading.enumerate():
        if thread.name == task.__name__:
            thread.join(timeout=10)


class Redis:
    """A redis-server of our own, on a free port of the loopback interface."""

    def __init__(self, folder):
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.folder = folder
        self.url = f"redis://127.0.0.1:{self.port}/0"
        self.process = None

    def start(self):
        """Start it, and wait until it answers."""
        command = ["redis-server", "--bind", "127.0.0.1", "--port", str(self.port), "--save", "", "--dir", self.folder]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 5
        with redis.Redis(port=self.port, retry=None) as client:
            while True:
                try:
                    return client.ping()
                except redis.ConnectionError:
                    if time.monotonic() > deadline:
                        raise
                    time.sleep(0.01)

    def stop(self):
        """Kill it."""
        self.process.kill()
        self.process.wait(timeout=5)


class Auth:
    """Tokens, made without a password."""

    def __init__(self, app):
        self.app = app

    def token(self, user_id, issued_at=None):
        """Return a token of a user, as the tokens service would sign it."""
        return issue_token(user_id, issued_at or time.time(), PRIVATE_KEY)

    def headers(self, user_id, **kwargs):
        """Return the header that signs a request."""
        return {"Authorization": f"Bearer {self.token(user_id, **kwargs)}"}


class Others:
    """All other services: remember what they were asked, know Ann and Bob, and answer the rest as they were told."""

    def __init__(self):
        self.calls = []  # (method, path, options of the call)
        self.away = set()  # the names of those that do not answer in time
        self.broken = set()  # and of those that break off the connection
        self.answers = {}  # "METHOD /path": Answer
        self.known = {1, 2}
        self.revocations = []

    def send(self, method, path, **options):
        """Take the place of common.services.Client.send."""
        self.calls.append((method, path, options))
        service = path.split("/")[2]
        if service in self.away | self.broken:
            return None, TOO_LATE if service in self.away else BROKE_OFF
        answer = self.answers.get(f"{method} {path}") or self.usual_answer(path, options)
        return answer, answer.status_code

    def usual_answer(self, path, options):
        """Return what they answer unless they were told otherwise."""
        if path == "/internal/users/seen":
            return Answer(200, {"known": sorted(self.known & set(options["json"]["ids"]))})
        if path == "/internal/tokens/revocations" and "json" not in options:
            return Answer(200, {"revocations": self.revocations})
        return Answer(204)

    def called(self, method, path):
        """Return the options of all calls of that kind."""
        return [options for *call, options in self.calls if call == [method, path]]


class Answer:
    """What the stand-in answers: the part of requests.Response that common.services reads."""

    def __init__(self, status_code, body=None, headers=()):
        self.status_code = status_code
        self.body = body
        self.headers = dict(headers)

    def json(self):
        return self.body
