"""Attacks through links: the workers fetch pages that strangers choose, from inside our network.

The stage under test may reach 127.0.0.0/8; what is forbidden here is every other address of this machine.
"""

import socket
import threading
import time

import psutil
import pytest
from contract.conftest import EXPANDED_WITHIN

pytestmark = pytest.mark.usefixtures("loopback_only")

EXPANSION = 5  # seconds that the fetching of all links of a message may take
BOMBS_WITHIN = 8  # seconds for all hostile pages, one after the other: none of them is waited for


@pytest.fixture
def forbidden_port():
    """A port at all addresses of this machine; in the end, nobody must have connected, not even to scan ports."""
    both = socket.has_dualstack_ipv6()  # not on a machine without IPv6
    family = socket.AF_INET6 if both else socket.AF_INET
    with socket.create_server(("", 0), family=family, dualstack_ipv6=both) as server:
        yield server.getsockname()[1]
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def forbidden_hosts() -> list[str]:
    """Return the ways to write this machine's addresses outside of 127.0.0.0/8."""
    hosts = ["[::1]", "[0:0:0:0:0:0:0:1]", "[::]", "0.0.0.0", "0", "public@[::1]", "[::127.0.0.1]", "[::ffff:0.0.0.0]"]  # noqa: S104
    addresses = [a.address for found in psutil.net_if_addrs().values() for a in found if a.family == socket.AF_INET]
    hosts += [address for address in addresses if not address.startswith("127.")]
    for name in ("localhost", "ip6-localhost", socket.gethostname()):  # localhost: one allowed address, one forbidden
        try:
            found = {address[0] for *_, address in socket.getaddrinfo(name, 80)}
        except OSError:
            continue
        if any(not address.startswith("127.") for address in found):
            hosts.append(name)
    return hosts


def test_no_forbidden_address_is_connected_to_neither_directly_nor_by_a_redirect(ann, site, forbidden_port, until):
    good = site.add("/good", "A good page")
    messages = []
    for number, host in enumerate(forbidden_hosts()):
        there = f"http://{host}:{forbidden_port}/"
        away = site.redirect(f"/away{number}", f"//{host}:{forbidden_port}/" if number % 2 else there)
        chain = site.redirect(f"/chain{number}", site.redirect(f"/next{number}", there.replace("http:", "https:")))
        messages += [ann.say(f"<{there}> {good}"), ann.say(f"{away} {chain} {good}")]
    for message in messages:
        until(
            lambda m=message: "<blockquote>" in ann.read(m["id"])["html"],
            3 * EXPANDED_WITHIN,
            "the preview of the good page",
        )
        assert ann.read(message["id"])["html"].count("<blockquote>") == 1
    assert {path for path in site.hits if "/away" in path or "/next" in path}


@pytest.mark.parametrize(
    "target", ["file:///etc/passwd", "ftp://127.0.0.1/", "gopher://127.0.0.1/", "javascript:1", "", "//", "http://["]
)
def test_a_redirect_to_what_is_no_web_address_is_not_followed(site, expanded, target):
    html = expanded(f"{site.redirect('/away', target)} {site.add('/good', 'A good page')}")["html"]
    assert html.count("<blockquote>") == 1


def test_a_circle_of_redirects_ends(site, expanded):
    circle = site.redirect("/circle", "/circle")
    assert expanded(f"{circle} {site.add('/good', 'A good page')}")["html"].count("<blockquote>") == 1
    assert site.hits.count("/circle") <= 4


@pytest.fixture
def hostile():
    """A server at /body, /headers and /endless that sends a byte a second, or as many as it can."""
    stop = threading.Event()
    threads = []
    head = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n"
    answers = {
        b"/body": (head + b"\r\n<title>slow</title>", b"x", 1),
        b"/headers": (head + b"X-Slow: ", b"x", 1),
        b"/endless": (head + b"X-More: 1\r\n", b"X-More: 1\r\n" * 5000, 0),
    }

    def serve(client):
        with client:
            beginning, piece, pause = answers[client.recv(4096).split()[1]]
            try:
                client.sendall(beginning)
                while not stop.wait(pause):
                    client.sendall(piece)
            except OSError:
                pass  # the worker has hung up

    def accept():
        while not stop.is_set():
            try:
                client, _ = server.accept()
            except TimeoutError:
                continue
            client.settimeout(2)
            threads.append(threading.Thread(target=serve, args=(client,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as server:
        server.settimeout(0.1)
        threads.append(threading.Thread(target=accept))
        threads[0].start()
        yield f"http://127.0.0.1:{server.getsockname()[1]}"
        stop.set()
        for thread in threads:
            thread.join()


def test_slow_and_endless_pages_do_not_keep_a_message_from_being_expanded(ann, site, hostile, expanded, print_figure):
    good = site.add("/good", "A good page")
    for _ in range(3):  # more, for all workers, than one message can have
        ann.say(f"{hostile}/body {hostile}/headers {hostile}/endless")
    started = time.monotonic()
    assert expanded(f"{hostile}/body {hostile}/endless {good}")["html"].count("<blockquote>") == 1
    taken = time.monotonic() - started
    print_figure(
        f"a message with a page that sends a byte a second was expanded after {taken:.1f} s (bound {EXPANDED_WITHIN} s)"
    )
    assert taken >= EXPANSION - 1, "the slow page was not waited for: is it still slow?"


def test_pages_made_to_cost_time_or_memory_cost_neither(site, expanded, ann, print_figure):
    html = {"Content-Type": "text/html"}
    bombs = {
        "/nested": (200, html, "<title>deep</title>" + "<div>" * 100_000),
        "/tags": (200, html, "<title>tags</title>" + "<a " * 170_000),
        "/metas": (200, html, "<title>metas</title>" + "<meta name=description content='" * 15_000),
        "/title": (200, html, f"<title>{'t' * 1_000_000}</title>"),
        "/charset": (200, {"Content-Type": "text/html; charset=punycode"}, "<title>code</title>a-" + "ab" * 250_000),
        "/zipped": (200, html | {"Content-Encoding": "gzip"}, "\x1f\x8b"),
        "/huge": (200, html, "<title>huge</title>" + "x" * 20_000_000),
    }
    site.pages.update(bombs)
    good = site.add("/good", "A good page")
    started = time.monotonic()
    quoted = {path: expanded(f"{site.url}{path} {good}")["html"] for path in bombs}
    taken = time.monotonic() - started
    print_figure(f"{len(bombs)} messages with a hostile page each were expanded within {taken:.1f} s")
    for path, page in quoted.items():
        assert page.count("<blockquote>") == (1 if path == "/zipped" else 2), path
    assert taken < BOMBS_WITHIN
    assert "t" * 199 + "…" in quoted["/title"]
