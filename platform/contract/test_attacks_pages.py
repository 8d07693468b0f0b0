"""Pages from elsewhere, which reach loopback through the browser that shows them: every server refuses them."""

import json

import pytest
import requests
import websocket
from contract.conftest import TIMEOUT, http_session
from contract.test_page import OPTIONS
from tests.browsers import browser

ADVICE = "`./workshop up STAGE --host NAME`"
PASSWORD = "correct horse"  # noqa: S105
FOREIGN = [
    ({"Host": "evil.example"}, 421),
    ({"Host": "evil.example:8080", "Origin": "http://evil.example:8080"}, 421),  # DNS rebinding
    ({"Origin": "http://evil.example"}, 403),
    ({"Origin": "http://localhost:1"}, 403),
    ({"Origin": "null"}, 403),  # of a sandboxed frame, or a file
]
# Sends what a form or a script may send to another origin without asking; says whether a WebSocket was opened.
ATTACK = """async (url) => {
  await fetch(url + "/api/users", {method: "POST", mode: "no-cors", body: "{}"}).catch(() => null);
  const socket = new WebSocket(url.replace("http", "ws") + "/socket.io/?EIO=4&transport=websocket");
  return new Promise((resolve) => { socket.onopen = () => resolve("open"); socket.onerror = () => resolve("refused") });
}"""


@pytest.fixture(scope="module")
def servers(running_stage, url) -> list[str]:
    """Return the address of each HTTP server of the stage: the three frontends, and each instance itself."""
    status = running_stage.status()
    state = json.loads((running_stage.run_folder / "stage.json").read_text())
    addresses = [i["address"] for s in status["services"] for i in s["instances"] if s["routes"]]
    if running_stage.driver == "process":
        addresses.append(f"127.0.0.1:{state['ports']['internal']}")
    return [url, status["stats_url"].rstrip("/"), *(f"http://{address}" for address in addresses)]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_each_server_refuses_a_foreign_page(servers, headers, status):
    for server in servers:
        for method, path in (
            ("GET", "/"),
            ("POST", "/api/users"),
            ("POST", "/internal/tokens"),
            ("GET", "/socket.io/"),
        ):
            answer = http_session().request(method, server + path, headers=headers, timeout=TIMEOUT)
            assert answer.status_code == status, (server, path)
            assert set(answer.json()) == {"error", "request_id"}
            assert ADVICE in answer.json()["error"]


@pytest.mark.parametrize(("headers", "status"), FOREIGN)
def test_no_server_opens_a_websocket_for_a_foreign_page(servers, headers, status):
    host, origin = headers.get("Host"), headers.get("Origin", "http://evil.example")
    for server in servers:
        address = f"{server.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket"
        with pytest.raises(websocket.WebSocketBadStatusException) as refused:
            websocket.create_connection(address, timeout=TIMEOUT, host=host, origin=origin)
        assert refused.value.status_code == status


def test_a_page_of_ours_and_a_program_without_an_origin_are_served(url):
    for name in ("127.0.0.1", "localhost"):
        host = url.replace("http://127.0.0.1", name)
        for headers in ({}, {"Origin": f"http://{host}"}):
            answer = requests.get(f"{url}/api/messages?limit=1", headers={"Host": host, **headers}, timeout=TIMEOUT)
            assert answer.status_code == 200
            opened = websocket.create_connection(
                f"{url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket",
                timeout=TIMEOUT,
                host=host,
                origin=headers.get("Origin"),
                suppress_origin=not headers,
            )
            assert opened.recv().startswith("0{")
            opened.close()


def test_a_browser_does_not_let_a_page_from_elsewhere_in(url, site):
    """In a real browser: a page of another origin, and one whose name was rebound to loopback."""
    port = url.rpartition(":")[2]
    page_elsewhere = site.add("/", "Elsewhere")
    rebound = ["--host-resolver-rules=MAP evil.example 127.0.0.1"]
    with browser(*OPTIONS, *rebound) as chromium:
        page, statuses = chromium.new_page(), []
        page.on("response", lambda answer: statuses.append(answer.status))
        page.goto(page_elsewhere)
        assert page.evaluate(ATTACK, url) == "refused"
        answer = page.goto(f"http://evil.example:{port}/")
        assert answer.status == 421
        assert page.evaluate(ATTACK, f"http://evil.example:{port}") == "refused"
    assert statuses == [200, 403, 421, 421]
