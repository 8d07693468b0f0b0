"""Clients that vanish without closing, as a laptop does whose lid is shut: nobody else is to notice."""

import signal
import threading
import time

import psutil
import pytest
from contract.conftest import Client
from tests.load import Crowd

EACH = 100  # clients that stay, and clients that vanish
POSTS = 20  # a second
# As HTML it is five times as long. So the kernel's buffers are full within ten seconds for those who don't read, and
# the instances can send them nothing more.
LONG_TEXT = "&" * 3900
# Engine.IO pings after 10 s, waits 5 s for the answer, and looks at everybody once in 5 s; then the grace and a sweep.
OFFLINE_WITHIN = 10 + 5 + 5 + 5 + 3
CLOSED_WITHIN = OFFLINE_WITHIN + 30  # HAProxy's timeout tunnel


@pytest.fixture
def make_crowd(stage):
    url, made = stage.url, []

    def make() -> Crowd:
        made.append(Crowd(url, EACH))
        return made[-1]

    yield make
    for crowd in made:
        crowd.close()


@pytest.fixture
def ann(stage):
    client = Client(stage.url).register()
    yield client
    client.http.close()


def connections(stage) -> int:
    """Count the connections that the web instances have from HAProxy."""
    ports = {int(instance["address"].split(":")[1]) for instance in stage.instances()}
    found = psutil.net_connections("tcp4")
    return sum(c.status == psutil.CONN_ESTABLISHED and c.laddr.port in ports for c in found)


def test_a_hundred_clients_that_vanish_disturb_nobody_and_are_forgotten(stage, ann, make_crowd, print_figure, until):
    staying, vanishing = make_crowd(), make_crowd()
    posted: dict[int, tuple[float, float]] = {}  # message → when it was sent, and how long the answer took
    is_over = threading.Event()

    def post() -> None:
        start = time.monotonic()
        while not is_over.wait(max(0.0, start + len(posted) / POSTS - time.monotonic())):
            sent = time.monotonic()
            message_id = ann.say(LONG_TEXT)["id"]
            posted[message_id] = (sent, time.monotonic() - sent)

    writer = threading.Thread(target=post)
    writer.start()
    try:
        until(lambda: len(posted) >= 2 * POSTS, 10, "two seconds of posts")
        vanishing.process.send_signal(signal.SIGSTOP)
        vanished = time.monotonic()
        until(lambda: not staying.user.user(vanishing.user.id)["online"], OFFLINE_WITHIN, "offline")
        offline = time.monotonic() - vanished
        assert staying.user.user(staying.user.id)["online"]
    finally:
        is_over.set()
        writer.join()
    until(lambda: staying.arrived.keys() >= posted.keys(), 5, "every push at every client that stayed")
    until(lambda: connections(stage) < EACH * 1.2, CLOSED_WITHIN - offline, "the connections are closed")
    closed = time.monotonic() - vanished
    push = max(max(staying.arrived[message_id]) - sent for message_id, (sent, _) in posted.items())
    answer = max(took for _, took in posted.values())
    print_figure(
        f"{EACH} of {2 * EACH} clients vanish → offline {offline:.0f} s, → connections closed {closed:.0f} s; "
        f"meanwhile {len(posted)} POSTs, slowest answer {1000 * answer:.0f} ms, "
        f"slowest push to the last of {EACH} {1000 * push:.0f} ms"
    )
    assert answer < 1
    assert push < 2
