"""A service of thirty lines, without a library: what the platform asks of a service is as little as this.

tiny_service.py PORT [crash | sick | slow]
"""

import os
import signal
import sys
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

port, behaviour = int(sys.argv[1]), sys.argv[2] if len(sys.argv) > 2 else ""


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        if behaviour == "slow" and self.path != "/healthz":
            time.sleep(1)  # an answer that takes long: what draining has to wait for
        self.send_response(503 if behaviour == "sick" else 200)
        self.send_header("Content-Length", "2")
        self.end_headers()
        self.wfile.write(b"ok")

    def log_message(self, *arguments):
        """Say nothing."""


if behaviour == "crash":
    sys.exit("this service crashes at its start")
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
ThreadingHTTPServer(("127.0.0.1", port), Handler).serve_forever()
