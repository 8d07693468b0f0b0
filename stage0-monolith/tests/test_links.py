import gzip
import ipaddress
import re
import socket
import threading
import time
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from lxml.etree import LxmlError

from parley import links
from parley.database import db, write_transaction
from parley.models.message import Message

HTML = b"""<html><head>
<title>A &lt;b&gt;title&lt;/b&gt; &amp; more</title>
<meta name="description" content="It&#39;s &lt;i&gt;">
</head>"""


class Site(ThreadingHTTPServer):
    """A web site on loopback; pages is {path: (status, headers, body)}, where body may be a function that writes."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Page)
        self.url = f"http://127.0.0.1:{self.server_port}"
        self.pages = {"/": (200, {"Content-Type": "text/html"}, HTML)}
        self.hits = []

    def handle_error(self, request, client_address):
        """A client that hangs up is what some tests want."""

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.hits.append(self.path)
            status, headers, body = self.server.pages[self.path]
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            if callable(body):
                body(self.wfile)
            else:
                self.wfile.write(body)

        def log_message(self, *_):
            pass


@pytest.fixture
def site():
    site = Site()
    thread = threading.Thread(target=site.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield site
    site.shutdown()
    thread.join()
    site.server_close()


@pytest.fixture
def environ(environ):
    return {**environ, "LINK_ALLOWED_NETWORKS": "127.0.0.0/8"}


@pytest.fixture
def fetch(app, site):
    """Return a function that fetches pages of the site, or of elsewhere."""
    with app.app_context():
        yield lambda *urls: links.fetch_quotes([url if "://" in url else site.url + url for url in urls])


@pytest.fixture
def post(app, client, auth, ann, queued, pushed):
    """Return a function that posts a message and returns its id."""
    headers = auth.headers(ann)
    with app.app_context():
        yield lambda source: client.post("/api/messages", json={"source": source}, headers=headers).json["id"]


def read(message_id):
    db.session.rollback()
    return db.session.get(Message, message_id)


def test_title_and_description_are_fetched_as_text(fetch, site):
    assert fetch("/") == [(site.url + "/", "A <b>title</b> & more", "It's <i>")]


def test_a_page_without_title_has_no_quote(fetch, site):
    site.pages["/none"] = (200, {"Content-Type": "text/html"}, b"<p>hello</p>")
    assert fetch("/none") == []


@pytest.mark.parametrize(
    ("status", "headers"),
    [
        (404, {"Content-Type": "text/html"}),
        (200, {"Content-Type": "image/svg+xml"}),
        (200, {}),
        (302, {"Location": "ftp://127.0.0.1/"}),
        (302, {"Location": "file:///etc/passwd"}),
        (302, {}),
    ],
)
def test_only_html_pages_have_a_quote(fetch, site, status, headers):
    site.pages["/other"] = (status, headers, HTML)
    assert fetch("/other") == []


def test_a_page_in_another_charset_is_read(fetch, site):
    page = "<title>Zoë</title>".encode("latin-1")
    site.pages["/latin"] = (200, {"Content-Type": "text/html; charset=iso-8859-1"}, page)
    assert fetch("/latin")[0][1] == "Zoë"


def test_redirects_are_followed_to_a_limit(fetch, site):
    for hop in range(1, 5):
        site.pages[f"/{hop}"] = (302, {"Location": f"/{hop - 1}" if hop > 1 else "/"}, b"")
    assert fetch("/3")[0][:2] == (site.url + "/3", "A <b>title</b> & more")
    assert fetch("/4") == []


@pytest.fixture
def forbidden(app):
    """A port that accepts connections at an address that may not be reached; at the end, nobody must have come."""
    app.config["LINK_ALLOWED_NETWORKS"] = ""
    with socket.create_server(("", 0), family=socket.AF_INET6, dualstack_ipv6=True) as server:
        yield server.getsockname()[1]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


LOOPBACK = """127.0.0.1 localhost 127.1 127.0.1 2130706433 0x7f.1 0x7f000001 0177.0.0.1 017700000001 0.0.0.0 0
127.255.255.254 [::1] [::] [::ffff:127.0.0.1] [::ffff:7f00:1] [::127.0.0.1] localhost. public@127.0.0.1
public.example:80@127.0.0.1 ①②⑦.⓪.⓪.① 127。0。0。1 %31%32%37.0.0.1 127.0.0.1. LOCALHOST"""


@pytest.mark.parametrize("host", LOOPBACK.split())
def test_loopback_is_not_even_connected_to_however_it_is_written(fetch, forbidden, host):
    assert fetch(f"http://{host}:{forbidden}/") == []
    assert fetch(f"https://{host}:{forbidden}/") == []


NOT_PUBLIC = """0.0.0.0 0.1.2.3 10.0.0.1 100.64.0.1 100.127.255.254 127.0.0.1 169.254.169.254 172.16.0.1 172.31.255.255
192.0.0.1 192.0.0.192 192.0.2.1 192.168.0.1 198.18.0.1 198.51.100.1 203.0.113.1 224.0.0.1 239.255.255.255 240.0.0.1
255.255.255.255 :: ::1 ::127.0.0.1 ::ffff:10.0.0.1 64:ff9b::7f00:1 64:ff9b:1::a00:1 100::1 2001::1 2001:db8::1
2002:7f00:1:: 2002:a9fe:a9fe::1 fc00::1 fd00:ec2::254 fe80::1 fe80::1%lo fec0::1 ff02::1"""


@pytest.mark.parametrize("address", NOT_PUBLIC.split())
def test_an_address_that_is_not_public_is_not_connected_to(app, fetch, resolve, connections, address):
    app.config["LINK_ALLOWED_NETWORKS"] = ""
    resolve.answers = [[address], ["8.8.8.8", address], [address, "2606:4700::1111"]]
    for _ in range(3):
        assert fetch("http://name.example/") == []
    assert resolve.asked == ["name.example"] * 3
    assert connections == []


@pytest.mark.parametrize("address", ["8.8.8.8", "100.63.255.255", "172.32.0.1", "2606:4700::1111", "::ffff:8.8.8.8"])
def test_an_address_that_is_public_is_connected_to(app, fetch, resolve, connections, address):
    app.config["LINK_ALLOWED_NETWORKS"] = ""
    resolve.answers = [[address]]
    fetch("http://name.example:81/")
    assert connections == [(address, 81)]


def test_a_name_is_looked_up_once_and_the_connection_made_to_what_was_looked_at(app, fetch, site, resolve):
    app.config["LINK_ALLOWED_NETWORKS"] = "127.0.0.1/32"
    resolve.answers = [["127.0.0.1"], ["127.0.0.2"]]
    assert fetch(f"http://name.example:{site.server_port}/")
    assert resolve.asked == ["name.example"]
    assert fetch(f"http://name.example:{site.server_port}/") == []
    assert len(site.hits) == 1


def test_the_next_address_of_a_name_is_tried_when_one_does_not_answer(fetch, site, resolve):
    resolve.answers = [["127.0.0.9", "127.0.0.1"]]
    assert fetch(f"http://name.example:{site.server_port}/")


@pytest.fixture
def resolve(monkeypatch):
    """A name server that gives one answer after the other."""

    def getaddrinfo(host, port, **_):
        getaddrinfo.asked.append(host)
        found = [(ipaddress.ip_address(address).version, address) for address in getaddrinfo.answers.pop(0)]
        families = {4: socket.AF_INET, 6: socket.AF_INET6}
        return [(families[version], socket.SOCK_STREAM, 6, "", (address, port)) for version, address in found]

    getaddrinfo.asked, getaddrinfo.answers = [], []
    monkeypatch.setattr(links.socket, "getaddrinfo", getaddrinfo)
    return getaddrinfo


@pytest.fixture
def connections(monkeypatch):
    """The addresses that would have been connected to."""
    found = []

    def open_socket(_fetch, _family, address):
        found.append(address)
        raise ConnectionRefusedError

    monkeypatch.setattr(links.Fetch, "open_socket", open_socket)
    return found


@pytest.mark.parametrize(
    "location", ["//[::1]:{port}/", "http://[::1]:{port}/", "https://[::1]:{port}/", "ftp://[::1]:{port}/"]
)
def test_a_redirect_is_not_followed_to_an_address_that_is_not_public(app, fetch, site, forbidden, location):
    app.config["LINK_ALLOWED_NETWORKS"] = "127.0.0.0/8"
    site.pages["/away"] = (302, {"Location": location.format(port=forbidden)}, b"")
    site.pages["/chain"] = (308, {"Location": "/away"}, b"")
    assert fetch("/away", "/chain") == []
    assert site.hits.count("/away") == 2


def test_a_redirect_is_guarded_like_the_first_hop(app, fetch, site):
    app.config["LINK_ALLOWED_NETWORKS"] = "127.0.0.1/32"
    site.pages["/away"] = (302, {"Location": f"http://127.0.0.2:{site.server_port}/"}, b"")
    assert fetch("/away") == []


SLOW = {
    "body": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n",
    "chunks": b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nTransfer-Encoding: chunked\r\n\r\n",
    "headers": b"HTTP/1.1 200 OK\r\nX-Slow: ",
    "status": b"HTTP",
    "nothing": b"",
}


@pytest.fixture
def raw_server():
    """Return a function that starts a server which sends each client a beginning, and then a piece again and again."""
    stop, threads = threading.Event(), []

    def serve(beginning, piece, pause):
        server = socket.create_server(("127.0.0.1", 0))
        server.settimeout(0.05)
        threads.append(threading.Thread(target=run, args=(server, beginning, piece, pause)))
        threads[-1].start()
        return f"127.0.0.1:{server.getsockname()[1]}"

    def run(server, beginning, piece, pause):
        with server:
            while not stop.is_set():
                try:
                    with server.accept()[0] as client:
                        client.settimeout(1)
                        client.sendall(beginning)
                        while not stop.wait(pause):
                            client.sendall(piece)
                except OSError:
                    continue  # nobody came yet, or the client hung up

    yield serve
    stop.set()
    for thread in threads:
        thread.join()


@pytest.fixture
def bounded(fetch, monkeypatch):
    """Fetch with less time than usual; no fetch may go on afterwards."""
    monkeypatch.setattr(links, "FETCH_SECONDS", 0.5)
    ended = []
    run = links.Fetch.run
    monkeypatch.setattr(links.Fetch, "run", lambda fetch: (run(fetch), ended.append(fetch.url))[0])

    def fetch_bounded(*urls):
        started = time.monotonic()
        assert fetch(*urls) == []
        assert time.monotonic() - started < 1.5
        deadline = time.monotonic() + 1
        while len(ended) < len(urls):
            assert time.monotonic() < deadline, "a fetch goes on"
            time.sleep(0.01)

    return fetch_bounded


@pytest.mark.parametrize("where", SLOW)
@pytest.mark.parametrize("scheme", ["http", "https"])
def test_a_server_that_sends_a_byte_now_and_then_ends_in_time(bounded, raw_server, scheme, where):
    bounded(f"{scheme}://{raw_server(SLOW[where], b'1', pause=0.1)}/")


ENDLESS = {
    "headers": (b"HTTP/1.1 200 OK\r\n", b"X-More: yes\r\n" * 1000),
    "header": (b"HTTP/1.1 200 OK\r\nX-Long: ", b"x" * 60_000),
    "interim answers": (b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 1000),
    "status": (b"", b"x" * 60_000),
}


@pytest.mark.parametrize("what", ENDLESS)
def test_an_endless_answer_ends_in_time(bounded, raw_server, what):
    bounded(f"http://{raw_server(*ENDLESS[what], pause=0)}/")


def test_a_slow_name_server_holds_up_nothing_and_nothing_is_fetched_when_it_answers(
    bounded, site, resolve, monkeypatch
):
    resolve.answers = [["127.0.0.1"]]
    monkeypatch.setattr(
        links.socket, "getaddrinfo", lambda *args, **options: time.sleep(0.8) or resolve(*args, **options)
    )
    bounded(f"http://name.example:{site.server_port}/")
    assert resolve.asked == ["name.example"]
    assert site.hits == []


@pytest.mark.parametrize("encoding", ["gzip", "deflate", "br", "zstd", "GZIP", "identity, gzip"])
def test_no_compression_is_undone(fetch, site, encoding):
    site.pages["/bomb"] = (200, {"Content-Type": "text/html", "Content-Encoding": encoding}, HTML)
    assert fetch("/bomb") == []


HOSTILE_PIECES = """<a_ <a_/ <a=" <div> < <! <!-- <![CDATA[ </ <? &# &lt <meta> <meta_ <meta_a= <meta_a=' <meta_a_
<title> <title_ <title></title <meta_a="<meta_b=' <meta_content="_x=' a= "'"""


@pytest.mark.parametrize("piece", HOSTILE_PIECES.split())
def test_a_hostile_page_is_read_quickly(piece):
    piece = piece.replace("_", " ").encode()
    for beginning in (b"", b"<title>", b"<meta ", b"<!--"):
        page = (beginning + piece * links.MAX_BYTES)[: links.MAX_BYTES]
        started = time.process_time()
        with suppress(LxmlError):  # some of these have nothing in them
            links.read_head(page, None)
        assert time.process_time() - started < 0.5, beginning


@pytest.mark.parametrize("charset", ["punycode", "idna", "unicode_escape", "zlib", "rot13", "utf-7", "x" * 1000])
def test_an_odd_charset_does_no_harm(charset):
    page = HTML + b"a-" + b"ab" * (links.MAX_BYTES // 2)
    started = time.process_time()
    assert links.read_head(page, charset)[0] == "A <b>title</b> & more"
    assert links.read_head(b"<meta charset=%b>" % re.sub(rb"\W", b"", charset.encode()) + page, None)[0]
    assert time.process_time() - started < 0.5


@pytest.mark.parametrize(
    ("page", "title", "description"),
    [
        ("<TITLE lang=en>a\nb</TITLE>", "a b", ""),
        ("<title>a < b > c</title>", "a < b > c", ""),
        ("<!-- <title>old</title> --><title>new</title>", "new", ""),
        ("<meta property='og:title' content='T'><meta property=og:description content=D>", "T", "D"),
        ('<title>T</title><meta content="a > b, it\'s" name="Description">', "T", "a > b, it's"),
        ('<title>T</title><meta content="a > b, it\'s" name="description"/>', "T", "a > b, it's"),
        ("<title>T</title><meta name=description content=first><meta name=description content=second>", "T", "first"),
        ("<title>T</title><meta name=description>", "T", ""),
        ("<title>no end", "no end", ""),
        ("<titles>no</titles>", "", ""),
        ("<title></title>", "", ""),
        ("<title> </title><meta property=og:title content=T>", "T", ""),
        ("<title>" + "t" * 1_000_000 + "</title>", "t" * (links.MAX_TITLE - 1) + "…", ""),
    ],
)
def test_title_and_description_are_found_as_browsers_find_them(page, title, description):
    assert links.read_head(page.encode(), "utf-8") == (title, description)


@pytest.mark.parametrize("charset", ["iso-8859-1", "windows-1252", "LATIN1"])
def test_a_page_says_its_charset_itself(charset):
    for meta in (f'http-equiv="Content-Type" content="text/html; charset={charset}"', f"CHARSET={charset}"):
        assert links.read_head(f"<META {meta}><title>Zoë</title>".encode("latin-1"), None)[0] == "Zoë"


def test_a_page_that_does_not_say_its_charset_is_in_utf_8():
    page = '<script charset="iso-8859-1"></script><title>Zoë</title>'
    assert links.read_head(page.encode(), None)[0] == "Zoë"


@pytest.mark.parametrize(
    "url",
    [
        "http://",
        "http://[",
        "http://a.invalid/",
        "http://127.0.0.1:99999/",
        "http://127.0.0.1:1/",
        "http://" + "a" * 300 + ".example/",
    ],
)
def test_a_broken_address_has_no_quote(fetch, url):
    assert fetch(url) == []


def test_a_huge_page_is_read_to_the_limit_only(fetch, site):
    def write(file):
        file.write(HTML)
        while True:  # until the other side hangs up
            file.write(b"<p>x</p>" * 8192)

    site.pages["/huge"] = (200, {"Content-Type": "text/html"}, write)
    assert fetch("/huge")[0][1] == "A <b>title</b> & more"


def test_a_compressed_page_is_not_unpacked(fetch, site):
    bomb = gzip.compress(HTML + b" " * 10_000_000)
    site.pages["/bomb"] = (200, {"Content-Type": "text/html", "Content-Encoding": "gzip"}, bomb)
    assert fetch("/bomb") == []


def test_slow_pages_end_in_time_and_do_not_hold_up_the_others(fetch, site, monkeypatch):
    monkeypatch.setattr(links, "FETCH_SECONDS", 0.5)
    ended = threading.Event()

    def drip(file):
        try:
            while not ended.wait(0.05):
                file.write(b"<")
        except OSError:
            ended.set()

    site.pages["/slow"] = (200, {"Content-Type": "text/html"}, drip)
    started = time.monotonic()
    assert [quote[0] for quote in fetch("/slow", "/")] == [site.url + "/"]
    assert time.monotonic() - started < 2
    assert ended.wait(2), "the fetch still reads"


def test_a_page_that_is_cut_off_when_its_time_is_over_does_not_count_as_one_that_has_ended(fetch, site, monkeypatch):
    monkeypatch.setattr(links, "FETCH_SECONDS", 0.3)
    run, abort, ended, over = links.Fetch.run, links.Fetch.abort, threading.Event(), threading.Event()

    def run_and_tell(self):
        result = run(self)
        ended.set()
        return result

    def abort_and_wait(self):
        abort(self)
        if threading.current_thread() is threading.main_thread():
            assert ended.wait(2)  # so that its thread is faster than what comes next

    def write_half(file):
        file.write(b"<title>half a page</title>")
        file.flush()
        over.wait(2)

    monkeypatch.setattr(links.Fetch, "run", run_and_tell)
    monkeypatch.setattr(links.Fetch, "abort", abort_and_wait)
    site.pages["/half"] = (200, {"Content-Type": "text/html"}, write_half)
    assert fetch("/half") == []
    over.set()


def test_titles_are_one_short_line_without_invisible_characters():
    title, description = links.read_head(
        "<title>a\n\u202e\x07 b</title><meta name=description content='{}'>".format("x" * 500).encode(), "utf-8"
    )
    assert title == "a b"
    assert len(description) == links.MAX_DESCRIPTION


def test_a_huge_title_is_cut_in_time():
    page = b"<title>" + b"a " * (links.MAX_BYTES // 2)
    links.read_head(page, "utf-8")
    started = time.process_time()
    title, _description = links.read_head(page, "utf-8")
    assert len(title) == links.MAX_TITLE
    assert time.process_time() - started < 0.02


def test_a_message_is_expanded_and_pushed(post, site, pushed):
    message_id = post(f"see {site.url}/")
    links.expand(message_id)
    message = read(message_id)
    assert "<blockquote>" in message.html
    assert message.expand_after is None
    assert pushed[-1] == ("Message", message.to_dict())


def test_at_most_three_links_are_expanded(post, site):
    for number in range(5):
        site.pages[f"/{number}"] = (200, {"Content-Type": "text/html"}, b"<title>t</title>")
    message_id = post(" ".join(f"{site.url}/{number}" for number in range(5)))
    links.expand(message_id)
    assert sorted(site.hits) == ["/0", "/1", "/2"]


def test_a_message_is_claimed_by_one_worker(post, site):
    message_id = post(f"see {site.url}/")
    assert links.claim(message_id)
    links.expand(message_id)
    assert site.hits == []


def test_a_message_whose_worker_died_is_due_again_after_the_lease(post, site, monkeypatch):
    message_id = post(f"see {site.url}/")
    assert links.find_due() == [message_id]
    links.claim(message_id)
    assert links.find_due() == []
    with write_transaction() as session:
        session.get(Message, message_id).expand_after -= links.LEASE
    assert links.find_due() == [message_id]
    links.expand(message_id)
    assert links.find_due() == []


def test_the_result_for_a_text_that_was_edited_meanwhile_is_dropped(post, site):
    message_id = post(f"see {site.url}/")
    lease = links.claim(message_id)
    with write_transaction() as session:
        message = session.get(Message, message_id)
        message.source, message.html, message.expand_after = "edited", "edited", None
    assert not links.finish(message_id, lease, f"see {site.url}/", "outdated")
    assert read(message_id).html == "edited"


@pytest.mark.parametrize("limit", [10, 200])
def test_a_message_that_has_no_room_for_quotes_keeps_its_html(post, site, pushed, monkeypatch, limit):
    message_id = post(f"see {site.url}/")
    before = read(message_id).html
    monkeypatch.setattr("parley.markup.MAX_HTML", limit)  # 10: as if it was stored before there was a limit
    links.expand(message_id)
    message = read(message_id)
    assert (message.html, message.expand_after) == (before, None)
    assert len(pushed) == 1


def test_a_message_is_rendered_once_when_it_is_expanded(post, site, monkeypatch):
    message_id = post(f"see {site.url}/")
    rendered = []
    monkeypatch.setattr(
        links.markup, "parse", lambda source, parse=links.markup.parse: rendered.append(1) or parse(source)
    )
    links.expand(message_id)
    assert "<blockquote>" in read(message_id).html
    assert len(rendered) == 1


def test_a_page_without_title_changes_nothing_but_that_it_is_done(post, site, pushed):
    message_id = post(f"see {site.url}/gone")
    site.pages["/gone"] = (404, {}, b"")
    before = len(pushed)
    links.expand(message_id)
    assert read(message_id).expand_after is None
    assert len(pushed) == before
