"""02: the probe's account agrees with that of a server that fails in a known way, and with HAProxy's log."""

import itertools
import json
import random
import secrets
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from workshop.counters import Log
from workshop.verdict import CannotCheck, Hop, Wrong, expect
from workshop.waiting import wait_until

RATE = 20  # requests a second, and
TIMEOUT = 2  # seconds, as the exercise says
SECONDS = 5  # that a server of ours is asked
# What it does, one after the other, and then answers: seconds at least, at most, so that nobody knows them before.
# All failures together last much longer than the longest of them.
PHASES = [
    ("answered", 0.6, 0.6),
    ("refused", 0.6, 0.8),
    ("answered", 0.5, 0.5),
    ("cut off", 0.2, 0.3),
    ("answered", 0.5, 0.5),
    ("left waiting", 1.2, 1.5),
]
RESTART_SECONDS = 8  # that the monolith is asked, which is restarted meanwhile: measured, that takes 4
ROOM = 5  # seconds for a probe to start, and to print, on a busy machine
LATE = 5  # answers that were good for the server, and too late for the probe, on a busy machine
LATE_REQUEST = 0.5  # seconds after a request is due; LATE requests may be that late, on a busy machine
CROWDED = 0.5 / RATE  # seconds between two requests: half of what the pace has
SLOW_ANSWER = 0.5  # seconds
SHOW_OUTAGE = "sed -n '/def longest_outage/,/^def session/p' work/02-feel-it/probe.py"
OUTAGE_TOLERANCE = 0.5  # seconds: what the server has sent, the probe knows later
RESTART_TOLERANCE = 1  # second: the log has no times, so an outage is estimated from what failed meanwhile


class Unreliable(ThreadingHTTPServer):
    """Fails in a known way, counted from the first request on."""

    daemon_threads = True
    request_queue_size = 128

    def __init__(self, phases: list[tuple[str, float, float]]):
        super().__init__(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server_port}/{secrets.token_hex(4)}"
        self.lengths = [(name, random.uniform(*limits)) for name, *limits in phases]  # noqa: S311 - no secret
        self.lock, self.is_over, self.started = threading.Lock(), threading.Event(), None
        self.arrived = Counter()  # what was done with a request → how many
        self.asked: list[float] = []  # when, by the clock of this process
        self.answered: list[float] = []  # and when this was

    def arrive(self) -> str:
        """Count a request, and return what is to be done with it."""
        with self.lock:
            now = time.monotonic()
            self.started = self.started or now
            ends = itertools.accumulate(length for _, length in self.lengths)
            phases = zip(ends, self.lengths, strict=True)
            done = next((name for end, (name, _) in phases if now < self.started + end), "answered")
            self.arrived[done] += 1
            self.asked.append(now)
        return done

    def late(self) -> int:
        """Return how many requests arrived much later than they were due."""
        return sum(at - self.started - number / RATE > LATE_REQUEST for number, at in enumerate(self.asked))

    def crowded(self) -> int:
        """Return how many requests arrived hard on the heels of the one before."""
        return sum(later - earlier < CROWDED for earlier, later in itertools.pairwise(self.asked))

    def longest_outage(self) -> float:
        times = [self.started, *sorted(self.answered), self.started + SECONDS]
        return max(later - earlier for earlier, later in itertools.pairwise(times))


class Handler(BaseHTTPRequestHandler):
    def do_GET(self):
        match self.server.arrive():
            case "answered":
                self.answer(200)
                self.server.answered.append(time.monotonic())
            case "refused":
                self.answer(503)
            case "not found":
                self.answer(404)
            case "answered late":
                time.sleep(SLOW_ANSWER)
                self.answer(200)
            case "left waiting":
                self.server.is_over.wait(60)
        # cut off: the connection is closed without a word.

    def answer(self, status: int) -> None:
        self.send_response_only(status)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def unreliable_server(phases: list[tuple[str, float, float]]):
    with Unreliable(phases) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.is_over.set()
            server.shutdown()
            thread.join()


def test_the_account_agrees_with_that_of_a_server_that_fails_in_a_known_way(learner, stage):
    show = f".venv/bin/python work/02-feel-it/probe.py {stage.url}/api/messages 3"
    with unreliable_server(PHASES) as server:
        program = learner.start("probe.py", server.url, str(SECONDS))
        account = account_of(program, SECONDS, show)
        sent, failed, outage = account["sent"], account["failed"], account["longest_outage"]
        wait_until(lambda: server.arrived.total() >= sent, ROOM)
    arrived, refused = server.arrived.total(), server.arrived["refused"]
    bad = arrived - server.arrived["answered"]
    silence = dict(server.lengths)["left waiting"]
    report = {"hop": Hop.CLIENT, "show": show, "log": program.output()}
    expect(
        arrived <= sent,
        "your probe asks more often than it says: something in it, or below it, repeats what has failed. So an outage "
        "looks smaller than it is, and the system gets more to do just then.",
        seen=f"{arrived} requests arrived, {sent} sent by its account",
        expected="as many",
        **report,
    )
    expect(
        arrived == sent,
        "your probe says that it has asked more often than it has: the rest never left it.",
        seen=f"{arrived} requests arrived, {sent} sent by its account",
        expected="as many",
        **report,
    )
    expect(
        server.arrived["left waiting"] >= RATE * silence / 2,
        "while nothing is answered, your probe does not ask: one request waits, and those that would have come "
        "meanwhile are missing in the account. This is called coordinated omission.",
        seen=f"{server.arrived['left waiting']} asked in the {silence:.1f} s in which nothing was answered",
        expected=f"about {RATE} a second, so {RATE * silence:.0f}",
        **report,
    )
    expect(
        abs(sent - RATE * SECONDS) <= RATE,
        f"your probe does not keep the pace of {RATE} requests a second.",
        seen=f"{sent} requests",
        expected=f"{RATE} × {SECONDS} s = {RATE * SECONDS}",
        **report,
    )
    expect(
        server.late() <= LATE,
        "your probe sends requests too late. Compute when each is due, and have a thread for each request that can be "
        "waiting: at least RATE × TIMEOUT.",
        seen=f"{server.late()} of {arrived} requests arrived more than {LATE_REQUEST} s after they were due",
        expected=f"request number n arrives n ÷ {RATE} s after the first one, while others are waiting, too",
        **report,
    )
    expect(
        server.crowded() <= arrived / 2,
        "your probe sends its requests in bursts. What happens between two bursts, it does not see. Wait before each "
        "request until it is due.",
        seen=f"{server.crowded()} of {arrived} requests arrived less than {CROWDED * 1000:.0f} ms after the one before",
        expected=f"one request each {1000 / RATE:.0f} ms",
        **report,
    )
    failures = f"{bad} failed: " + ", ".join(f"{n} {name}" for name, n in server.arrived.items() if name != "answered")
    expect(
        not refused - LATE <= bad - failed <= refused,
        "your probe takes a 503 for an answer. To who has asked it is a failure, be it sent as quickly and properly as "
        "it may.",
        seen=f"{failed} failed",
        expected=failures,
        **report,
    )
    expect(
        bad <= failed <= bad + LATE,
        "your probe does not count what has failed.",
        seen=f"{failed} failed",
        expected=failures,
        **report,
    )
    expect(
        abs(outage - server.longest_outage()) <= OUTAGE_TOLERANCE,
        "the longest outage is the longest time in which nobody got a good answer: not the sum of all, nor the time of "
        "one request.",
        seen=f"{outage:.2f} s",
        expected=f"{server.longest_outage():.2f} s",
        **report,
    )


def test_the_time_before_the_first_good_answer_and_after_the_last_counts(learner):
    probe = learner.load("probe.py")
    for times, which, wanted in (([3.0, 4.0], "before the first good answer", 3), ([1.0], "after the last one", 4)):
        outage = probe.longest_outage([probe.Answer(at, True) for at in times], 5.0)
        expect(
            isinstance(outage, int | float) and abs(outage - wanted) < 0.01,  # it may be rounded
            f"the time {which} is an outage, too: a probe that begins or ends in one would not see it.",
            hop=Hop.CODE,
            seen=f"{outage} s",
            expected=f"{wanted} s, of 5 s with good answers at {' and '.join(map(str, times))} s",
            show=SHOW_OUTAGE,
        )


def test_the_longest_outage_is_found_in_any_row_of_answers(learner):
    probe = learner.load("probe.py")
    in_disorder = (
        "your probe takes one slow answer for an outage, although others were served meanwhile. The answers can come "
        "in another order than the requests: sort them by time."
    )
    never = "when no answer is good, all the time is an outage. Return the whole duration then."
    for times, sentence, wanted in (([1.0, 4.0, 2.0, 3.0], in_disorder, 1), ([], never, 5)):
        outage = probe.longest_outage([probe.Answer(0.5, False), *(probe.Answer(at, True) for at in times)], 5.0)
        expect(
            isinstance(outage, int | float) and abs(outage - wanted) < 0.01,
            sentence,
            hop=Hop.CODE,
            seen=f"{outage} s",
            expected=f"{wanted} s, of 5 s with good answers at {', '.join(map(str, times)) or 'no time'}",
            show=SHOW_OUTAGE,
        )


def test_each_answer_is_judged_by_its_status_and_its_time(learner):
    probe = learner.load("probe.py")
    report = {"hop": Hop.CLIENT, "show": "sed -n '/^def ask/,/^def /p' work/02-feel-it/probe.py"}

    def asked(what_it_does: str):
        with unreliable_server([(what_it_does, TIMEOUT, TIMEOUT)]) as server:
            answer = probe.ask(server.url, time.monotonic())
        expect(
            isinstance(answer, probe.Answer),
            "`ask` does not return an Answer. Return one for each request, also for one that has failed.",
            seen=repr(answer),
            expected="Answer(at=…, is_good=…)",
            **report,
        )
        return answer

    expect(
        not asked("not found").is_good,
        "your probe takes a 404 for a good answer. Compare the status with 200: any other status is a failure.",
        seen="is_good=True for a 404",
        expected="is_good=False",
        **report,
    )
    slow = asked("answered late")
    expect(
        slow.is_good,
        f"your probe takes an answer for a failure that comes after {SLOW_ANSWER} s. Wait for {TIMEOUT} s.",
        seen=f"is_good=False for a 200 after {SLOW_ANSWER} s",
        expected="is_good=True",
        **report,
    )
    expect(
        slow.at >= SLOW_ANSWER,
        "`at` is when your probe sent the request, not when the answer came. So it does not see an outage in which all "
        "requests wait and are answered in the end. Read the clock after the answer.",
        seen=f"at={slow.at:.2f} for an answer that took {SLOW_ANSWER} s",
        expected=f"at={SLOW_ANSWER:.2f} or more",
        **report,
    )


@pytest.mark.timeout(60)
def test_a_restart_of_the_monolith_costs_what_haproxys_log_says(learner, stage):
    path = f"/api/users/{stage.user().id}"  # nobody else asks for somebody who is so new
    show = "./workshop logs haproxy"
    log, statuses = Log(stage.run_folder / "logs" / "haproxy.log"), []
    log.new_lines()

    def logged() -> int:
        statuses.extend(status for asked, status in map(read_line, log.new_lines()) if asked == path)
        return len(statuses)

    with as_before(stage):
        program = learner.start("probe.py", stage.url + path, str(RESTART_SECONDS))
        if not program.until(logged, TIMEOUT + ROOM):
            raise Wrong(
                "your probe does not ask for the address that it is given.",
                hop=Hop.CLIENT,
                seen="no request for it at the load balancer",
                expected=f"GET {stage.url}{path}",
                show=show,
                log=program.output(),
            )
        stage.run("restart", "monolith")
        account = account_of(program, RESTART_SECONDS, show)
    wait_until(lambda: logged() >= account["sent"], ROOM)
    bad = len(statuses) - statuses.count("200")
    if not bad:
        raise CannotCheck("the restart of the monolith has failed no request, so there was nothing to be measured.")
    report = {"hop": Hop.BALANCER, "show": show, "log": stage.log("haproxy")}
    expect(
        account["sent"] == len(statuses) and bad <= account["failed"] <= bad + LATE,
        "of a real restart your probe's account differs from that of the load balancer.",
        seen=f"{account['sent']} sent, {account['failed']} failed",
        expected=f"{len(statuses)} sent, {bad} failed",
        **report,
    )
    expect(
        abs(account["longest_outage"] - account["failed"] / RATE) <= RESTART_TOLERANCE,
        "a restart is one outage, as long as what has failed in it, one request after the other.",
        seen=f"{account['longest_outage']:.2f} s",
        expected=f"about {account['failed']} ÷ {RATE} a second = {account['failed'] / RATE:.1f} s",
        **report,
    )


def read_line(line: str) -> tuple[str, str]:
    """Return path and status of a line of HAProxy's log: client, frontend, backend, instance, status, time, ms, …"""
    words = line.split()
    return (words[8], words[4]) if len(words) > 8 else ("", "")


@contextmanager
def as_before(stage):
    """Have run what ran before: `restart` deploys the code as it is now, and may be interrupted half-way."""
    before = version(stage)
    try:
        yield
    except BaseException:  # the interrupt key too
        stage.run("start", "monolith")  # does nothing to what runs
        raise
    finally:
        if version(stage) != before:
            stage.run("upgrade", "monolith", "--to", before)


def version(stage) -> str:
    return next(service["version"] for service in stage.status()["services"] if service["name"] == "monolith")


def account_of(program, seconds: int, show: str) -> dict:
    """Wait until a probe has ended, and return what it has printed."""
    program.until(lambda: False, seconds + TIMEOUT + ROOM)  # its end comes first, or an exception
    lines = program.output().splitlines()
    report = {"hop": Hop.CLIENT, "show": show, "log": program.output()}
    expect(
        program.has_ended,
        "your probe does not end: it waits for an answer that never comes. Who asks over a network needs a time-out.",
        seen=f"it still runs {TIMEOUT + ROOM} s after its last request was due",
        expected=f"its account, {TIMEOUT} s after that at the latest",
        **report,
    )
    try:
        account = json.loads(lines[-1]) if lines else {}
    except ValueError:
        account = {}
    expect(
        isinstance(account, dict)
        and all(isinstance(account.get(key), int | float) for key in ("sent", "failed", "longest_outage")),
        "your probe does not print its account as JSON, in one line, at its end.",
        seen=lines[-1] if lines else "nothing",
        expected='{"sent": …, "failed": …, "longest_outage": …}',
        **report,
    )
    return account
