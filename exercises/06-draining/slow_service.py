"""A service with which a start and a stop can be watched: it does what it does slowly, and writes it down.

    slow_service.py PORT FOLDER [stubborn] [mute] [helper]

GET /healthz    503 until there is a file FOLDER/ready, then 200
any other path  GET or POST, answered with 200 after ?seconds=

FOLDER/events   what happened, a line each: pid N, helper N, checked, checked 503, checked 200,
                begun, answered, SIGTERM, closed

At SIGTERM it drops what it is doing, takes a second to close, and ends. One that is stubborn takes no notice.
One that is mute never answers its first health check. One with a helper starts a second process, and does not end it.
"""

import os
import signal
import subprocess
import sys
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

CLOSING = 1  # seconds that it takes to close: who ends it before has not waited for its end

HANG = 60  # seconds: longer than any check takes

port, folder, is_stubborn = int(sys.argv[1]), Path(sys.argv[2]), "stubborn" in sys.argv
is_closing, is_mute = threading.Event(), threading.Event()


def note(event: str) -> None:
    with open(folder / "events", "a", encoding="utf-8") as events:
        events.write(f"{event}\n")


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        address = urlsplit(self.path)
        if address.path == "/healthz" and is_mute.is_set():
            is_mute.clear()
            note("checked")
            time.sleep(HANG)
            return
        if address.path == "/healthz":
            status = 200 if (folder / "ready").exists() else 503
            note(f"checked {status}")
        else:
            status = 200
            note("begun")
            time.sleep(float(parse_qs(address.query).get("seconds", ["0"])[0]))  # the work that a request takes
            if is_closing.is_set():
                return  # the connection is closed without an answer
            note("answered")
        self.send_response(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    do_POST = do_GET

    def log_message(self, *arguments):
        """Say nothing: FOLDER/events says it."""


def end(*signal_and_frame) -> None:
    note("SIGTERM")
    if is_stubborn:
        return
    is_closing.set()
    time.sleep(CLOSING)  # the work of closing
    note("closed")
    os._exit(0)


folder.mkdir(exist_ok=True)
note(f"pid {os.getpid()}")
if "mute" in sys.argv:
    is_mute.set()
if "helper" in sys.argv:
    note(f"helper {subprocess.Popen(['sleep', str(HANG)]).pid}")
signal.signal(signal.SIGTERM, end)
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
