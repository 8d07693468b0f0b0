"""Links: title and description of linked pages, expanded in the background, and what is not fetched."""

import socket
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest
from contract.conftest import EXPANDED_WITHIN, serving


@pytest.fixture
def forbidden_site():
    """A web site at an address that is not public and that the tests' stage was not allowed to reach."""
    hits = []

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            hits.append(self.path)
            self.send_error(500)

    class Server(HTTPServer):
        address_family = socket.AF_INET6

    with serving(Server(("::1", 0), Page)) as server:
        server.hits, server.url = hits, f"http://[::1]:{server.server_port}"
        yield server


def test_a_link_is_quoted_below_the_text_and_the_message_pushed_again(ann, listen, site, until):
    listener = listen()
    address = site.add("/page", "A title", "What it is about")
    message = ann.say(f"Look: {address}")
    assert f'href="{address}"' in message["html"]

    pushed = until(lambda: listener.heard("Message", message["id"])[1:], EXPANDED_WITHIN, "the second push")[-1]
    assert pushed == ann.read(message["id"])
    assert pushed["source"] == message["source"]
    assert pushed["html"].startswith(message["html"].rstrip())
    assert pushed["updated_at"] >= message["updated_at"]
    quote = pushed["html"].partition("<blockquote>")[2]
    assert "A title" in quote
    assert "What it is about" in quote
    assert site.hits == ["/page"]


def test_what_a_page_says_is_text(site, expanded):
    hostile = "&lt;script&gt;alert(1)&lt;/script&gt;"
    html = expanded(site.add("/", f"{hostile} *title*", f"{hostile} [x](http://x)"))["html"]
    assert "<script" not in html
    assert "&lt;script&gt;alert(1)&lt;/script&gt; *title*" in html
    assert "[x](http://x)" in html


def test_redirects_are_followed(site, expanded):
    site.redirect("/old", site.add("/new", "Moved here"))
    assert "Moved here" in expanded(f"{site.url}/old")["html"]
    assert site.hits == ["/old", "/new"]


def test_addresses_that_are_not_public_are_not_fetched_nor_redirected_to(site, expanded, forbidden_site):
    good = site.add("/good", "A good page")
    away = site.redirect("/away", f"{forbidden_site.url}/redirected")
    html = expanded(f"{forbidden_site.url}/direct {away} {good}")["html"]

    assert html.count("<blockquote>") == 1
    assert "/away" in site.hits
    assert forbidden_site.hits == []


def test_only_html_pages_that_exist_are_quoted(site, expanded):
    good = site.add("/good", "A good page")
    site.pages["/plain"] = (200, {"Content-Type": "text/plain"}, "<title>not HTML</title>")
    html = expanded(f"{site.url}/plain {site.url}/missing {good}")["html"]

    assert html.count("<blockquote>") == 1
    assert sorted(site.hits) == ["/good", "/missing", "/plain"]


def test_an_edited_message_has_its_new_links_expanded(ann, site, expanded, until):
    message = expanded(site.add("/first", "First page"))
    ann.put(f"/api/messages/{message['id']}", json={"source": site.add("/second", "Second page")})

    assert "First page" not in ann.read(message["id"])["html"]
    until(lambda: "Second page" in ann.read(message["id"])["html"], EXPANDED_WITHIN, "the new preview")
