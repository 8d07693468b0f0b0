"""One message to many browsers: how long until each has it, with one and with two instances that hold them."""

import statistics
import time
from contextlib import closing

import pytest
from tests.load import Crowd

SIZE = 500  # connections
MESSAGES = 20
ARRIVED_WITHIN = 5  # seconds


@pytest.fixture
def stage2(workshop):
    workshop.stage = "stage2"
    workshop.up()
    return workshop


def broadcast(crowd: Crowd, text: str, until) -> list[float]:
    """Post a message; return how many seconds after its sending it arrived at each client."""
    sent = time.monotonic()
    # Not crowd.user.say: to check the answer takes longer than the pushes.
    answer = crowd.user.http.post(f"{crowd.user.url}/api/messages", json={"source": text}, timeout=ARRIVED_WITHIN)
    arrived = until(lambda: crowd.arrived.get(answer.json()["id"]), ARRIVED_WITHIN, "at all clients")
    return [at - sent for at in arrived]


def test_a_message_is_at_500_clients_within_a_second(stage2, until, print_figure):
    for instances in (1, 2):
        stage2.run("scale", f"socketio={instances}")
        with closing(Crowd(stage2.url, SIZE)) as crowd:
            times = [took for number in range(MESSAGES) for took in broadcast(crowd, f"number {number}", until)]
        p50, p99 = (1000 * statistics.quantiles(times, n=100)[percent - 1] for percent in (50, 99))
        print_figure(f"a message at each of {SIZE} clients, socketio={instances}: p50 {p50:.0f} ms, p99 {p99:.0f} ms")
        assert p99 < 1000
