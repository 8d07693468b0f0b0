"""The calls, made to a real HTTP server that stands where the load balancer would."""

import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import requests

from common import services
from common.refusals import Declined, Unavailable

OK = (200, {"X-Served-By": "cats_v1_1"})
REFUSED = (503, {"X-Served-By": "cats_v1_1", "Retry-After": "17"})
NOBODY = (404, {})  # of the load balancer itself: no instance stands behind it
MOVED = (302, {"X-Served-By": "cats_v1_1", "Location": "/elsewhere"})
BROKEN = (None, {})
HANGING = (None, {"for": "ever"})


class Balancer(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, which are (status, headers), and then always with the last."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.answers = [OK]
        self.requests = []  # (method, path, headers)
        self.end = threading.Event()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.requests.append((self.command, self.path, dict(self.headers)))
            answers = self.server.answers
            status, headers = answers.pop(0) if len(answers) > 1 else answers[0]
            if status is None:
                self.server.end.wait(timeout=5 if headers else 0)
                self.close_connection = True
                return
            body = b'{"error": "Not now."}'
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(body))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_GET = do_PUT = do_DELETE = do_POST = answer

        def log_message(self, *_):
            pass


@pytest.fixture
def balancer():
    balancer = Balancer()
    thread = threading.Thread(target=balancer.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield balancer
    balancer.end.set()
    balancer.shutdown()
    thread.join()
    balancer.server_close()


@pytest.fixture
def others():
    """No stand-in here."""


@pytest.fixture
def environ(environ, balancer):
    return {**environ, "INTERNAL_URL": f"http://127.0.0.1:{balancer.server_port}"}


@pytest.fixture
def clock(monkeypatch):
    """The clock of the circuits, which the test sets."""

    class Clock:
        now = 0.0

        def monotonic(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("common.services.time", clock)
    return clock


@pytest.fixture(autouse=True)
def closed_at_the_end(app):
    """No connection is left open."""
    yield
    app.extensions["services"].http.close()


@pytest.fixture
def call(context):
    """Return a function that calls the service cats."""

    def call(method="GET", **options):
        return services.call("cats", method, "/internal/cats", **options)

    return call


@pytest.fixture
def fail(balancer, call):
    """Return a function that makes calls which nobody answers."""

    def fail(times):
        balancer.answers = [NOBODY]
        for _ in range(times):
            with pytest.raises(Unavailable, match="the cats service"):
                call()

    return fail


def methods(balancer):
    return [method for method, _path, _headers in balancer.requests]


def test_a_call_carries_the_request_id_that_it_is_made_for(app, balancer):
    @app.get("/calls")
    def calls():
        services.call("cats", "GET", "/internal/cats", headers={"X-Forwarded-For": "192.0.2.1"})
        return ""

    app.test_client().get("/calls", headers={"X-Request-ID": "abc-1"})
    [(method, path, headers)] = balancer.requests
    assert (method, path) == ("GET", "/internal/cats")
    assert headers["X-Request-ID"] == "abc-1"
    assert headers["X-Forwarded-For"] == "192.0.2.1"


def test_a_call_of_the_background_has_no_request_id(balancer, call):
    call()
    assert "X-Request-ID" not in balancer.requests[0][2]


@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
def test_what_may_be_repeated_is_sent_once_more_when_it_broke_off(balancer, call, method):
    balancer.answers = [BROKEN, OK]
    assert call(method).status_code == 200
    balancer.answers = [BROKEN]
    with pytest.raises(Unavailable):
        call(method)
    assert methods(balancer) == [method] * 4


def test_a_post_is_sent_once_more_only_if_it_says_that_this_does_no_harm(balancer, call):
    balancer.answers = [BROKEN, OK]
    with pytest.raises(Unavailable):
        call("POST", json={})
    balancer.answers = [BROKEN, OK]
    assert call("POST", json={}, repeatable=True).status_code == 200
    assert len(balancer.requests) == 3


def test_what_the_load_balancer_answers_for_a_broken_connection_is_repeated_too(balancer, call):
    balancer.answers = [(502, {}), OK]
    assert call().status_code == 200


@pytest.mark.parametrize("status", [404, 503, 504, 200])
def test_an_answer_that_is_of_no_instance_counts_as_none(balancer, call, status):
    balancer.answers = [(status, {})]
    with pytest.raises(Unavailable, match="the cats service, which does not answer"):
        call()
    assert len(balancer.requests) == 1


def test_no_answer_in_time_is_none_and_not_waited_for_again(balancer, call, monkeypatch):
    monkeypatch.setattr(services, "READ_TIMEOUT", 0.1)
    balancer.answers = [HANGING]
    started = time.monotonic()
    with pytest.raises(Unavailable):
        call()
    assert time.monotonic() - started < 2
    assert len(balancer.requests) == 1


def test_a_refusal_has_its_status_its_words_and_when_to_try_again(balancer, call):
    balancer.answers = [REFUSED]
    with pytest.raises(Declined, match=r"^Not now\.$") as refusal:
        call()
    assert (refusal.value.status, refusal.value.retry_after) == (503, "17")
    assert len(balancer.requests) == 1


def test_a_redirect_is_not_followed(balancer, call):
    balancer.answers = [MOVED, OK]
    assert call().status_code == 302
    assert len(balancer.requests) == 1


def test_nobody_listens_is_nobody_answers(balancer, call):
    balancer.shutdown()
    balancer.server_close()
    with pytest.raises(Unavailable):
        call()


def test_after_three_failures_in_a_row_calls_fail_at_once(balancer, call, fail, clock):
    fail(2)
    balancer.answers = [OK]
    call()
    fail(3)
    balancer.answers, balancer.requests = [OK], []
    with pytest.raises(Unavailable, match="the cats service"):
        call()
    assert balancer.requests == []


@pytest.mark.parametrize(
    "options", [{"json": float("nan")}, {"json": b"bytes"}, {"headers": {"X": "a\nb"}}, {"headers": {"X": 1}}]
)
def test_a_request_that_can_not_be_sent_is_not_the_other_services_failure(balancer, call, options):
    for _ in range(services.OPEN_AFTER):
        with pytest.raises((TypeError, requests.RequestException)):
            call("POST", **options)
    assert balancer.requests == []
    assert call().status_code == 200


def test_an_open_circuit_is_of_one_service_only(balancer, fail, clock):
    fail(3)
    balancer.answers = [OK]
    assert services.call("dogs", "GET", "/internal/dogs").status_code == 200


def test_an_open_circuit_lets_one_call_a_second_through_and_closes_when_it_succeeds(balancer, call, fail, clock):
    fail(3)
    balancer.requests = []
    clock.now += services.OPEN_FOR
    fail(2)  # the first of them is sent
    assert len(balancer.requests) == 1
    balancer.answers = [OK]
    clock.now += services.OPEN_FOR
    for _ in range(3):
        assert call().status_code == 200


def test_while_one_call_tries_the_others_go_on_failing_at_once(context, app, fail, clock):
    fail(3)
    clock.now += services.OPEN_FOR
    circuit = app.extensions["services"].circuits["cats"]
    assert [circuit.lets_through() for _ in range(3)] == [True, False, False]


def test_a_refusal_does_not_open_the_circuit(balancer, call):
    balancer.answers = [REFUSED]
    for _ in range(5):
        with pytest.raises(Declined):
            call()
    assert len(balancer.requests) == 5
