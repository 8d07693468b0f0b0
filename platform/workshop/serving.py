"""Serves the pages that commands show to the browsers of this machine."""

import re
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from http import HTTPStatus
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import click

from workshop import ports
from workshop.errors import WorkshopError
from workshop.ports import BIND, HOST, LOOPBACK


def port_option(page: str) -> Callable:
    """Return the option --port of a command that serves a page."""
    default = ports.DEFAULTS[page]
    text = f"Where to serve, on loopback; default {default}, if it is free; 0 takes a free one."
    return click.option("--port", type=click.IntRange(0, 65535), help=text)


def serve_until_interrupted(page: str, asked: int | None, write: Callable[[Path], None], announcement: str) -> None:
    """Serve what `write` puts into a folder until Ctrl-C. {url} in the announcement stands for the address.

    asked: the port; see ports.choose. Raises WorkshopError when it is taken.
    """
    try:
        with served(write, ports.choose(page, asked, click.echo)) as (url, thread):
            click.echo(announcement.format(url=url))
            thread.join()
    except KeyboardInterrupt:
        click.echo()


@contextmanager
def served(write: Callable[[Path], None], port: int = 0) -> Iterator[tuple[str, threading.Thread]]:
    """Serve what `write` puts into a folder while the context lasts; yield its address and the thread that serves it.

    port: 0 takes a free one. Raises WorkshopError when the port is taken.
    """
    with tempfile.TemporaryDirectory(prefix="workshop-page-") as folder:
        write(Path(folder))
        try:
            server = ThreadingHTTPServer((BIND, port), partial(Handler, directory=folder))
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
