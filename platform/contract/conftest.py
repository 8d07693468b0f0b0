"""How the contract's tests speak to a stage: over HTTP and Socket.IO through its load balancer.

In three places it is not enough: `store` and `many` write what would take the API a day, `vanished` kills an instance.
"""

import secrets
import threading
import time
from contextlib import contextmanager
from functools import partialmethod
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from urllib.parse import urlsplit

import pytest
import requests
import schemathesis
import socketio
from schemathesis.specs.openapi import checks
from sqlalchemy import text

TIMEOUT = 10  # seconds: longer than the system lets any request take, so that the answer is the system's own
EXPANDED_WITHIN = 8  # seconds: fetching all links of a message may take 5
MANY = 20_000  # users: a busy year of classes and demonstrations
DOCUMENT = schemathesis.openapi.from_path(Path(__file__).with_name("openapi.yaml"))
CONFORMANCE = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_headers_conformance,
    checks.response_schema_conformance,
]

# For each part of the API a call that changes nothing, whether its token is good (the last one: 400) or not.
CALLS = {
    "/api/users": ("GET", "/api/users?ids=1"),
    "/api/messages": ("GET", "/api/messages?limit=1"),
    "/api/tokens": ("DELETE", "/api/tokens?all=malformed"),
}


class Client:
    """A client of the HTTP API, anonymous until it registers; checks in each answer what all of them have in common."""

    def __init__(self, url: str, address: str | None = None):
        self.url = url
        self.http = http_session(address)

    def register(self) -> "Client":
        """Become a new user, signed in."""
        self.nickname, self.password = random_nickname(), secrets.token_urlsafe(12)
        created = self.post("/api/users", json={"nickname": self.nickname, "password": self.password})
        assert created.status_code == 201, created.text
        self.id = created.json()["id"]
        self.sign_in()
        return self

    def sign_in(self) -> str:
        """Get a token, use it from now on, and return it."""
        answer = self.post("/api/tokens", auth=self.credentials)
        assert answer.status_code == 200, answer.text
        self.token = answer.json()["token"]
        self.http.headers["Authorization"] = f"Bearer {self.token}"
        return self.token

    @property
    def credentials(self) -> tuple[bytes, bytes]:
        """Nickname and password for HTTP Basic, in UTF-8."""
        return self.nickname.encode(), self.password.encode()

    def send(self, method: str, path: str, **options) -> requests.Response:
        answer = self.http.request(method, self.url + path, timeout=TIMEOUT, allow_redirects=False, **options)
        check_answer(answer)
        return answer

    get = partialmethod(send, "GET")
    post = partialmethod(send, "POST")
    put = partialmethod(send, "PUT")
    delete = partialmethod(send, "DELETE")

    def say(self, source: str) -> dict:
        """Post a message and return it."""
        answer = self.post("/api/messages", json={"source": source})
        assert answer.status_code == 201, answer.text
        return answer.json()

    def read(self, message_id: int) -> dict:
        return self.get(f"/api/messages/{message_id}").json()

    def walk(self, path: str, before_each_page=lambda: None) -> list[list[dict]]:
        """Return all pages of a list, following the links."""
        name, pages = urlsplit(path).path.rpartition("/")[2], []
        while path:
            before_each_page()
            answer = self.get(path)
            assert answer.status_code == 200, answer.text
            assert answer.json()["_links"]["self"] == path
            pages.append(answer.json()[name])
            path = answer.json()["_links"].get("next")
        return pages

    def user(self, user_id: int) -> dict:
        return self.get(f"/api/users/{user_id}").json()


def http_session(address: str | None = None) -> requests.Session:
    """Return a session, from one of the loopback addresses 127.0.0.2 and so on if it is to be a client of its own."""
    session = requests.Session()
    session.trust_env = False  # no proxy between us and loopback
    if address:
        session.mount("http://", FromAddress(address))
    return session


class FromAddress(requests.adapters.HTTPAdapter):
    """Connects from an address of one's own, by which failed password checks are counted."""

    def __init__(self, address: str):
        self.address = address
        super().__init__()

    def init_poolmanager(self, *arguments, **options):
        super().init_poolmanager(*arguments, source_address=(self.address, 0), **options)


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


def random_nickname() -> str:
    return f"user-{secrets.token_hex(6)}"


def check_answer(answer: requests.Response) -> None:
    """Assert what holds for every answer that an instance gives, and that it is as the document says."""
    assert answer.headers["X-Served-By"]
    assert answer.headers["X-Request-ID"]
    if answer.status_code >= 400:
        problem = answer.json()
        assert set(problem) == {"error", "request_id"}
        assert problem["error"].endswith(".")
        assert problem["request_id"] == answer.headers["X-Request-ID"]
    path = urlsplit(answer.request.path_url).path
    # None: an address or a method that is not in the document, which is itself the subject of a test.
    if operation := DOCUMENT.find_operation_by_path(answer.request.method, path):
        parameters = {parameter.name: path.rpartition("/")[2] for parameter in operation.path_parameters}
        operation.Case(path_parameters=parameters).validate_response(answer, checks=CONFORMANCE)


class Listener:
    """An open Socket.IO connection, the instance it belongs to, and what was pushed over it."""

    def __init__(self, url: str, transports: list[str] | None = None):
        self.pushes: list[dict] = []
        self.refusals = 0
        self.instance = None
        self.http = http_session()
        self.http.hooks["response"].append(self.note_instance)
        self.client = socketio.Client(http_session=self.http, reconnection=False)
        self.client.on("updated_model", self.pushes.append)
        self.client.on("expired_token", self.note_refusal)
        self.client.connect(url, transports=transports, wait_timeout=TIMEOUT)

    def note_instance(self, answer: requests.Response, **_) -> None:
        self.instance = answer.headers["X-Served-By"]

    def note_refusal(self) -> None:
        self.refusals += 1

    def call(self, event: str, *arguments) -> dict:
        """Send an event and return its acknowledgement."""
        return self.client.call(event, arguments, timeout=TIMEOUT)

    def heard(self, kind: str, model_id: int) -> list[dict]:
        """Return what was pushed about a model, oldest first."""
        return [p["model"] for p in list(self.pushes) if p["class"] == kind and p["model"]["id"] == model_id]

    def close(self) -> None:
        self.client.disconnect()
        self.http.close()


class Site(ThreadingHTTPServer):
    """A web site of this machine's whose pages can be linked to; `pages` is {path: (status, headers, body)}."""

    daemon_threads = True

    def __init__(self, host: str):
        super().__init__((host, 0), self.Page)
        self.url = f"http://{host}:{self.server_port}"
        self.pages: dict[str, tuple[int, dict[str, str], str]] = {}
        self.hits: list[str] = []

    def add(self, path: str, title: str, description: str = "") -> str:
        """Publish a page, its title and description being HTML, and return its address."""
        head = f'<title>{title}</title><meta name="description" content="{description}">'
        self.pages[path] = (200, {"Content-Type": "text/html; charset=utf-8"}, f"<!doctype html><head>{head}</head>")
        return self.url + path

    def redirect(self, path: str, target: str) -> str:
        """Publish a redirect and return its address."""
        self.pages[path] = (302, {"Location": target}, "")
        return self.url + path

    class Page(BaseHTTPRequestHandler):
        def do_GET(self):
            self.server.hits.append(self.path)
            status, headers, body = self.server.pages.get(self.path, (404, {}, ""))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, *_):
            """Nothing: the tests look at `hits`."""


@pytest.fixture(scope="session")
def differences(running_stage):
    """What is meant to differ from stage to stage: the row of the stage that is up in differences.toml."""
    return running_stage.differences


@pytest.fixture
def document():
    """The OpenAPI document."""
    return DOCUMENT


@pytest.fixture
def make_client(url):
    """Make anonymous clients."""
    made = []

    def make() -> Client:
        made.append(Client(url))
        return made[-1]

    yield make
    for client in made:
        client.http.close()


@pytest.fixture
def anonymous(make_client):
    return make_client()


@pytest.fixture
def ann(make_client):
    return make_client().register()


@pytest.fixture
def bob(make_client):
    return make_client().register()


@pytest.fixture
def listen(url):
    """Open Socket.IO connections."""
    made = []

    def open_one(**options) -> Listener:
        made.append(Listener(url, **options))
        return made[-1]

    yield open_one
    for listener in made:
        listener.close()


@pytest.fixture
def everywhere(listen, until):
    """Open connections until they belong to several instances."""

    def open_several() -> list[Listener]:
        made = [listen()]
        until(lambda: made.append(listen()) or len({one.instance for one in made}) > 1, 10, "several instances")
        return made

    return open_several


@pytest.fixture
def settle(until):
    """Wait until everything that was pushed before has arrived: what a later message is, is behind it."""

    def wait(listener: Listener, client: Client) -> None:
        fence = client.say("fence")["id"]
        until(lambda: listener.heard("Message", fence), 2, "the push of a message")

    return wait


@pytest.fixture
def wait_until_refused(anonymous, differences, until):
    """Wait until every instance of every service refuses a token, for as long as the stage may take."""

    def is_refused(token: str) -> bool:
        for path, service in differences["services"].items():
            asked, instances = set(), differences["instances"][service]
            for _ in range(4 * instances):  # the balancer goes round; other clients may turn it on as well
                answer = anonymous.send(*CALLS[path], headers=bearer(token))
                if answer.status_code != 401:
                    return False
                asked.add(answer.headers["X-Served-By"])
                if len(asked) == instances:
                    break
            assert len(asked) == instances
        return True

    def wait(token: str) -> None:
        until(lambda: is_refused(token), differences["revoked_within"], "every instance refuses the token")

    return wait


@pytest.fixture(scope="session")
def vanished(running_stage, until):
    """When somebody last pinged, and their id; at once the instance was killed that knew them, and they were gone."""
    client, listener = Client(running_stage.url).register(), Listener(running_stage.url)
    listener.call("ping_user", client.token)
    pinged_at = time.time()
    running_stage.run("kill", listener.instance)
    until(lambda: not listener.client.connected, 5, "the connection is gone")
    client.http.close()
    listener.close()
    return pinged_at, client.id


@pytest.fixture
def store(running_stage, differences):
    """The database of messages: for what would take the API a day, or can't be done through it within one second."""
    with running_stage.database(differences["services"]["/api/messages"]) as database:
        yield database


@pytest.fixture
def many(running_stage, differences):
    """20,000 users who changed in one second, an hour ago: that second, and the database that they are deleted from."""
    second = int(time.time()) - 3600
    insert = """
        WITH RECURSIVE number(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number WHERE n < :count)
        INSERT INTO users (created_at, updated_at, last_seen_at, nickname, nickname_key, password_hash, online)
        SELECT :second, :second, :second, 'many-' || n, 'many-' || n, '', n = 0 FROM number
    """
    with running_stage.database(differences["services"]["/api/users"]) as database:
        with database.begin() as connection:
            connection.execute(text(insert), {"count": MANY, "second": second})
        yield SimpleNamespace(second=second, database=database)
        with database.begin() as connection:
            connection.execute(text("DELETE FROM users WHERE nickname LIKE 'many-%'"))


@contextmanager
def serving(server):
    """Let a web server of the test's own serve, on a thread."""
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def several_addresses(running_stage):
    """That clients are told apart by their addresses."""
    if running_stage.driver == "docker":
        pytest.skip("through a port that Docker publishes on loopback, all clients have one address: the gateway's")


@pytest.fixture
def loopback_only(running_stage):
    """That the one address which may be fetched from is none of those that may not."""
    if running_stage.driver == "docker":
        pytest.skip("containers reach a test's site at an address of this machine, which these tests expect refused")


@pytest.fixture
def site(running_stage):
    with serving(Site(running_stage.site_host)) as server:
        yield server


@pytest.fixture
def expanded(ann, until):
    """Post a message and return it when its links have been expanded; all links of a message are done at once."""

    def post(source: str) -> dict:
        message_id = ann.say(source)["id"]
        return until(lambda: "<blockquote>" in (m := ann.read(message_id))["html"] and m, EXPANDED_WITHIN, "a preview")

    return post


@pytest.fixture(name="random_nickname")
def random_nickname_fixture():
    return random_nickname
