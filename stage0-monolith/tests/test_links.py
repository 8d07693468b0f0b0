import gzip
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

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


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433", "0x7f.1", "0.0.0.0"])  # noqa: S104
def test_nothing_is_sent_to_an_address_that_is_not_public(app, fetch, site, host):
    app.config["LINK_ALLOWED_NETWORKS"] = ""
    assert fetch(f"http://{host}:{site.server_port}/") == []
    assert site.hits == []


def test_a_redirect_is_guarded_like_the_first_hop(app, fetch, site):
    app.config["LINK_ALLOWED_NETWORKS"] = "127.0.0.1/32"
    site.pages["/away"] = (302, {"Location": f"http://127.0.0.2:{site.server_port}/"}, b"")
    assert fetch("/away") == []


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


def test_titles_are_one_short_line_without_invisible_characters():
    title, description = links.read_head(
        "<title>a\n\u202e\x07 b</title><meta name=description content='{}'>".format("x" * 500).encode(), "utf-8"
    )
    assert title == "a b"
    assert len(description) == links.MAX_DESCRIPTION


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


def test_a_page_without_title_changes_nothing_but_that_it_is_done(post, site, pushed):
    message_id = post(f"see {site.url}/gone")
    site.pages["/gone"] = (404, {}, b"")
    before = len(pushed)
    links.expand(message_id)
    assert read(message_id).expand_after is None
    assert len(pushed) == before
