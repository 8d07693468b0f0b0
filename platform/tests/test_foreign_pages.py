"""A web page of another site in the browser of the person who runs the stage: what it can reach on loopback."""

import json
import socket
import threading
from base64 import b64encode
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import psutil
import pytest
from tests.browsers import browser

from workshop.ports import HOST

ALIAS = "page.example"  # a name of the page's own that leads to loopback, as with DNS rebinding
ANSWER_TIMEOUT = 5  # seconds for a server to answer, or to close the connection
# Sends a request in each way that a page has, and returns the body of each answer that it can read, or the error.
ATTACK = """async attempts => Promise.all(attempts.map(async ([url, options]) => {
  try {
    const answer = await fetch(url, options);
    return `${answer.type} ${await answer.text()}`;
  } catch (error) {
    return String(error);
  }
}))"""
FORM = {"Content-Type": "application/x-www-form-urlencoded"}  # a page may send it anywhere without asking first


@pytest.fixture
def page():
    """An empty page of another origin. Its browser resolves ALIAS to loopback."""

    class Empty(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/html")
            self.end_headers()

        def log_message(self, *_):
            """Say nothing."""

    options = ["--no-sandbox", "--disable-background-networking", f"--host-resolver-rules=MAP {ALIAS} {HOST}"]
    with ThreadingHTTPServer((HOST, 0), Empty) as server, browser(*options) as chromium:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        page = chromium.new_page()
        page.goto(f"http://localhost:{server.server_port}/")
        yield page
        server.shutdown()


def ports(stage) -> dict[str, int]:
    return json.loads((stage.run_folder / "stage.json").read_text())["ports"]


def without_leases(entries: dict[str, str]) -> dict[str, str]:
    """Return the entries apart from the confirmations, which expire."""
    return {key: value for key, value in entries.items() if not key.startswith("/drained/")}


def test_a_page_can_neither_read_nor_write_the_registry(stage, page):
    before = without_leases(stage.registry().entries())
    upstream = f"/services/{stage.chat}/upstream"
    evil = {"key": b64encode(f"{upstream}/evil".encode()).decode(), "value": b64encode(f"{HOST}:9".encode()).decode()}
    attempts = [
        (f"{scheme}://{host}:{ports(stage)[port]}{path}", options)
        for scheme in ("http", "https")
        for host in (HOST, "localhost", ALIAS)
        for port in ("registry", "registry_peer")
        for path, options in (
            ("/v2/keys/?recursive=true", {}),
            ("/members", {}),
            (f"/v2/keys{upstream}/evil", {"method": "PUT", "headers": FORM, "body": f"value={HOST}:9 weight 256"}),
            (f"/v2/keys{upstream}", {"method": "POST", "mode": "no-cors", "headers": FORM, "body": f"value={HOST}:9"}),
            ("/v3/kv/range", {"method": "POST", "body": json.dumps({"key": evil["key"]})}),
            ("/v3/kv/put", {"method": "POST", "mode": "no-cors", "body": json.dumps(evil)}),
        )
    ]

    assert set(page.evaluate(ATTACK, attempts)) == {"TypeError: Failed to fetch"}
    assert without_leases(stage.registry().entries()) == before


def told_to_redis(stage, *lines: str) -> list[str]:
    """Send lines to Redis, and return those that it answers until it closes the connection."""
    with socket.create_connection((HOST, ports(stage)["queue"]), timeout=ANSWER_TIMEOUT) as connection:
        connection.sendall("".join(f"{line}\r\n" for line in lines).encode())
        return b"".join(iter(lambda: connection.recv(4096), b"")).decode().splitlines()


@pytest.fixture
def sign_in(stage) -> str:
    """Redis' command to sign in with the password of this installation."""
    return f"AUTH {json.loads((stage.run_folder / 'secrets.json').read_text())['REDIS_PASSWORD']}"


def test_redis_refuses_a_client_without_the_password(stage, sign_in):
    refused, _ = told_to_redis(stage, "SET foreign page", "QUIT")

    assert refused.startswith("-NOAUTH")
    assert told_to_redis(stage, sign_in, "EXISTS foreign", "QUIT") == ["+OK", ":0", "+OK"]


@pytest.mark.parametrize("request_line", ["POST / HTTP/1.1", "GET / HTTP/1.1", "PUT / HTTP/1.1"])
def test_redis_reads_no_command_from_an_http_request(stage, sign_in, request_line):
    """It closes the connection at POST or Host, even when the commands that follow include the password."""
    answered = told_to_redis(stage, request_line, f"Host: {HOST}", "", sign_in, "SET foreign page", "QUIT")

    assert "+OK" not in answered
    assert told_to_redis(stage, sign_in, "EXISTS foreign", "QUIT") == ["+OK", ":0", "+OK"]


def test_a_page_cannot_send_redis_a_command(stage, sign_in, page):
    address = f"http://{HOST}:{ports(stage)['queue']}/"
    body = f"{sign_in}\r\nSET foreign page\r\n"  # as if the page had the password
    attempts = [(address, {"method": "POST", "mode": "no-cors", "body": body})]

    assert set(page.evaluate(ATTACK, attempts)) == {"TypeError: Failed to fetch"}
    assert told_to_redis(stage, sign_in, "EXISTS foreign", "QUIT") == ["+OK", ":0", "+OK"]


def test_every_port_is_on_loopback_and_is_known(stage):
    """A server that is new here needs a guard against pages. supervisord has a Unix socket and no port."""
    instances = [instance for service in stage.status()["services"] for instance in service["instances"]]
    known = {*ports(stage).values(), *(int(i["address"].split(":")[1]) for i in instances if i["address"])}
    listening = [
        connection.laddr
        for pid in stage.processes()
        for connection in psutil.Process(pid).net_connections("tcp")
        if connection.status == psutil.CONN_LISTEN
    ]

    assert {ports(stage)["registry"], ports(stage)["registry_peer"], ports(stage)["queue"]} <= {p for _, p in listening}
    assert [(address, port) for address, port in listening if address != HOST or port not in known] == []
