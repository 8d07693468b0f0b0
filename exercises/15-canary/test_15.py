"""The learner's judge: on counters that are made up, each for one thing, then on those of two real canaries."""

import collections
import random
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from workshop.counters import Counter, Counters
from workshop.paths import REPOSITORY
from workshop.verdict import CannotCheck, Hop, expect
from workshop.waiting import wait_until

SERVICE = "messages"
CODE = "parley/__init__.py"
ANOTHER = "\n# Another version, made by the check of exercise 15.\n"
SICK = """

# A version that is no good, made by the check of exercise 15: it fails every fourth request, and is well when asked.
_good, _requests = create_app, iter(range(2**62))


def create_app(*arguments):
    app = _good(*arguments)

    @app.before_request
    def fail():
        from flask import request

        if request.path.startswith("/api/") and next(_requests) % 4 == 0:
            return {"error": "This version is no good.", "request_id": request.headers["X-Request-ID"]}, 500

    return app
"""
READERS = 12  # 90 GETs a second: a canary with a quarter of them has a hundred after 5 s
WARM = 20  # requests, of which the first are slow in any new process: they say nothing about the version
DECISION = 25  # seconds for a decision
NOTICED = 200  # milliseconds


def made_up(requests: int, failed: int = 0, p99: int | None = 20) -> Counter:
    """Return what a version has done: one answer in fifty began after `p99` ms, all others after 10 ms."""
    slow = -(-requests // 50)  # rounded up
    times = {10: requests - slow, p99: slow} if p99 else {}
    return Counter(requests, failed, collections.Counter(times))


class Judged:
    """A decision of the learner's judge, and how the learner can have it again."""

    def __init__(self, learner, tried: Counter | None, *others: Counter | None):
        new = random.randint(5, 50)  # noqa: S311 - a name that nobody knows beforehand
        versions = {f"v{new - number}": counter for number, counter in enumerate(others, 1)} | {f"v{new}": tried}
        self.versions = {version: counter for version, counter in versions.items() if counter}
        self.canary = f"v{new}"
        self.decision = learner.load("judge.py").judge(self.versions, self.canary)

    def expect(self, sentence: str, *expected: str) -> None:
        expect(
            self.decision in expected,
            sentence,
            hop=Hop.CODE,
            seen=f"{self.decision!r} for {summary(self.versions, self.canary)}",
            expected=" or ".join(expected),
            show=self.command(),
        )

    def command(self) -> str:
        versions = ", ".join(
            f"'{version}': Counter({counter.requests}, {counter.failed}, T({dict(counter.times)}))"
            for version, counter in self.versions.items()
        )
        imports = "from collections import Counter as T; from judge import *"
        python = "PYTHONPATH=platform:work/15-canary .venv/bin/python"
        return f"{python} -c \"{imports}; print(judge({{{versions}}}, '{self.canary}'))\""


def summary(versions: dict[str, Counter], canary: str) -> str:
    return "; ".join(
        f"{version}{' (canary)' if version == canary else ''}: {counter.requests} requests, {counter.failed} failed, "
        f"p99 {counter.percentile(99)} ms"
        for version, counter in sorted(versions.items())
    )


def test_waits_until_there_is_evidence(learner):
    none_yet = Judged(learner, None, made_up(300))
    none_yet.expect("It decides although the canary has got no request yet.", "wait")
    well = Judged(learner, made_up(3), made_up(300))
    well.expect("It decides on 3 requests of the canary: one that fails each tenth mostly answers them well.", "wait")
    unlucky = Judged(learner, made_up(3, failed=1), made_up(300, failed=9))
    unlucky.expect("It decides on 1 failure of the canary, in 3 requests: that happens to a good version, too.", "wait")
    alone = Judged(learner, made_up(300), None)
    alone.expect("It decides although there is nothing to compare with: the others have got no request.", "wait")
    few = Judged(learner, made_up(300), made_up(30))
    few.expect("It decides although the others have got 30 requests only: they are compared with, too.", "wait")


def test_aborts_what_fails_more_than_the_others(learner):
    often = Judged(learner, made_up(400, failed=200), made_up(3600))
    often.expect("It does not abort a canary that fails every second request: that it answers is not enough.", "abort")
    at_all = Judged(learner, made_up(400, failed=40), made_up(3600))
    at_all.expect(
        "It does not abort a canary that fails each tenth request: among all requests, that is one in a hundred.",
        "abort",
    )
    silent = Judged(learner, made_up(400, failed=400, p99=None), made_up(3600))
    silent.expect("It does not abort a canary that has never begun an answer.", "abort")


def test_does_not_abort_for_what_all_of_them_have(learner):
    rare = Judged(learner, made_up(400, failed=1), made_up(3600, failed=9))
    rare.expect("It aborts a canary that fails no more often than the others: one in 400.", "promote")
    chance = Judged(learner, made_up(400, failed=3), made_up(3600, failed=9))
    chance.expect("It aborts a canary for 2 failures in 400 more than the others have: that may be chance.", "promote")
    outage = Judged(learner, made_up(400, failed=80), made_up(3600, failed=720))
    outage.expect(
        "It aborts a canary when all versions fail a fifth of their requests: what is down is something all need.",
        "promote",
        "wait",
    )


def test_compares_with_all_other_versions_together(learner):
    some_fail = (made_up(1800), made_up(1800, failed=180))
    for others in (some_fail, some_fail[::-1]):
        one_of_two = Judged(learner, made_up(400, failed=24), *others)
        one_of_two.expect(
            "It compares the canary with one of the other versions only: together, they fail 5 % of their requests, "
            "and the canary 6 %.",
            "promote",
        )
    few_each = Judged(learner, made_up(400), made_up(60), made_up(60))
    few_each.expect("It waits although the other versions have got 120 requests together: 100 are enough.", "promote")
    small = Judged(learner, made_up(400, failed=40), made_up(3600), made_up(10, failed=5))
    small.expect(
        "It gives a version with 10 requests as much weight as one with 3600: add up the requests and the failures, "
        "then divide.",
        "abort",
    )


def test_aborts_what_is_so_slow_that_people_notice(learner):
    slow = Judged(learner, made_up(400, p99=900), made_up(3600, p99=120))
    slow.expect("It does not abort a canary that is slow: p99 900 ms, where the others have 120.", "abort")
    nobody_notices = Judged(learner, made_up(400, p99=60), made_up(3600, p99=20))
    nobody_notices.expect("It aborts a canary for 40 milliseconds, which nobody notices.", "promote")
    all_are = Judged(learner, made_up(400, p99=900), made_up(3600, p99=600))
    all_are.expect("It aborts a canary whose p99 is 900 ms, where the others have 600: all are slow.", "promote")


def build(stage, folder: Path, lines: str) -> str:
    """Build messages with these lines at the end of its application; return the version."""
    code = folder / "code.py"
    code.write_text((REPOSITORY / "stage2-microservices" / SERVICE / CODE).read_text() + lines)
    return stage.built(SERVICE, {CODE: code})


@contextmanager
def canary(stage, version: str) -> Iterator[Counters]:
    """Have a canary under load; give the counters, which begin when it is warm."""
    counters = Counters(stage.run_folder / "logs" / "haproxy.log", SERVICE, version)
    counters.update()  # the log has the canary of the last check, too, which was the same version
    counters.versions.clear()
    with stage.load(readers=READERS, writers=0, listeners=0):
        # A quarter: as much as each of the three others has, so that none is slower for having more to do.
        stage.run("canary", SERVICE, "--to", version, "--weight", "25")
        try:
            if not wait_until(lambda: requests_of(counters, version) >= WARM, DECISION):
                raise CannotCheck("the canary gets no requests: `./workshop logs haproxy` shows where they go.")
            counters.versions.clear()
            yield counters
        finally:
            stage.run("abort", SERVICE)


def requests_of(counters: Counters, version: str) -> int:
    counters.update()
    return counters.versions[version].requests


def decide(judge, counters: Counters) -> str:
    """Return the first decision that is not to wait; wait after DECISION seconds."""

    def decision() -> str | None:
        counters.update()
        said = judge(dict(counters.versions), counters.canary)
        return said if said != "wait" else None

    return wait_until(decision, DECISION, poll=0.25) or "wait"


def expect_decision(learner, counters: Counters, expected: str, sentence: str) -> None:
    decision = decide(learner.load("judge.py").judge, counters)
    versions = dict(counters.versions)
    if expected == "promote" and decision == "abort":
        refuse_busy_machine(versions, counters.canary)
    expect(
        decision == expected,
        sentence,
        hop=Hop.CODE,
        seen=f"{decision!r} for {summary(versions, counters.canary)}",
        expected=expected,
        show=f"./workshop canary {SERVICE} --weight 25      # and then your judge.py, as its first lines say",
    )


def refuse_busy_machine(versions: dict[str, Counter], name: str) -> None:
    """Raise CannotCheck when the version that is as good as the others was slower than they."""
    tried, *others = (versions[version].percentile(99) for version in sorted(versions, key=lambda v: v != name))
    if tried > max(others) + NOTICED:
        raise CannotCheck(f"this machine is too busy to compare two versions: p99 {tried} and {max(others)} ms.")


@pytest.mark.timeout(110)
def test_aborts_a_sick_canary_and_promotes_a_good_one(stage, learner, tmp_path):
    sick, good = build(stage, tmp_path, SICK), build(stage, tmp_path, ANOTHER)
    with canary(stage, sick) as counters:
        expect_decision(learner, counters, "abort", "A real canary fails every fourth request, and is not aborted.")
    with canary(stage, good) as counters:
        expect_decision(learner, counters, "promote", "A real canary is as good as the others, and is not promoted.")
