"""Many people register at once: all of them succeed, and those who give up cost the others nothing."""

import collections
import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import pytest
import requests
from contract.conftest import Client, http_session

PASSWORD = "correct horse"  # noqa: S105
CLASS = 60  # people who press "Create account" in the same second
IN_TIME = 10  # seconds
ABANDONED_FOR = 5  # seconds
ABANDONED_AT_ONCE = 60
GIVE_UP_AFTER = 0.05  # seconds


@contextlib.contextmanager
def one_busy_core():
    """Keep a core busy, as another program of a learner's laptop would."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


def persist(send: Callable[[], requests.Response]) -> list[int]:
    """Send a request again as long as it is answered 503, as the page does; return all statuses."""
    statuses = []
    while not statuses or statuses[-1] == 503:
        answer = send()
        statuses.append(answer.status_code)
        if answer.status_code == 503:
            time.sleep(float(answer.headers.get("Retry-After", 1)))
    return statuses


def register(url: str, nickname: str, begin: threading.Barrier) -> tuple[float, list[int]]:
    """Register and sign in; return the seconds it took, and all statuses."""
    with http_session() as http:
        begin.wait()
        began = time.monotonic()
        body = {"nickname": nickname, "password": PASSWORD}
        statuses = persist(lambda: http.post(f"{url}/api/users", timeout=IN_TIME, json=body))
        statuses += persist(lambda: http.post(f"{url}/api/tokens", timeout=IN_TIME, auth=(nickname, PASSWORD)))
        return time.monotonic() - began, statuses


@pytest.mark.parametrize("load", [contextlib.nullcontext, one_busy_core])
def test_a_class_of_sixty_registers_in_the_same_second(url, random_nickname, print_figure, load):
    begin = threading.Barrier(CLASS)
    with load(), ThreadPoolExecutor(CLASS) as threads:
        nicknames = [random_nickname() for _ in range(CLASS)]
        done = list(threads.map(lambda nickname: register(url, nickname, begin), nicknames))
    slowest = max(took for took, _ in done)
    statuses = collections.Counter(status for _, of_one in done for status in of_one)
    what = "with one core kept busy" if load is one_busy_core else "on a quiet machine"
    print_figure(f"{CLASS} register and sign in at once {what}: the last one after {slowest:.1f} s, {dict(statuses)}")
    assert statuses.keys() <= {201, 200, 503}
    assert (statuses[201], statuses[200]) == (CLASS, CLASS)
    assert slowest < IN_TIME


def test_registrations_that_were_given_up_do_not_hold_up_signing_in(url, random_nickname, print_figure):
    ann = Client(url).register()
    address = urlsplit(url)
    end = time.monotonic() + ABANDONED_FOR

    def give_up_again_and_again(_) -> int:
        count = 0
        while time.monotonic() < end:
            body = json.dumps({"nickname": random_nickname(), "password": PASSWORD})
            head = f"POST /api/users HTTP/1.1\r\nHost: {address.netloc}\r\nContent-Type: application/json\r\n"
            with socket.create_connection((address.hostname, address.port), timeout=IN_TIME) as connection:
                connection.sendall(f"{head}Content-Length: {len(body)}\r\n\r\n{body}".encode())
                time.sleep(GIVE_UP_AFTER)
            count += 1
        return count

    with ThreadPoolExecutor(ABANDONED_AT_ONCE) as threads:
        given_up = sum(threads.map(give_up_again_and_again, range(ABANDONED_AT_ONCE)))
    began = time.monotonic()
    assert persist(lambda: ann.post("/api/tokens", auth=ann.credentials))[-1] == 200
    took = time.monotonic() - began
    ann.http.close()
    print_figure(f"{given_up} registrations are given up within {ABANDONED_FOR} s → signing in takes {took:.1f} s")
    assert took < 5
