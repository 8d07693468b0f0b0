"""A probe: asks one address steadily, accounts for every request, and prints the account as JSON.

.venv/bin/python probe.py URL SECONDS
"""

import json
import sys
from dataclasses import dataclass

import requests

RATE = 20  # requests a second
TIMEOUT = 2  # seconds: who has waited so long for an answer has gone away


@dataclass(frozen=True)
class Answer:
    """What became of one request."""

    at: float  # seconds since the probe's start, when it was known
    is_good: bool


def probe(url: str, seconds: int) -> list[Answer]:
    """Ask RATE times a second, whatever becomes of the requests before; return what became of each."""
    raise NotImplementedError("TODO 2: have `ask` (TODO 1) called RATE times a second, each call in its own thread")


def ask(url: str, start: float) -> Answer:
    """Send one request, once: it failed unless it is answered with 200 in time."""
    raise NotImplementedError("TODO 1: send one request, and say whether it was answered with 200 in time")


def longest_outage(answers: list[Answer], duration: float) -> float:
    """Return the longest time, in seconds, in which nobody got a good answer."""
    raise NotImplementedError("TODO 3: find the longest gap between two good answers, start and end included")


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
