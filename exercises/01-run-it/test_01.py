"""01: the answers are counted by instance, and a request is found in all logs that name it."""

import random
import re
import secrets
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import requests

from workshop.probe import session
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

TIMEOUT = 10  # seconds: longer than the system lets any request take
WORKER_TIMEOUT = 10  # seconds for a worker to look at a link; it takes one
PASSED_ON = ("Content-Type", "Server", "X-Request-ID", "X-Served-By")
LOGS = {
    "balancer": "12:00:01.000 balancer: in rotation: monolith_v1_{a}",
    "haproxy": "127.0.0.1 public monolith monolith_v1_{a} 201 7 ms POST /api/messages request_id={id} --",
    "monolith_v1_{a}": "2026-01-01 12:00:01,000 INFO monolith_v1_{a} {id} parley.logs: POST /api/messages 201 7.0 ms",
    # The IDs of other requests: a longer one, one that goes on after a hyphen, and one without the dot.
    "monolith_v1_{b}": "2026-01-01 12:00:02,000 INFO monolith_v1_{b} {id}0 parley.logs: GET /api/users 200 3.0 ms",
    "monolith_v1_{d}": "2026-01-01 12:00:02,000 INFO monolith_v1_{d} {id}-b parley.logs: GET /api/users 200 3.0 ms",
    "monolith_v1_{e}": "2026-01-01 12:00:02,000 INFO monolith_v1_{e} {other} parley.logs: GET /api/users 200 3.0 ms",
    "worker_v1_{c}": "2026-01-01 12:00:01,000 INFO worker_v1_{c} {id} parley.links: Expanded 1 links\n" * 2,
}


class Gate(ThreadingHTTPServer):
    """Stands before the load balancer: gives each request an id of ours, by which HAProxy's log names it."""

    daemon_threads = True

    def __init__(self, target: str):
        super().__init__(("127.0.0.1", 0), Passage)
        self.target, self.ids = target, []
        self.url = f"http://127.0.0.1:{self.server_port}"


class Passage(BaseHTTPRequestHandler):
    def do_GET(self):
        request_id = f"who-{secrets.token_hex(6)}"
        self.server.ids.append(request_id)
        try:
            with session() as http:
                target, headers = self.server.target + self.path, {"X-Request-ID": request_id}
                answer = http.get(target, headers=headers, timeout=TIMEOUT)
        except requests.RequestException as error:
            self.send_error(502, str(error))
            return
        self.send_response_only(answer.status_code)
        for name in PASSED_ON:
            if name in answer.headers:
                self.send_header(name, answer.headers[name])
        self.send_header("Content-Length", str(len(answer.content)))
        self.end_headers()
        self.wfile.write(answer.content)

    def log_message(self, *arguments):
        """Say nothing."""


@contextmanager
def gate_before(url: str):
    with Gate(url) as gate:
        thread = threading.Thread(target=gate.serve_forever)
        thread.start()
        try:
            yield gate
        finally:
            gate.shutdown()
            thread.join()


def test_the_answers_are_counted_by_the_instances_that_haproxy_has_asked(learner, stage):
    number = random.randint(12, 18)  # noqa: S311 - nobody shall know it before
    with gate_before(stage.url) as gate:
        counted = learner.load("who.py").shares(gate.url, number)
    show = f"curl -si '{stage.url}/api/messages?limit=1' | head"
    expect(
        len(gate.ids) == number,
        "`shares` does not ask as often as it was told to: who gives an answer, only that answer says, so each that is "
        "counted has to be asked for.",
        hop=Hop.CLIENT,
        seen=f"{len(gate.ids)} request{'s' * (len(gate.ids) != 1)}",
        expected=f"{number} requests",
        show="./workshop logs haproxy",
    )
    expect(
        isinstance(counted, dict),
        "`shares` returns no Counter, but is to say of each instance how many requests it has answered.",
        hop=Hop.CODE,
        seen=f"{counted!r:.100}",
        expected="Counter({name: answers, …})",
        show=show,
    )
    served = [stage.hops(request_id)[0].instance for request_id in gate.ids]
    truth = {name: served.count(name) for name in served}
    expect(
        counted == truth,
        "the answers are not counted by the instances that gave them. Only the load balancer knows whom it has asked, "
        "and it says so in a header of each answer.",
        hop=Hop.BALANCER,
        seen=in_words(counted),
        expected=in_words(truth),
        show=show,
        log=stage.log("haproxy"),
    )


def in_words(counted: dict) -> str:
    return ", ".join(f"{name} {answers}" for name, answers in sorted(counted.items(), key=str))


def test_the_trail_has_each_log_that_names_the_request_and_no_other(learner, tmp_path):
    request_id = f"class.{secrets.token_hex(2)}"
    words = {"id": request_id, "other": request_id.replace(".", "-")}
    words |= {name: secrets.token_hex(2) for name in "abcde"}
    for name, line in LOGS.items():
        (tmp_path / f"{name.format(**words)}.log").write_text(line.format(**words) + "\n")
    found = learner.load("who.py").trail(request_id, tmp_path)
    compare(found, tmp_path, request_id, f"grep {request_id} {tmp_path}/*.log")


def test_the_trail_leads_through_the_running_system(learner, stage):
    logs, request_id = stage.run_folder / "logs", f"class-{secrets.token_hex(4)}"
    posted = stage.user().post(
        "/api/messages",
        # A link is work for a worker. This one it will refuse: loopback is nothing to be shown to everybody.
        json={"source": "Who has had a hand in this? http://127.0.0.1:9/"},
        headers={"X-Request-ID": request_id},
    )
    posted.raise_for_status()
    # Later than 2 s after the message, on a busy machine, the worker does the work in its own name: then there are two.
    wait_until(lambda: len(named(request_id, logs)) == 3, WORKER_TIMEOUT)
    found = learner.load("who.py").trail(request_id, logs)
    compare(found, logs, request_id, f"grep -l {request_id} {logs}/*.log", stage.log("haproxy"))


def named(request_id: str, logs: Path) -> list[str]:
    """Return the names of the logs in which the id stands, whole."""
    whole = re.compile(rf"(?<![\w.-]){re.escape(request_id)}(?![\w.-])")
    return sorted(log.stem for log in logs.glob("*.log") if whole.search(log.read_text(errors="replace")))


def compare(found, logs: Path, request_id: str, show: str, log: str = "") -> None:
    truth = named(request_id, logs)
    expect(
        isinstance(found, list | tuple),
        "`trail` returns no list, but is to name the programs.",
        hop=Hop.CODE,
        seen=f"{found!r:.100}",
        expected=", ".join(truth),
        show=show,
    )
    names = [str(name) for name in found]
    expect(
        not any(name.endswith(".log") for name in names),
        "`trail` names files, and is to name programs: NAME of the file NAME.log, without its folder.",
        hop=Hop.CODE,
        seen=", ".join(sorted(names)),
        expected=", ".join(truth),
        show=show,
    )
    missing, strange = sorted(set(truth) - set(names)), sorted(set(names) - set(truth))
    report = {"seen": ", ".join(names) or "none", "expected": ", ".join(truth), "show": show, "log": log}
    expect(
        not missing,
        f"`trail` misses a log that names the request {request_id}. On its way it meets several programs, "
        "and each writes its own log.",
        hop=hop_of(missing),
        **report,
    )
    if strange:
        text = "".join(log.read_text(errors="replace") for log in logs.glob("*.log") if log.stem in strange)
        raise Wrong(why_strange(request_id, text), hop=hop_of(strange), **report)
    expect(
        len(names) == len(truth),
        "`trail` names a program twice. That its log names the request several times says nothing new.",
        hop=hop_of(names),
        **report,
    )
    expect(
        names == truth,
        "`trail` names the right programs in another order. Sort them by name, so that two runs can be compared.",
        hop=Hop.CODE,
        **report,
    )


def why_strange(request_id: str, text: str) -> str:
    """Return the mistake by which `trail` named logs of this text, none of which names the request."""
    if re.search(rf"{re.escape(request_id)}\w", text):
        return (
            f"`trail` names a log of another request. Look for the whole of {request_id}: it can be the beginning of "
            "another id."
        )
    if request_id in text:
        return (
            f"`trail` takes a part of another ID for {request_id}: that ID continues with a hyphen. A word boundary is "
            "not the end of an ID."
        )
    return f"`trail` names a log in which {request_id} does not occur. In a pattern, a dot matches every character."


def hop_of(programs: list[str]) -> Hop:
    """Return where on its way a request meets the first of these programs."""
    order = {"haproxy": Hop.BALANCER, "monolith": Hop.SERVICE, "worker": Hop.QUEUE}
    return next((hop for name, hop in order.items() if any(p.startswith(name) for p in programs)), Hop.CODE)
