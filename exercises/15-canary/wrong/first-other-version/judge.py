"""Promote or abort: what is to become of a canary, decided on evidence.

    PYTHONPATH=platform .venv/bin/python work/15-canary/judge.py messages

watches the canary of messages, says twice a second what it sees, and prints its decision as soon as it has one.
"""

import sys
import time

from workshop import state, supervisor
from workshop.counters import Counter, Counters

# Of 100 answers, a version that fails each twentieth has three errors or more nine times in ten. Of 10 answers it has
# none at all six times in ten, 0.95 to the power of 10, and looks well.
ENOUGH = 100  # requests: the canary's, and those of the others together
TOLERANCE = 0.02  # of the requests: so many more of a canary's than of the others' may fail, by chance
SLOWER = 2  # times the others' p99 …
NOTICED = 200  # … and so many milliseconds longer: what is less, nobody notices
INTERVAL = 0.5  # seconds between two looks into the log


def judge(versions: dict[str, Counter], canary: str) -> str:
    """Return what is to become of the canary: "promote", "abort" or "wait".

    wait      while it has got fewer than ENOUGH requests, or all others together have
    abort     if it fails more often than the others, by more than TOLERANCE; or if it is so much slower that people
              notice: its p99 is longer than SLOWER times the others', and by more than NOTICED
    promote   if neither is so

    `versions` says what each has done since the canary got its first request: `.requests`, `.failed` (answered with
    5xx) and `.percentile(99)`, in milliseconds, None if no answer has begun. Who has got no request is not in it.
    """
    tried = versions.get(canary, Counter())
    others = next((counter for version, counter in versions.items() if version != canary), Counter())
    if tried.requests < ENOUGH or others.requests < ENOUGH:
        return "wait"
    if tried.failed / tried.requests > others.failed / others.requests + TOLERANCE:
        return "abort"
    if is_slower(tried.percentile(99), others.percentile(99)):
        return "abort"
    return "promote"


def is_slower(tried: int | None, others: int | None) -> bool:
    """Tell whether a p99 is so much longer than the others' that people notice."""
    if tried is None or others is None:
        return False  # one of them has answered nothing: its failures have been looked at
    return tried > SLOWER * others and tried > others + NOTICED


# What follows is given.


def together(counters: list[Counter]) -> Counter:
    """Return what several versions have done, as if they were one."""
    total = Counter()
    for counter in counters:
        total.requests += counter.requests
        total.failed += counter.failed
        total.times += counter.times
    return total


def main() -> None:
    service = sys.argv[1]
    canary = state.load().canaries.get(service)
    if not canary:
        sys.exit(f"{service} has no canary: `./workshop canary {service} --weight 25` starts one.")
    counters, decision = Counters(supervisor.log_file("haproxy"), service, canary), "wait"
    while decision == "wait":
        time.sleep(INTERVAL)
        counters.update()
        seen = [f"{name}: {one.requests} requests, {one.failed} failed" for name, one in counters.versions.items()]
        print("; ".join(sorted(seen)), file=sys.stderr)
        decision = judge(dict(counters.versions), canary)
    print(decision)


if __name__ == "__main__":
    main()
