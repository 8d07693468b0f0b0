"""One service away: what needs it says so at once, and everything else goes on."""

import os
import re
import signal
import time
from contextlib import contextmanager

import pytest
from contract import conftest, test_page
from contract.conftest import Client, Listener
from playwright.sync_api import expect

browser, text = test_page.browser, test_page.text
SOON = 1.5  # seconds for any answer: nobody waits for who is not there


@contextmanager
def stopped(stage, service: str):
    stage.run("stop", service)
    try:
        yield
    finally:
        stage.run("start", service)


@pytest.fixture
def url(stage):
    return stage.url


@pytest.fixture
def ann(url):
    """Somebody who is signed in, and has a Socket.IO connection."""
    client = Client(url).register()
    client.listener = Listener(url)
    yield client
    client.listener.close()
    client.http.close()


@pytest.fixture
def visit(browser, url):
    """Open the page; requests that fail with 503 are expected."""
    visitors = []

    def open_page():
        visitors.append(test_page.Visitor(browser, url))
        visitors[-1].expected = test_page.LOST
        return visitors[-1]

    yield open_page
    for visitor in visitors:
        visitor.context.close()
    assert [visitor.problems for visitor in visitors] == [[] for _ in visitors]


def unavailable(client: Client, method: str, path: str, **options) -> str:
    """Assert that a request is answered with 503 in our JSON, soon; return the sentence."""
    started = time.monotonic()
    answer = client.http.request(method, client.url + path, timeout=conftest.TIMEOUT, **options)
    assert answer.status_code == 503, answer.text
    assert set(answer.json()) == {"error", "request_id"}
    assert time.monotonic() - started < SOON
    return answer.json()["error"]


def assert_chatting_goes_on(client: Client) -> None:
    """Post over HTTP and over the socket, edit, and read all of it."""
    started = time.monotonic()
    over_http = client.say("over HTTP")["id"]
    over_socket = client.listener.call("post_message", {"source": "over the socket"}, client.token, "key")["id"]
    assert client.put(f"/api/messages/{over_http}", json={"source": "edited"}).status_code == 204
    assert client.read(over_http)["source"] == "edited"
    assert client.read(over_socket)["source"] == "over the socket"
    assert time.monotonic() - started < 5 * SOON


def test_without_tokens_who_is_signed_in_chats_on_and_signing_in_says_why_not(stage, ann, until):
    revoked = ann.token
    ann.sign_in()
    ann.delete("/api/tokens", headers=conftest.bearer(revoked))
    late = Client(ann.url).register()  # whom no instance of messages has seen so far

    def is_refused() -> bool:
        """Ask each of the three instances of messages; the load balancer goes round."""
        headers = conftest.bearer(revoked)
        return all(late.get("/api/messages?limit=1", headers=headers).status_code == 401 for _ in range(6))

    until(is_refused, 2, "every copy of the list has the revoked token")
    with stopped(stage, "tokens"):
        assert_chatting_goes_on(ann)
        assert late.say("I am here, too")
        assert ann.listener.call("ping_user", ann.token) == {"id": ann.id}
        assert is_refused()
        unavailable(ann, "POST", "/api/tokens", auth=ann.credentials)
        unavailable(ann, "DELETE", "/api/tokens")
        # A password is changed all the same; whoever else has a token of it is signed out when tokens is back.
        assert late.put(f"/api/users/{late.id}", json={"password": "another password"}).status_code == 204
        assert late.say("still here")
    until(lambda: late.get("/api/messages").status_code == 401, 5, "signed out everywhere")
    ann.sign_in()
    late.http.close()


def test_without_users_messages_are_read_and_posted_and_signing_in_says_why_not(stage, ann, until):
    with stopped(stage, "users"):
        assert_chatting_goes_on(ann)
        assert ann.listener.call("ping_user", ann.token)["status"] == 503
        unavailable(ann, "GET", "/api/users")
        for _ in range(5):  # the circuit opens meanwhile
            assert "users service" in unavailable(ann, "POST", "/api/tokens", auth=ann.credentials)
    until(lambda: ann.post("/api/tokens", auth=ann.credentials).ok, 5, "signing in works again")
    until(lambda: ann.listener.call("ping_user", ann.token) == {"id": ann.id}, 5, "and so does coming online")


def test_users_that_does_not_answer_holds_up_nobody_for_long(stage, ann, print_figure, until):
    """Frozen, not stopped: the first who ask wait until the load balancer has found out, the others do not."""
    (users,) = stage.instances("users")
    os.killpg(users["pid"], signal.SIGSTOP)
    took = []
    for _ in range(4):
        started = time.monotonic()
        answer = ann.http.post(f"{ann.url}/api/tokens", auth=ann.credentials, timeout=conftest.TIMEOUT)
        took.append(time.monotonic() - started)
        assert answer.status_code == 503, answer.text
    assert_chatting_goes_on(ann)
    print_figure(f"users frozen: signing in answered with 503 after {', '.join(f'{s:.2f}' for s in took)} s")
    assert max(took) < 5
    assert took[-1] < SOON
    until(lambda: ann.post("/api/tokens", auth=ann.credentials).ok, 20, "replaced")


def test_without_messages_people_come_and_go(stage, ann, until):
    with stopped(stage, "messages"):
        unavailable(ann, "GET", "/api/messages")
        acknowledged = ann.listener.call("post_message", {"source": "hello"}, ann.token, "key")
        assert acknowledged["status"] == 503
        assert "messages service" in acknowledged["error"]
        assert ann.listener.call("ping_user", ann.token) == {"id": ann.id}
        until(lambda: ann.user(ann.id)["online"], 2, "online")
        ann.sign_in()
    assert ann.listener.call("post_message", {"source": "hello"}, ann.token, "key")["id"]


def test_without_socketio_the_page_polls_and_its_banner_says_so(stage, visit, text):
    here, there = visit().register(), visit().register()
    here.wait_for_socket()
    with stopped(stage, "socketio"):
        expect(here.banner).to_contain_text("No live connection", timeout=10_000)
        there.say(f"polled {text}")
        expect(here.message(f"polled {text}")).to_be_visible(timeout=10_000)
        expect(here.person("Online", there.nickname)).to_be_visible(timeout=10_000)
    here.wait_for_socket()
    expect(here.banner).to_be_empty()
    there.say(f"pushed {text}")
    expect(here.message(f"pushed {text}")).to_be_visible()


def test_an_account_that_is_created_without_tokens_can_be_signed_in_to_later(stage, visit, text):
    visitor, nickname = visit(), text.replace(" ", "-")
    alert = visitor.page.get_by_role("alert")
    with stopped(stage, "tokens"):
        visitor.enter("Create account", nickname)
        expect(alert).to_have_text(re.compile(r"Your account is created\. No instance .* \(Trying again\.\)"))
        expect(alert).to_contain_text("Your account is created. Signing in failed: choose “Sign in”", timeout=15_000)
    visitor.enter("Sign in", nickname)
    expect(visitor.draft).to_be_focused()


def test_a_page_that_was_opened_without_users_knows_them_soon_after_they_are_back(stage, ann, visit):
    with stopped(stage, "users"):
        visitor = visit()
        visitor.wait_for_socket()
    expect(visitor.page.locator("#people")).to_contain_text(ann.nickname, timeout=8_000)


def test_without_users_a_page_that_is_opened_shows_the_messages(stage, ann, visit, text):
    ann.say(text)
    with stopped(stage, "users"):
        visitor = visit()
        expect(visitor.message(text)).to_be_visible()
        expect(visitor.message(text)).to_contain_text(f"user {ann.id}")
    ann.say(f"again {text}")  # what the page learns makes it ask who is behind it
    expect(visitor.message(f"again {text}")).to_contain_text(ann.nickname, timeout=10_000)
