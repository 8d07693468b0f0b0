"""Link expansion: title and description of the pages that a message links to.

That it is still to do stands in the message's row (expand_after), so what a killed process had begun is found and done
by another one.
"""

import http.client
import ipaddress
import logging
import re
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor, wait
from functools import cache
from urllib.parse import quote, urljoin, urlsplit, urlunsplit

import certifi
from flask import current_app
from lxml.etree import LxmlError
from lxml.html import HTMLParser, document_fromstring
from sqlalchemy import or_, select, update

from common.database import db, time_of_change, write_transaction
from common.push import push_model

from . import markup
from .models.message import Message

log = logging.getLogger(__name__)

MAX_LINKS = 3  # per message
FETCH_SECONDS = 5  # for all links of a message together, they are fetched side by side
MAX_BYTES = 512 * 1024
MAX_REDIRECTS = 3
MAX_TITLE = 200  # characters
MAX_DESCRIPTION = 400
MAX_LOOKED_AT = 10  # times as many characters are looked at: half a megabyte would hold up a process for 0.1 s
MAX_PROLOGUE = 1024  # bytes in which a page says its charset, according to HTML
META_CHARSET = re.compile(rb"<meta[^<>]+charset", re.IGNORECASE)
HEADERS = {"User-Agent": "Parley (link preview)", "Accept": "text/html", "Accept-Encoding": "identity"}
URL_CHARACTERS = "%/:?@!$&'()*+,;=~"  # that a path and its query have unquoted
# A worker has this long before another one may do its work again: 5 s to fetch, and 3 s to spare. What a killed worker
# had begun is done at most 8 s + the sweep's 1 s + the fetch's 5 s later: within 15 s.
LEASE = 8
GIVE_UP_AFTER = 60 * 60

IPV6_UNICAST = ipaddress.ip_network("2000::/3")  # all that IPv6 has given out
IPV4_PROTOCOLS = ipaddress.ip_network("192.0.0.0/24")  # among them, a cloud's metadata


def find_due():
    """Return the ids of messages whose links are still to be expanded, and that nobody is working on."""
    now = int(time.time())
    query = select(Message.id).where(is_due(now), Message.updated_at > now - GIVE_UP_AFTER)
    return db.session.scalars(query.order_by(Message.expand_after).limit(100)).all()


def expand(message_id):
    """Expand the links of a message, if nobody else does."""
    lease = claim(message_id)
    if lease is None:
        return
    source = db.session.scalar(select(Message.source).where(Message.id == message_id))
    db.session.commit()  # gives the connection back while we wait for other people's servers
    started = time.monotonic()
    html, count = render_with_quotes(source)
    if finish(message_id, lease, source, html):
        log.info("Expanded %d links of message %d in %.1f s", count, message_id, time.monotonic() - started)


def render_with_quotes(source):
    """Return the HTML of a text with quotes of the pages it links to, and their number, or (None, 0)."""
    try:
        html, urls = markup.render(source)
        quotes = fetch_quotes(urls[:MAX_LINKS])
        return (markup.add_quotes(html, quotes), len(quotes)) if quotes else (None, 0)
    except markup.TooComplex as error:  # because of the quotes, or stored by a version without these limits
        log.info("Not expanded: %s", error)
        return None, 0


def is_due(now):
    """Return the condition that nobody works on a message; no lease lasts so long, but the clock may be set back."""
    return or_(Message.expand_after <= now, Message.expand_after > now + 2 * LEASE)


def claim(message_id):
    """Take the message for LEASE seconds and return when these end, or None if it is not due (any more)."""
    now = int(time.time())
    with write_transaction() as session:
        claimed = session.execute(
            update(Message).where(Message.id == message_id, is_due(now)).values(expand_after=now + LEASE)
        )
        return now + LEASE if claimed.rowcount else None


def finish(message_id, lease, source, html):
    """Store the HTML, if there is a new one, and push it; nothing if the message was edited or taken over meanwhile."""
    with write_transaction() as session:
        changes = {"html": html, "updated_at": time_of_change(session, Message)} if html else {}
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
    in_time, _too_late = wait(futures, timeout=FETCH_SECONDS)  # now: aborted, a page may look as if it had ended
    for fetch, future in zip(fetches, futures, strict=True):
        future.cancel()  # one that has no thread yet
        fetch.abort()  # one that has no socket yet will find its time over
    return [future.result() for future in futures if future in in_time and future.result()]


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
        self.connections = []
        self.sockets = []  # the same again, so that one thread can end what another one waits for

    def run(self):
        """Return (url, title, description), or None when there is nothing to show."""
        try:
            title, description = read_head(*self.get_following_redirects())
        except (Refused, OSError, http.client.HTTPException, LxmlError, ValueError) as error:
            log.info("Not expanded: %s: %s", self.url, error)
            return None
        finally:
            self.abort()
            for connection in self.connections:
                connection.close()
        return (self.url, title, description) if title else None

    def abort(self):
        """Close what is open, also under a read that waits."""
        for watched in self.sockets:
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
        self.connections.append(connection)
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
        """Return a socket connected to one of the addresses of a host, if all of them are public.

        The name is looked up once, and the connection made to what was looked at: the next answer could be another.
        """
        self.remaining()  # before the look-up: nobody waits any more for a fetch that was long in the queue
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
        for *_, address in found:
            self.check_address(ipaddress.ip_address(address[0]))
        for family, *_, address in found:
            try:
                return self.open_socket(family, address)
            except OSError as error:
                log.debug("No connection to %s: %s", address, error)
        raise Refused("none of its addresses answers")

    def check_address(self, address):
        """Raise Refused unless it is public, or in one of the networks that the configuration allows."""
        address = getattr(address, "ipv4_mapped", None) or address
        if not is_public(address) and not any(address in network for network in self.allowed_networks):
            raise Refused(f"{address} is not a public address")

    def open_socket(self, family, address):
        """Return a connected socket; what waits on it is woken by abort()."""
        opened = socket.socket(family, socket.SOCK_STREAM)
        try:
            self.sockets.append(opened.dup())
            opened.settimeout(self.remaining())
            opened.connect(address)
        except BaseException:
            opened.close()
            raise
        return opened

    def remaining(self):
        """Return the seconds that are left; raises Refused when the time is over."""
        seconds = self.deadline - time.monotonic()
        if seconds <= 0:
            raise Refused("too slow")
        return seconds


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


def is_public(address):
    """Return whether an address belongs to the public Internet, and to one machine there."""
    if address.version == 6:
        # Also refused: 2002::/16 and 64:ff9b::/96, which carry an IPv4 address that a gateway would take out.
        return address in IPV6_UNICAST and address.is_global and address.sixtofour is None
    return address.is_global and not address.is_multicast and address not in IPV4_PROTOCOLS


def read_head(page, charset):
    """Return title and description of an HTML page, both plain text, empty where there is none."""
    document = parse(page, charset)
    metas = {}
    for meta in document.iter("meta"):
        name = meta.get("property") or meta.get("name") or ""
        metas.setdefault(name.lower(), meta.get("content"))
    title = plain(document.findtext(".//title"), MAX_TITLE) or plain(metas.get("og:title"), MAX_TITLE)
    description = metas.get("description") or metas.get("og:description")
    return title, plain(description, MAX_DESCRIPTION)


def parse(page, charset):
    """Return the tree of a page; its charset is what its server said, or what it says itself, or UTF-8.

    libxml2 takes milliseconds for any 512 KB. Python's own parser needs half an hour for so many "<a ", and parsers
    that follow the rules of HTML 5 to the letter need seconds for elements nested without an end.
    """
    if not charset and not META_CHARSET.search(page[:MAX_PROLOGUE]):
        charset = "utf-8"
    try:
        return document_fromstring(page, parser=HTMLParser(encoding=charset))
    except LookupError:
        return document_fromstring(page, parser=HTMLParser(encoding="utf-8"))


def plain(text, most):
    """Return text on one line, without invisible characters, cut to a length."""
    begin = (text or "")[: MAX_LOOKED_AT * most]
    visible = "".join(character for character in begin if character.isprintable() or character.isspace())
    line = " ".join(visible.split())
    return line if len(line) <= most else line[: most - 1] + "…"
