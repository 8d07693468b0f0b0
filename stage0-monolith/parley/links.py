"""Link expansion: title and description of the pages that a message links to.

That it is still to do stands in the message's row (expand_after), so what a killed process had begun is found and done
by another one.
"""

import http.client
import ipaddress
import logging
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import certifi
from bs4 import BeautifulSoup, ParserRejectedMarkup, SoupStrainer
from flask import current_app
from sqlalchemy import select, update

from . import markup
from .database import db, write_transaction
from .models.message import Message
from .push import push_model

log = logging.getLogger(__name__)

MAX_LINKS = 3  # per message
FETCH_SECONDS = 5  # for all links of a message together, they are fetched side by side
MAX_BYTES = 512 * 1024
MAX_REDIRECTS = 3
MAX_TITLE = 200  # characters
MAX_DESCRIPTION = 400
HEADERS = {"User-Agent": "Parley (link preview)", "Accept": "text/html", "Accept-Encoding": "identity"}
URL_CHARACTERS = "%/:?@!$&'()*+,;=~"  # that a path and its query have unquoted
# A worker has this long before another one may do its work again: 5 s to fetch, and 3 s to spare. What a killed worker
# had begun is done at most 8 s + the sweep's 1 s + the fetch's 5 s later: within 15 s.
LEASE = 8
GIVE_UP_AFTER = 60 * 60


def find_due():
    """Return the ids of messages whose links are still to be expanded, and that nobody is working on."""
    now = int(time.time())
    query = select(Message.id).where(Message.expand_after <= now, Message.updated_at > now - GIVE_UP_AFTER)
    return db.session.scalars(query.order_by(Message.expand_after).limit(100)).all()


def expand(message_id):
    """Expand the links of a message, if nobody else does."""
    lease = claim(message_id)
    if lease is None:
        return
    source = db.session.scalar(select(Message.source).where(Message.id == message_id))
    db.session.commit()  # gives the connection back while we wait for other people's servers
    started = time.monotonic()
    _html, urls = markup.render(source)
    quotes = fetch_quotes(urls[:MAX_LINKS])
    html, _urls = markup.render(source, quotes)
    if finish(message_id, lease, source, html if quotes else None):
        log.info("Expanded %d links of message %d in %.1f s", len(quotes), message_id, time.monotonic() - started)


def claim(message_id):
    """Take the message for LEASE seconds and return when these end, or None if it is not due (any more)."""
    now = int(time.time())
    with write_transaction() as session:
        claimed = session.execute(
            update(Message)
            .where(Message.id == message_id, Message.expand_after <= now)
            .values(expand_after=now + LEASE)
        )
        return now + LEASE if claimed.rowcount else None


def finish(message_id, lease, source, html):
    """Store the HTML, if there is a new one, and push it; nothing if the message was edited or taken over meanwhile."""
    changes = {"html": html, "updated_at": int(time.time())} if html else {}
    with write_transaction() as session:
        finished = session.execute(
            update(Message)
            .where(Message.id == message_id, Message.expand_after == lease, Message.source == source)
            .values(expand_after=None, **changes)
        )
        message = session.get(Message, message_id)
    if finished.rowcount and changes:
        push_model(message)
    return finished.rowcount == 1


def fetch_quotes(urls):
    """Return (url, title, description) of those pages that have a title and answer in time."""
    networks = allowed_networks(current_app.config["LINK_ALLOWED_NETWORKS"])
    fetches = [Fetch(url, networks) for url in urls]
    futures = [threads().submit(fetch.run) for fetch in fetches]
    wait(futures, timeout=FETCH_SECONDS)
    for fetch in fetches:
        fetch.abort()
    return [future.result() for future in futures if future.done() and future.result()]


@cache
def threads():
    """The threads that fetch: a name server that does not answer can hold up one of them, but no task."""
    return ThreadPoolExecutor(max_workers=16, thread_name_prefix="fetch")


def allowed_networks(setting):
    """Return the networks of a comma-separated list."""
    return [ipaddress.ip_network(network.strip()) for network in setting.split(",") if network.strip()]


class Refused(Exception):
    """The page is not one that we expand; the message says why."""


class Fetch:
    """One guarded fetch of a page that a stranger has chosen."""

    def __init__(self, url, allowed_networks):
        self.url = url
        self.allowed_networks = allowed_networks
        self.deadline = time.monotonic() + FETCH_SECONDS
        self.sockets = []

    def run(self):
        """Return (url, title, description), or None when there is nothing to show."""
        try:
            title, description = read_head(*self.get_following_redirects())
        except (Refused, OSError, http.client.HTTPException, ParserRejectedMarkup, ValueError) as error:
            log.info("Not expanded: %s: %s", self.url, error)
            return None
        finally:
            self.abort()
        return (self.url, title, description) if title else None

    def abort(self):
        """Close what is open, also under a read that waits."""
        while self.sockets:
            watched = self.sockets.pop()
            try:
                watched.shutdown(socket.SHUT_RDWR)
            except OSError as error:
                log.debug("Already closed: %s", error)
            watched.close()

    def get_following_redirects(self):
        """Return the page's bytes and its charset."""
        url = self.url
        for _hop in range(1 + MAX_REDIRECTS):
            response = self.get(url)
            if response.status not in (301, 302, 303, 307, 308):
                return self.read(response)
            url = urljoin(url, response.headers.get("Location", ""))
        raise Refused("too many redirects")

    def get(self, url):
        """Ask for a page; each hop is guarded like the first."""
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname:
            raise Refused("not a web address")
        connection_class = GuardedHTTPS if parts.scheme == "https" else GuardedHTTP
        connection = connection_class(self, parts.hostname, parts.port or connection_class.default_port)
        target = quote(urlunsplit(("", "", parts.path or "/", parts.query, "")), safe=URL_CHARACTERS)
        connection.request("GET", target, headers=HEADERS)
        return connection.getresponse()

    def read(self, response):
        """Return the beginning of an HTML page, and its charset."""
        if response.status != 200 or response.headers.get_content_type() != "text/html":
            raise Refused(f"status {response.status}, {response.headers.get_content_type()}")
        if response.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise Refused("compressed, which we did not ask for")
        return response.read(MAX_BYTES), response.headers.get_content_charset()

    def connect(self, host, port):
        """Return a connected socket, after a look at whom it is connected to: names may resolve to anything."""
        connected = socket.create_connection((host, port), timeout=max(0.1, self.deadline - time.monotonic()))
        self.sockets.append(connected.dup())
        address = ipaddress.ip_address(connected.getpeername()[0])
        address = getattr(address, "ipv4_mapped", None) or address
        if not address.is_global and not any(address in network for network in self.allowed_networks):
            connected.close()
            raise Refused(f"{address} is not a public address")
        return connected


class GuardedHTTP(http.client.HTTPConnection):
    """An HTTP connection that a Fetch opens."""

    def __init__(self, fetch, host, port):
        super().__init__(host, port)
        self.fetch = fetch

    def connect(self):
        self.sock = self.fetch.connect(self.host, self.port)


class GuardedHTTPS(GuardedHTTP):
    """The same with TLS, which begins after the look at the address."""

    default_port = http.client.HTTPS_PORT

    def connect(self):
        super().connect()
        self.sock = tls_context().wrap_socket(self.sock, server_hostname=self.host)


@cache
def tls_context():
    """Check certificates against the usual authorities."""
    return ssl.create_default_context(cafile=certifi.where())


def read_head(page, charset):
    """Return title and description of an HTML page, both plain text, empty where there is none."""
    soup = BeautifulSoup(page, "html.parser", from_encoding=charset, parse_only=SoupStrainer(["title", "meta"]))
    metas = {meta.get("property") or meta.get("name"): meta.get("content") for meta in soup.find_all("meta")}
    title = soup.title.get_text() if soup.title else metas.get("og:title")
    description = metas.get("description") or metas.get("og:description")
    return plain(title, MAX_TITLE), plain(description, MAX_DESCRIPTION)


def plain(text, most):
    """Return text on one line, without invisible characters, cut to a length."""
    visible = "".join(character for character in text or "" if character.isprintable() or character.isspace())
    line = " ".join(visible.split())
    return line if len(line) <= most else line[: most - 1] + "…"
