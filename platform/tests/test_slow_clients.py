"""Clients that send their requests slowly, or never: their connections are closed, and other clients notice nothing."""

import contextlib
import resource
import socket
import threading
import time
from collections.abc import Iterator

import pytest
import requests

from workshop import paths, routing
from workshop.balancer import CLIENT_POLL, LONGEST_REQUEST
from workshop.haproxy import Phase
from workshop.registry import Backend, Upstream

POST = b"POST /tiny HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n"
LENGTHS = {"short": 1000, "long": 60_000}  # bytes of a body: half of the long one fills HAProxy's buffer of 16 KiB
PACE = 0.25  # seconds between two bytes
CLOSED_WITHIN = LONGEST_REQUEST + 2 * CLIENT_POLL + 1
DRAINING = b"POST /nowhere HTTP/1.1\r\nHost: localhost\r\nContent-Length: 60000\r\n\r\n" + b" " * 20_000
MOST_SENT = 64 << 20  # bytes
FLOOD = 1500  # connections: more than the public frontend takes


@pytest.fixture
def api():
    """One of them will do: here HAProxy is the subject."""
    return "v2"


@pytest.fixture
def serving(load_balancer, start_sidecar, until):
    start_sidecar()
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    return load_balancer


@contextlib.contextmanager
def connected(load_balancer) -> Iterator[socket.socket]:
    with socket.create_connection(("127.0.0.1", load_balancer.up.ports["public"]), timeout=5) as connection:
        yield connection


class SlowClient(threading.Thread):
    """A client that sends half of a body at once, and then a byte now and then, or nothing, until it can't any more."""

    def __init__(self, connection: socket.socket, length: int, is_silent: bool = False):
        super().__init__(daemon=True)
        self.connection, self.is_silent = connection, is_silent
        self.answer = b""
        self.left = length - length // 2
        self.started, self.took = time.monotonic(), None
        connection.sendall(POST % length + b" " * (length - self.left))
        connection.settimeout(PACE)
        self.start()

    def run(self) -> None:
        with contextlib.suppress(OSError):  # closed by HAProxy, or by the test
            while self.left > 1:
                if not self.is_silent:
                    self.connection.sendall(b" ")
                    self.left -= 1
                try:
                    received = self.connection.recv(4096)
                except TimeoutError:
                    continue
                self.answer += received
                if self.is_silent and not received:
                    break
        self.took = time.monotonic() - self.started


@pytest.mark.parametrize("is_silent", [False, True], ids=["a byte now and then", "silent"])
@pytest.mark.parametrize("length", LENGTHS)
def test_a_request_that_does_not_arrive_in_time_is_closed(serving, until, length, is_silent):
    with connected(serving) as connection:
        client = SlowClient(connection, LENGTHS[length], is_silent)
        client.join(CLOSED_WITHIN + 1)
        assert client.took, "the connection is still open"
        assert client.took < CLOSED_WITHIN
        if client.answer:  # HAProxy 2 answers; version 3 would go on reading after an answer
            assert client.answer.startswith((b"HTTP/1.1 408 ", b"HTTP/1.1 504 "))
        until(lambda: not serving.runtime.sessions("tiny"), 2, "nothing is in flight to the instance")
    assert serving.get("/tiny").status_code == 200


def test_a_client_that_does_not_read_its_answer_does_not_keep_a_reload_from_being_over(
    load_balancer, start_sidecar, service_registry, monkeypatch, until
):
    monkeypatch.setattr(paths, "HAPROXY", load_balancer.folder)
    start_sidecar(behaviour="big")
    until(lambda: load_balancer.in_rotation("tiny"), 10, "in rotation")
    with connected(load_balancer) as connection:
        connection.sendall(b"GET /tiny HTTP/1.1\r\nHost: localhost\r\n\r\n")
        until(lambda: [s.phase for s in load_balancer.runtime.sessions("tiny")] == [Phase.READING], 5, "it is answered")
        service_registry.register(Backend("other", ["/other"], upstreams={"a": Upstream("127.0.0.1", 9)}), "a")
        until(lambda: "a" in load_balancer.servers("other"), 10, "a reload")
        assert routing.wait_for_requests("tiny") == []
        assert load_balancer.runtime.outdated_clients() == 1

        routing.settle(print)

        assert load_balancer.runtime.outdated_clients() == 0


@pytest.mark.parametrize("length", LENGTHS)
def test_an_upload_that_takes_four_seconds_is_answered(serving, length):
    size = LENGTHS[length]

    def body() -> Iterator[bytes]:
        for _ in range(4):
            yield b" " * (size // 4)
            time.sleep(0.97)

    request = requests.Request("POST", serving.url + "/tiny", headers={"Content-Length": str(size)}, data=body())
    with requests.Session() as http:
        prepared = request.prepare()
        del prepared.headers["Transfer-Encoding"]
        assert http.send(prepared, timeout=10).status_code == 200


def test_slow_clients_do_not_keep_a_reload_from_being_over(serving, service_registry, monkeypatch, until):
    monkeypatch.setattr(paths, "HAPROXY", serving.folder)
    with contextlib.ExitStack() as stack:
        for length in LENGTHS.values():
            for is_silent in (False, True):
                SlowClient(stack.enter_context(connected(serving)), length, is_silent)
        half_sent = stack.enter_context(connected(serving))
        half_sent.sendall(b"GET /tiny HTTP/1.1\r\nHost: localhost\r\n")
        until(lambda: len(serving.runtime.sessions("tiny")) == 2, 5, "the long ones have reached the instance")
        service_registry.register(Backend("other", ["/other"], upstreams={"a": Upstream("127.0.0.1", 9)}), "a")
        until(lambda: "a" in serving.servers("other"), 10, "a reload")
        assert serving.runtime.outdated_clients() == 5

        routing.settle(print)

        assert serving.runtime.outdated_clients() == 0


def test_a_client_that_sends_on_after_its_answer_does_not_keep_a_reload_from_being_over(
    serving, service_registry, monkeypatch, until
):
    monkeypatch.setattr(paths, "HAPROXY", serving.folder)
    monkeypatch.setattr(routing, "SETTLE_TIMEOUT", 3)
    with connected(serving) as connection, stop_sending() as over:
        connection.sendall(DRAINING)
        assert connection.recv(4096).startswith(b"HTTP/1.1 404 ")
        threading.Thread(target=trickle, args=(connection, over)).start()
        service_registry.register(Backend("other", ["/other"], upstreams={"a": Upstream("127.0.0.1", 9)}), "a")
        until(lambda: "a" in serving.servers("other"), 10, "a reload")

        routing.settle(print)

        assert serving.runtime.outdated_clients() == 0
    assert serving.get("/tiny").status_code == 200


@contextlib.contextmanager
def stop_sending() -> Iterator[threading.Event]:
    over = threading.Event()
    try:
        yield over
    finally:
        over.set()


def trickle(connection: socket.socket, over: threading.Event) -> None:
    with contextlib.suppress(OSError):  # closed by HAProxy
        while not over.wait(PACE):
            connection.sendall(b" ")


CHUNKED = b"Transfer-Encoding: chunked"


@pytest.mark.parametrize(
    "header", [b"Content-Length: 99999999999", CHUNKED, CHUNKED + b"\r\nCookie: " + b"x" * 9_000], ids=range(3)
)
def test_a_body_without_end_is_not_read_to_its_end(serving, header):
    chunk = b"%x\r\n%s\r\n" % (1 << 16, b" " * (1 << 16))
    sent = 0
    with connected(serving) as connection:
        connection.sendall(b"POST /tiny HTTP/1.1\r\nHost: localhost\r\n" + header + b"\r\n\r\n")
        with pytest.raises(OSError, match=r"reset|[Bb]roken pipe"):
            while sent < MOST_SENT:
                connection.sendall(chunk)
                sent += len(chunk)
    assert serving.get("/tiny").status_code == 200


def test_writes_that_are_held_do_not_wait_for_a_slow_client(serving, monkeypatch, until):
    monkeypatch.setattr(paths, "HAPROXY", serving.folder)
    with connected(serving) as short, connected(serving) as long:
        SlowClient(short, LENGTHS["short"])
        SlowClient(long, LENGTHS["long"])
        until(lambda: serving.runtime.sessions("tiny"), 5, "it has reached the instance")
        started = time.monotonic()
        assert routing.wait_for_requests("tiny", routing.HOLD) == []
        assert time.monotonic() - started < routing.HOLD - routing.ROUTE_TIME


def test_half_sent_requests_on_the_public_frontend_leave_the_internal_one_alone(serving):
    needed = FLOOD + 200
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, needed), hard))
    address = ("127.0.0.1", serving.up.ports["public"])
    flood = []
    try:
        for _ in range(FLOOD):
            flood.append(socket.create_connection(address, timeout=5))
            flood[-1].sendall(b"GET /tiny HTTP/1.1\r\n")
        for url in (serving.up.internal_url + "/tiny", serving.up.stats_url):
            started = time.monotonic()
            assert requests.get(url, timeout=5).status_code == 200
            assert time.monotonic() - started < 1
    finally:
        for connection in flood:
            connection.close()
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
