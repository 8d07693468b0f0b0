"""A service of forty lines, without a library: what the platform asks of a service is as little as this.

tiny_service.py PORT [crash | sick | slow | vanish | echo | big]
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

BIG = 16 * 1024 * 1024  # bytes: more than the buffers on the way to a client that doesn't read
port, behaviour = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if behaviour == "slow" and self.path != "/healthz":
            time.sleep(1)  # an answer that takes long: what draining has to wait for
        if behaviour == "vanish" and self.path != "/healthz":
            return self.connection.close()
        body = {"echo": str(self.headers).encode(), "big": b"x" * BIG}.get(behaviour, b"ok")
        self.send_response(503 if behaviour == "sick" else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_POST(self):
        self.rfile.read(int(self.headers["Content-Length"]))
        self.do_GET()

    def log_message(self, *arguments):
        """Say nothing."""


class Server(ThreadingHTTPServer):
    def handle_error(self, request, client_address):
        """Print no traceback when a client has closed its connection: a health check may do that at any time."""
        if not isinstance(sys.exception(), ConnectionError):
            super().handle_error(request, client_address)


if behaviour == "crash":
    sys.exit("this service crashes at its start")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
Server(("127.0.0.1", port), Handler).serve_forever()
