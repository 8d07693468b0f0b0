"""The check: the learner's calls, first to a stand-in for the load balancer that fails in every way, then as a part of
the running socketio service, while the users service is away."""

import contextlib
import socket
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
import socketio
from flask import Flask, g

from workshop import paths
from workshop.probe import session
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

CALL = 'grep -n -A22 "def call(self" work/14-partial-failure/services.py'
SEND = 'grep -n -A14 "def send" work/14-partial-failure/services.py'
CIRCUIT = 'grep -n -A26 "class Circuit" work/14-partial-failure/services.py'
PATIENCE = 6  # seconds: 4 for an answer, as READ_TIMEOUT has it, and 2 for a busy machine; waiting twice takes 8
SOON = 3  # seconds: an open circuit lets a call through after one
SHORT_READ_TIMEOUT = 0.3  # seconds: three calls that nobody answers take one
HOUR = 3600  # seconds
EVENT_TIMEOUT = 10  # seconds for the acknowledgement of an event: longer than the system lets anything take

# What the stand-in answers: a status and headers. An instance is named; without one it is the load balancer's answer.
OK = (200, {"X-Served-By": "cats_v1_1"})
REFUSED = (409, {"X-Served-By": "cats_v1_1"})
NOBODY = (503, {})
CUT_OFF = (502, {})
LATE = (504, {})
BROKEN = (None, {})  # the connection is closed instead


class Balancer(ThreadingHTTPServer):
    """Answers each request with the next of `answers`, and then always with the last; notes what was asked."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), self.Handler)
        self.answers = [OK]
        self.requests = []  # (method, headers)

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def answer(self):
            self.rfile.read(int(self.headers.get("Content-Length", 0)))
            self.server.requests.append((self.command, dict(self.headers)))
            answers = self.server.answers
            status, headers = answers.pop(0) if len(answers) > 1 else answers[0]
            if status is None:
                self.close_connection = True
                return
            body = b'{"error": "Not in these words."}'
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
    balancer.shutdown()
    thread.join()
    balancer.server_close()


@pytest.fixture
def refusals(monkeypatch):
    """What the calls raise: the module of stage 2 that services.py imports."""
    monkeypatch.setattr(sys, "path", [*sys.path, str(paths.REPOSITORY / "stage2-microservices")])
    from common import refusals

    return refusals


@pytest.fixture
def caller(learner, refusals):
    """Return a function that makes a service out of the learner's calls: caller(url)(method) calls cats through it."""
    apps = []

    def caller(url, **constants):
        module = learner.load("services.py")
        for name, value in constants.items():
            setattr(module, name, value)
        app = Flask("check")
        app.config["INTERNAL_URL"] = url
        module.init_app(app)
        apps.append(app)

        def call(method="GET", **options):
            with app.app_context():
                g.request_id = "of-the-check"
                return module.call("cats", method, "/internal/cats", **options)

        return call

    yield caller
    for app in apps:
        app.extensions["services"].http.close()


@pytest.fixture
def call(caller, balancer):
    return caller(f"http://127.0.0.1:{balancer.server_port}")


@pytest.fixture
def outcome(call, refusals):
    """Return a function that makes a call and says what came of it."""

    def outcome(method="GET", **options):
        try:
            return f"answered {call(method, **options).status_code}"
        except refusals.Declined as error:
            return f"Declined {error.status} {error}"
        except refusals.Unavailable:
            return "Unavailable"

    return outcome


def test_an_answer_is_an_answer_and_a_refusal_a_refusal(outcome, balancer):
    for answer, wanted in ((OK, "answered 200"), (REFUSED, "Declined 409 Not in these words.")):
        balancer.answers = [answer]
        seen = outcome()
        expect(
            seen == wanted,
            "What an instance has answered does not come back to the caller.",
            hop=Hop.CODE,
            seen=seen,
            expected=f"{wanted}, when an instance answers {answer[0]}",
            show=SEND,
        )
    [headers, *_] = [headers for _, headers in balancer.requests]
    expect(
        headers.get("X-Request-ID") == "of-the-check",
        "The request id is not passed on: nobody can follow a request through the logs.",
        hop=Hop.CODE,
        seen=f"X-Request-ID: {headers.get('X-Request-ID')}",
        expected="the header that `call` was given, with the id in it",
        show=SEND,
    )
    balancer.answers = [NOBODY]
    seen = outcome()
    expect(
        seen == "Unavailable",
        "An answer that is of no instance is taken for one: the load balancer had to answer itself.",
        hop=Hop.CODE,
        seen=seen,
        expected="Unavailable, when there is no X-Served-By in the answer",
        show=SEND,
    )


def test_no_answer_is_waited_for_once_and_not_for_long(caller, refusals):
    with ThreadPoolExecutor(1) as pool, socket.create_server(("127.0.0.1", 0)) as silent:
        port = silent.getsockname()[1]
        waiting = pool.submit(caller(f"http://127.0.0.1:{port}"))
        try:
            waiting.result(PATIENCE)
        except refusals.Unavailable:
            return
        except TimeoutError:
            pass
        raise Wrong(
            "A service that does not answer holds up who calls it, and who calls that one, and so on.",
            hop=Hop.CODE,
            seen=f"still waiting after {PATIENCE} s; requests sent: {connections(silent)}",
            expected="Unavailable after READ_TIMEOUT, and one request: waiting twice would be too long",
            show=SEND,
        )


def test_an_answer_of_the_load_balancer_itself_says_whether_to_send_once_more(outcome, balancer):
    for answer, what, wanted, result in (
        (CUT_OFF, "because the connection to an instance broke off, and `call` gives up", 2, "answered 200"),
        (LATE, "because an instance did not answer in time, and `call` waits a second time", 1, "Unavailable"),
    ):
        balancer.answers, balancer.requests = [answer, OK], []
        seen = outcome("GET")
        sent = len(balancer.requests)
        expect(
            (sent, seen) == (wanted, result),
            f"The load balancer answers {answer[0]} itself, {what}.",
            hop=Hop.CODE,
            seen=f"GET: sent {times(sent)}, {seen}",
            expected=f"GET: sent {times(wanted)}, {result}",
            show=SEND,
        )


def test_what_broke_off_is_sent_once_more_where_that_does_no_harm(outcome, balancer):
    for method, options, wanted in (
        ("PUT", {}, 2),
        ("POST", {"json": {}}, 1),
        ("POST", {"json": {}, "repeatable": True}, 2),
    ):
        balancer.answers, balancer.requests = [BROKEN, OK], []
        seen = outcome(method, **options)
        what = "POST with an idempotency key" if options.get("repeatable") else method
        sent = len(balancer.requests)
        expect(
            sent <= wanted,
            f"A {what} that broke off is sent again. It may have been carried out: then it is done twice.",
            hop=Hop.CODE,
            seen=f"sent {sent} times, {seen}",
            expected="sent once, Unavailable: only the user knows whether to try again",
            show=CALL,
        )
        expect(
            sent == wanted and (seen == "answered 200") == (wanted == 2),
            f"A {what} that broke off is given up, though another instance would have answered it.",
            hop=Hop.CODE,
            seen=f"sent {sent} times, {seen}",
            expected=f"sent {wanted} times, answered 200",
            show=CALL,
        )
    balancer.answers, balancer.requests = [BROKEN], []
    seen = outcome("GET")
    expect(
        (len(balancer.requests), seen) == (2, "Unavailable"),
        "What breaks off again and again is not given up after the second time.",
        hop=Hop.CODE,
        seen=f"sent {len(balancer.requests)} times, {seen}",
        expected="sent twice, Unavailable",
        show=CALL,
    )


def test_the_circuit_opens_lets_one_call_through_and_closes_again(learner, outcome, balancer):
    learner.text("services.py")  # not done yet while a TODO stands in it
    balancer.answers = [REFUSED]
    seen = {outcome() for _ in range(5)}
    expect(
        seen == {"Declined 409 Not in these words."},
        "A service that refuses is taken for one that is away: it has answered, and does so the next time.",
        hop=Hop.CODE,
        seen=", ".join(sorted(seen)),
        expected="Declined, five times: a refusal is no failure",
        show=CIRCUIT,
    )
    balancer.answers, balancer.requests = [NOBODY], []
    for _ in range(4):
        outcome()
    expect(
        len(balancer.requests) == 3,
        "After three failures in a row the circuit is open: the next call is not made at all.",
        hop=Hop.CODE,
        seen=f"4 calls, {len(balancer.requests)} sent",
        expected="4 calls, 3 sent",
        show=CIRCUIT,
    )
    expect(
        wait_until(lambda: outcome() and len(balancer.requests) > 3, SOON),
        "The circuit never closes: nothing finds out that the service is back.",
        hop=Hop.CODE,
        seen=f"nothing sent for {SOON} s",
        expected="one call is let through after OPEN_FOR, which finds out",
        show=CIRCUIT,
    )
    for _ in range(3):
        outcome()
    expect(
        len(balancer.requests) == 4,
        "A circuit that was open for a second is closed, although the service is still away.",
        hop=Hop.CODE,
        seen=f"{len(balancer.requests) - 3} calls let through at once",
        expected="1: it has failed, so the circuit is open for a second more",
        show=CIRCUIT,
    )
    balancer.answers = [OK]
    expect(
        wait_until(lambda: outcome() == "answered 200", SOON) and outcome() == "answered 200",
        "The service is back, and the circuit does not close.",
        hop=Hop.CODE,
        seen=outcome(),
        expected=f"answered 200, within {SOON} s and from then on",
        show=CIRCUIT,
    )
    balancer.answers = [NOBODY, OK]
    seen = [outcome(), outcome()]
    expect(
        seen == ["Unavailable", "answered 200"],
        "The circuit opens at the first failure after it was closed: it has not begun to count anew.",
        hop=Hop.CODE,
        seen=", ".join(seen),
        expected="Unavailable, answered 200: it opens after three failures in a row",
        show=CIRCUIT,
    )


def test_calls_without_an_answer_in_time_open_the_circuit(caller, refusals):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        call = caller(f"http://127.0.0.1:{silent.getsockname()[1]}", READ_TIMEOUT=SHORT_READ_TIMEOUT)
        for _ in range(4):
            with contextlib.suppress(refusals.Unavailable):
                call()
        sent = connections(silent)
    expect(
        sent == 3,
        "Calls without an answer in time do not open the circuit: each caller of a frozen service waits for the whole "
        "READ_TIMEOUT.",
        hop=Hop.CODE,
        seen=f"4 calls, {sent} sent",
        expected="4 calls, 3 sent: a timeout is a failure",
        show=CALL,
    )


def test_only_failures_in_a_row_open_the_circuit(outcome, balancer):
    for answer, what, sentence in (
        (
            OK,
            "answered 200",
            "The circuit opens after failures that were not in a row: an answer ends a series of them.",
        ),
        (
            REFUSED,
            "refused with 409",
            "A refusal does not end a series of failures: the service has answered, so it is not away.",
        ),
    ):
        balancer.answers, balancer.requests = [NOBODY, NOBODY, answer, NOBODY, OK], []
        for _ in range(4):
            outcome()
        seen = outcome()
        expect(
            seen == "answered 200",
            sentence,
            hop=Hop.CODE,
            seen=f"failure, failure, {what}, failure, then nothing sent",
            expected=f"failure, failure, {what}, failure, answered 200",
            show=CALL,
        )


def test_a_call_that_was_sent_twice_is_one_failure(outcome, balancer):
    balancer.answers = [BROKEN]
    for _ in range(3):
        outcome("GET")
    sent = len(balancer.requests)
    expect(
        sent == 6,
        "The circuit counts attempts instead of calls: it opens after fewer calls than OPEN_AFTER.",
        hop=Hop.CODE,
        seen=f"3 calls, {sent} attempts",
        expected="3 calls, 6 attempts",
        show=CALL,
    )


def test_the_circuit_does_not_depend_on_the_system_clock(learner, monkeypatch):
    module = learner.load("services.py")
    circuit = module.Circuit()
    for _ in range(module.OPEN_AFTER):
        circuit.count_failure()
    with monkeypatch.context() as patch:
        before = time.time()
        patch.setattr(time, "time", lambda: before - HOUR)
        is_let_through = wait_until(circuit.lets_through, SOON)
    expect(
        is_let_through,
        "The circuit stays open when the system clock is set back, as NTP does: nothing finds out that the service is "
        "back.",
        hop=Hop.CODE,
        seen=f"no call let through for {SOON} s, after the clock was set back by an hour",
        expected="one call let through after OPEN_FOR: time.monotonic() never goes back",
        show=CIRCUIT,
    )


def test_an_open_circuit_lets_one_call_through_whoever_else_calls_meanwhile(learner):
    module = learner.load("services.py")
    circuit = module.Circuit()
    for _ in range(module.OPEN_AFTER):
        circuit.count_failure()
    wait_until(circuit.lets_through, SOON)
    expect(
        not circuit.lets_through(),
        "An open circuit lets one call after the other through, until the first has failed: all wait for the time-out.",
        hop=Hop.CODE,
        seen="a second call is let through, while nobody knows what came of the first",
        expected="one, and for OPEN_FOR no other",
        show=CIRCUIT,
    )


@pytest.mark.timeout(60)
def test_users_is_away_and_the_chat_goes_on(learner, stage):
    ann = stage.user()
    with stage.deployed("socketio", {"common/services.py": learner.path("services.py")}):
        chat = Chat(stage, ann)
        try:
            chat.goes_on("before anything is away")
            chat.pings(lambda seen: seen == {"id": ann.id}, "Coming online", "acknowledged with the user's id")
            with stage.stopped("users"):
                for _ in range(3):
                    # Coming online fails: often enough for the circuit to open, whatever else is called meanwhile.
                    for _ in range(6):
                        chat.pings(lambda seen: seen.get("status") == 503, "While users is away, coming online", "503")
                    chat.goes_on("while users is away")
            expect(
                wait_until(lambda: chat.ask("ping_user", ann.token) == {"id": ann.id}, SOON),
                "Users is back, and coming online still fails.",
                hop=Hop.SERVICE,
                seen=f"{chat.ask('ping_user', ann.token)}, {SOON} s later",
                expected="acknowledged with the user's id",
                show="./workshop logs socketio",
                log=stage.log("socketio"),
            )
        finally:
            chat.close()


class Chat:
    """Somebody's page: an open Socket.IO connection."""

    def __init__(self, stage, person):
        self.stage, self.person = stage, person
        self.http = session()
        self.client = socketio.Client(http_session=self.http, reconnection=False)
        self.client.connect(stage.url, transports=["websocket"], wait_timeout=EVENT_TIMEOUT)

    def ask(self, event, *arguments):
        """Send an event and return its acknowledgement."""
        return self.client.call(event, arguments, timeout=EVENT_TIMEOUT)

    def goes_on(self, when):
        """Post over the socket, which calls messages, and read it there."""
        posted = self.ask("post_message", {"source": f"{when}"}, self.person.token, f"{when} {time.time()}")
        expect(
            "id" in posted and self.person.get(f"/api/messages/{posted['id']}").ok,
            f"Posting fails {when}: it needs messages, which is there, and nobody else.",
            hop=Hop.SERVICE,
            seen=f"{posted}",
            expected="acknowledged with the message's id: a circuit for each service",
            show="./workshop logs socketio",
            log=self.stage.log("socketio"),
        )

    def pings(self, is_right, what, wanted):
        """Come online, which calls users."""
        started = time.monotonic()
        seen = self.ask("ping_user", self.person.token)
        took = time.monotonic() - started
        expect(
            is_right(seen) and took < PATIENCE,
            f"{what} is not answered as it must be.",
            hop=Hop.SERVICE,
            seen=f"{seen} after {took:.1f} s",
            expected=wanted,
            show="./workshop logs socketio",
            log=self.stage.log("socketio"),
        )

    def close(self):
        self.client.disconnect()
        self.http.close()


def times(number):
    return f"{number} time{'s' if number != 1 else ''}"


def connections(listener):
    """Return how many connections nobody has accepted so far."""
    listener.setblocking(False)
    accepted = []
    try:
        while True:
            accepted.append(listener.accept()[0])
    except BlockingIOError:
        pass  # that was all
    for one in accepted:
        one.close()
    return len(accepted)
