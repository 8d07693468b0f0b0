"""A probe: asks one address steadily, accounts for every request, and prints the account as JSON.

.venv/bin/python probe.py URL SECONDS
"""

import itertools
import json
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import requests

RATE = 20  # requests a second
TIMEOUT = 2  # seconds: who has waited so long for an answer has gone away
CLIENTS = 2 * RATE * TIMEOUT  # threads: as many as can be waiting at once, and as many again


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    at: float  # seconds since the probe's start, when it was known
    is_good: bool


def probe(url: str, seconds: int) -> list[Answer]:
    """Ask RATE times a second, whatever becomes of the requests before; return what became of each."""
    start = time.monotonic()
    with ThreadPoolExecutor(CLIENTS) as clients:
        asked = []
        for number in range(RATE * seconds):
            # An open-loop pace: each request has its time, and does not wait for the one before to be answered.
            time.sleep(max(0.0, start + number / RATE - time.monotonic()))
            asked.append(clients.submit(ask, url, start))
        return [request.result() for request in asked]


def ask(url: str, start: float) -> Answer:
    """Send one request, once: it failed unless it is answered with 200 in time."""
    try:
        with session() as http:
            is_good = http.get(url, timeout=TIMEOUT).status_code == 200
    except requests.RequestException:
        is_good = False  # the reason does not matter to who has asked
    return Answer(time.monotonic() - start, is_good)


def longest_outage(answers: list[Answer], duration: float) -> float:
    """Return the longest time, in seconds, in which nobody got a good answer."""
    good = sorted(answer.at for answer in answers if answer.is_good)
    if not good:
        return 0.0
    return max(later - earlier for earlier, later in itertools.pairwise([0.0, *good, duration]))


def session() -> requests.Session:
    """Return a session without a proxy between us and loopback."""
    made = requests.Session()
    made.trust_env = False
    return made


def main() -> None:
    url, seconds = sys.argv[1], int(sys.argv[2])
    answers = probe(url, seconds)
    account = {
        "sent": len(answers),
        "failed": sum(not answer.is_good for answer in answers),
        "longest_outage": round(longest_outage(answers, seconds), 2),
    }
    print(json.dumps(account))


if __name__ == "__main__":
    main()
