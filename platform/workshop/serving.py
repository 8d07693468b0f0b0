"""Serves a folder to the browsers of this machine, for the pages that commands show."""

import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from workshop.errors import WorkshopError
from workshop.ports import BIND, HOST, LOOPBACK


@contextmanager
def served(folder: Path, port: int = 0) -> Iterator[tuple[str, threading.Thread]]:
    """Serve the folder while the context lasts; yield its address and the thread that serves it.

    port: 0 takes a free one. Raises WorkshopError when the port is taken.
    """
    try:
        server = ThreadingHTTPServer((BIND, port), partial(Handler, directory=str(folder)))
    except OSError:
        raise WorkshopError(f"Port {port} cannot be used: choose another one with --port.") from None
    with server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        try:
            yield f"http://{HOST}:{server.server_port}/", thread
        finally:
            server.shutdown()


class Handler(SimpleHTTPRequestHandler):
    def send_head(self):
        """Refuse a request whose Host header does not name loopback.

        With DNS rebinding, a web page reaches this server by a name of its own and could read the speaker's notes.
        """
        host = self.headers.get("Host", "").lower()
        if re.sub(r":\d+$", "", host) in LOOPBACK:
            return super().send_head()
        self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "Unknown host name", f"Open http://{HOST} with the same port.")
        return None

    def log_message(self, *_) -> None:
        pass
