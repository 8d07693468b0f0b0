"""A service in any language: what the platform asks of it, first without the platform, then beside the others."""

import contextlib
import errno
import json
import os
import re
import secrets
import shutil
import string
import threading
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import requests
from learner import Learner, Program

from workshop.exercises import shown
from workshop.ports import HOST, free_port
from workshop.probe import session
from workshop.processes import base_environment
from workshop.registry import PREFIX, covers
from workshop.stage import NAME, RESERVED
from workshop.verdict import CannotCheck, Hop, expect

PATH = "/api/words"
MESSAGES, LISTED = 100, 10  # what the README asks for
GIVE_UP = 6  # seconds: PATIENCE of the starters is 3, the rest is for a busy machine
WHILE_WAITING = 1.5  # seconds for /healthz, while another request still waits for PATIENCE
START = 10  # seconds for a program to start, in any language
TOO_EARLY = 1  # seconds for which it must not say that it can serve, while it cannot
ANSWER = 3  # seconds for an answer
STOP = 5  # seconds from SIGTERM to the end; then a sidecar sends SIGKILL
STOP_WORDS = ["the", "of", "and"]


@dataclass
class Service:
    """What service.toml says."""

    learner: Learner
    name: str
    routes: list[str]
    command: list[str]
    settings: dict[str, str]
    internal_url: str  # of the running stage, for commands that the learner pastes

    @property
    def code(self) -> str:
        """Return the file with the program, for the same."""
        files = [word for word in self.command if self.learner.path(word).is_file()]
        return shown(self.learner.path(files[-1] if files else "service.toml"))

    def start(self, application: "Application", stop_words: Path) -> "Instance":
        """Start the program without the platform."""
        port = free_port()
        place = {"HOST": HOST, "PORT": str(port)}
        told = place | {"SERVICE": self.name, "VERSION": "v7", "INSTANCE": f"{self.name}_v7_test"}
        told |= self.settings | {"INTERNAL_URL": application.url, "STOPWORDS": str(stop_words)}
        command = [string.Template(word).safe_substitute(place) for word in self.command]
        return Instance(self, self.learner.launch(command, self.learner.folder, **told), port, told)


@dataclass
class Instance:
    """A running program of the learner's."""

    service: Service
    program: Program
    port: int
    told: dict[str, str]

    def get(self, path: str, request_id: str | None = "check", timeout: float = ANSWER) -> requests.Response:
        with session() as http:
            headers = {"X-Request-ID": request_id, "Connection": "close"}  # None: the header is not sent
            return http.get(f"http://127.0.0.1:{self.port}{path}", headers=headers, timeout=timeout)

    def is_healthy(self) -> bool:
        try:
            return self.get("/healthz").status_code == 200
        except requests.RequestException:
            return False  # it does not listen yet, or does not answer yet

    def state(self) -> str:
        if self.program.has_ended:
            return f"it has ended, with status {self.program.status}"
        return f"it listens on {', '.join(self.program.listens_on()) or 'nothing'}"

    def last_lines(self) -> str:
        """Return what it has printed last, without Node.js's calls of its own: the error stands above them."""
        return "\n".join(line for line in self.program.output(30).splitlines() if not line.startswith("    at "))

    def expect(self, condition: object, sentence: str, *, seen: str, expected: str, show: str = "") -> None:
        """Raise Wrong, with the program's last lines, unless the condition is true."""
        told = self.told | self.service.settings | {"INTERNAL_URL": self.service.internal_url}
        told = " ".join(f"{name}={value}" for name, value in {"PATH": "../../.venv/bin:$PATH", **told}.items())
        by_hand = f"cd {shown(self.service.learner.folder)} && env {told} {' '.join(self.program.command)}"
        details = {"seen": seen, "expected": expected, "show": show or by_hand, "log": self.last_lines()}
        expect(condition, sentence, hop=Hop.SERVICE, **details)

    def expect_answer(
        self, path: str, status: int, body: dict, request_id: str = "check", sentence: str | None = None
    ) -> None:
        """Raise Wrong unless the program answers a path with this status and this JSON; its sentences are its own."""
        try:
            answer = self.get(path, request_id)
            kind, got = answer.headers.get("Content-Type", ""), answer.json()
            seen = f"{answer.status_code} {kind} {answer.text:.400}"
            if isinstance(got, dict) and got.get("error"):
                got["error"] = "…"
            is_right = (answer.status_code, kind.split(";")[0], got) == (status, "application/json", body)
        except requests.JSONDecodeError:
            seen, is_right = f"{answer.status_code} {kind} {answer.text:.400}", False
        except requests.RequestException as error:
            seen, is_right = f"{type(error).__name__}: {error}", False
        expected = f"{status} application/json {json.dumps(body):.400}"
        sentence = sentence or f"GET {path} is not answered as the README says."
        self.expect(is_right, sentence, seen=seen, expected=expected)


class Application:
    """Stands for the application: has messages, and notes what was asked, and with which request id."""

    def __init__(self, sources: list[str]):
        self.sources = sources
        self.asked: list[tuple[str, str | None]] = []
        self.is_away = False  # answers 503, as the load balancer does when a service has no instance
        self.may_answer = threading.Event()
        self.may_answer.set()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(handler) -> None:
                self.asked.append((handler.path, handler.headers.get("X-Request-ID")))
                limit = int(parse_qs(urlsplit(handler.path).query).get("limit", ["100"])[0])
                messages = [{"id": number, "source": source} for number, source in enumerate(sources[-limit:])]
                body = json.dumps({"error": "…"} if self.is_away else {"messages": messages, "_links": {}}).encode()
                self.may_answer.wait()
                handler.send_response(503 if self.is_away else 200)
                handler.send_header("Content-Length", str(len(body)))
                handler.end_headers()
                handler.wfile.write(body)

            def log_message(handler, *_arguments) -> None:
                """Say nothing."""

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"


@pytest.fixture
def application():
    """A hundred messages, and two that are too old to count; their words are other ones each time."""
    often, seldom, old = (made_up_word() for _ in range(3))
    newer = [f"The {often}, the <b>{often.upper()}</b> and the {seldom}2{seldom}!"] * 99 + [f"{often} of the {often}"]
    made = Application([f"{old} " * 500] * 2 + newer)
    threading.Thread(target=made.server.serve_forever, daemon=True).start()
    yield made
    made.may_answer.set()
    made.server.shutdown()
    made.server.server_close()


@pytest.fixture
def stop_words(tmp_path) -> Path:
    """A file with a few of them."""
    file = tmp_path / "stopwords.txt"
    file.write_text(" ".join(STOP_WORDS) + "\n")
    return file


@pytest.fixture
def service(learner, stage) -> Service:
    """The learner's service, as far as one can tell without starting it."""
    table = learner.toml("service.toml")
    name, routes, command, settings = (table.get(key) for key in ("name", "routes", "command", "settings"))
    is_usable = {
        "name": isinstance(name, str),
        "routes": is_list_of_texts(routes),
        "command": is_list_of_texts(command),
        "settings": isinstance(settings, dict) and learner.path(str(settings.get("STOPWORDS"))).is_file(),
    }
    where = {"hop": Hop.CODE, "show": f"cat {shown(learner.path('service.toml'))}"}
    for key, usable in is_usable.items():
        sentence = f"service.toml has no usable {key}: nobody would know how to run the service."
        expect(usable, sentence, seen=f"{key} = {table.get(key)!r}", expected="as in the starter", **where)
    searched = base_environment()["PATH"]
    is_own = "/" in command[0] and os.access(learner.path(command[0]), os.X_OK)
    is_there = is_own or shutil.which(command[0], path=searched)
    sentence = f"there is no program {command[0]!r}: the service cannot be started."
    expected = f"one in {searched.replace(':', ', ')}; or one of yours, such as ./words, that may be executed"
    expect(is_there, sentence, seen=f"command = {command}", expected=expected, **where)
    for word in command:
        if learner.path(word).is_file():
            with contextlib.suppress(UnicodeDecodeError):  # a compiled program
                learner.text(word)  # is a TODO left in it?
    settings = {key: str(value) for key, value in settings.items()}
    return Service(learner, name, routes, command, settings, stage.internal_url)


def test_its_name_and_its_routes_are_its_own(service, stage):
    others = {other["name"]: other["routes"] for other in stage.status()["services"]}
    expect(
        NAME.fullmatch(service.name) and service.name not in others and service.name not in RESERVED,
        f"the service cannot be called {service.name!r}: its instances would be mixed up with those of another.",
        hop=Hop.REGISTRY,
        seen=service.name,
        expected=f"letters, digits and hyphens, and none of {', '.join(others)}",
        show="./workshop status",
    )
    taken = [f"{theirs} of {name}" for name in others for theirs in others[name] if covers_any(service.routes, theirs)]
    expect(
        not taken,
        "a route is too wide: requests that others answer would go to your service.",
        hop=Hop.BALANCER,
        seen=f"{' '.join(service.routes)} covers {', '.join(taken)}",
        expected=f"{PATH} only",
        show="./workshop status",
    )
    expect(
        all(PREFIX.fullmatch(route) for route in service.routes) and covers_any(service.routes, PATH),
        f"whoever asks for {PATH} would not be sent to your service: no route of it covers that path.",
        hop=Hop.BALANCER,
        seen=f"routes = {service.routes}",
        expected=f'routes = ["{PATH}"]',
        show="./workshop status",
    )
    if stage.keys(f"/services/{service.name}/"):
        raise CannotCheck(
            f"a service {service.name} is registered already, by hand perhaps: end it, and take its keys away with "
            f"`{stage.etcdctl_remove(f'/services/{service.name}', recursive=True)}`."
        )


def test_it_can_serve_when_it_says_so_and_listens_where_it_is_told_to(service, application, tmp_path):
    """The list of stop words is a pipe here: reading it takes as long as we want."""
    pipe = tmp_path / "stopwords.txt"
    os.mkfifo(pipe)
    instance = service.start(application, pipe)
    program = instance.program
    found = program.until(lambda: opened_by_its_reader(pipe) or instance.is_healthy(), START)
    instance.expect(
        found or not program.has_ended,
        "the program ends when it has just been started.",
        seen=instance.state(),
        expected="it goes on until SIGTERM",
    )
    instance.expect(
        found,
        "the program does not read its list of stop words when it starts.",
        seen=instance.state(),
        expected="it opens the file that STOPWORDS names",
    )
    instance.expect(
        found is not True and not program.until(instance.is_healthy, TOO_EARLY),
        "/healthz says 200 before the stop words are read: requests would be sent to an instance that answers them "
        "wrongly.",
        seen="200, while nobody could have read the file to its end",
        expected="no answer, or another status, until the service can serve",
        show=f"grep -n -i -e healthz -e stop {service.code}",
    )
    with found as writer:
        writer.write(" ".join(STOP_WORDS))

    addresses = program.until(program.listens_on, START) or []
    port = f":{instance.port}"
    instance.expect(
        any(address.endswith(port) for address in addresses),
        "the program does not listen on the port that it is told: the sidecar asks for /healthz there, and a second "
        "instance needs another one.",
        seen=instance.state(),
        expected=f"it listens on 127.0.0.1{port}, since PORT is {instance.port}",
    )
    instance.expect(
        all(address.startswith("127.") for address in addresses),
        "the program listens to everybody: who is on the same network reaches it, past the load balancer.",
        seen=instance.state(),
        expected=f"127.0.0.1{port} only",
        show=f"grep -n -i listen {service.code}",
    )


def test_it_answers_in_json_and_passes_the_request_id_on(service, application, stop_words):
    instance = started(service, application, stop_words)
    who = {key.lower(): instance.told[key] for key in ("SERVICE", "VERSION", "INSTANCE")}
    instance.expect_answer("/healthz", 200, {"status": "ok"} | who)

    sent = f"check-{secrets.token_hex(4)}"
    instance.expect_answer(PATH, 200, {"words": most_used(application.sources[-MESSAGES:], STOP_WORDS)}, sent)
    asked, passed_on = application.asked[-1] if application.asked else ("nothing", None)
    instance.expect(
        passed_on == sent,
        "the request's id is not passed on: nobody finds in the logs what this request has caused elsewhere.",
        seen=f"the application was asked for {asked}, with X-Request-ID: {passed_on}",
        expected=f"X-Request-ID: {sent}, as the service was asked",
        show=f"grep -n -i request-id {service.code}",
    )
    instance.expect_answer(f"{PATH}/none", 404, {"error": "…", "request_id": sent}, sent)


def test_an_error_has_a_request_id_without_an_x_request_id(service, application, stop_words):
    instance = started(service, application, stop_words)
    answer = instance.get(f"{PATH}/none", request_id=None)
    instance.expect(
        re.search(r'"request_id": ?"[^"]+"', answer.text),
        "a request without an X-Request-ID gets an error without a request_id: make one up, so that the user who "
        "reports the error and your log name the same request.",
        seen=f"{answer.status_code} {answer.text:.200}",
        expected='404, and "request_id" with a new id',
        show=f"grep -n -i -e request-id -e requestid -e request_id {service.code}",
    )


def test_it_says_503_while_the_messages_are_away(service, application, stop_words):
    instance = started(service, application, stop_words)
    application.is_away = True
    instance.expect_answer(
        PATH,
        503,
        {"error": "…", "request_id": "check"},
        sentence="the messages are away, and the program does not say so: its callers take the answer for a result, "
        "or get none.",
    )


def test_it_waits_for_the_messages_with_a_limit_and_answers_others_meanwhile(service, application, stop_words):
    instance = started(service, application, stop_words)
    application.may_answer.clear()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(instance.get, PATH, timeout=GIVE_UP)
        instance.program.until(lambda: application.asked, ANSWER)
        try:
            meanwhile = f"{instance.get('/healthz', timeout=WHILE_WAITING).status_code}"
        except requests.RequestException as error:
            meanwhile = f"{type(error).__name__} within {WHILE_WAITING} s"
        instance.expect(
            meanwhile == "200",
            "the program does not answer /healthz while it waits for the messages: the load balancer takes an instance "
            "that only waits for one that is broken.",
            seen=meanwhile,
            expected=f"200 within {WHILE_WAITING} s",
            show=f"grep -n -i server {service.code}",
        )
        try:
            answer = f"{waiting.result().status_code}"
        except requests.RequestException as error:
            answer = f"{type(error).__name__}: no answer within {GIVE_UP} s"
    instance.expect(
        answer == "503",
        "the program waits without a limit for an application that does not answer: each such request keeps a "
        "connection, until none is left.",
        seen=answer,
        expected="503 after PATIENCE",
        show=f"grep -n -i patience {service.code}",
    )


def test_it_ends_at_sigterm(service, application, stop_words):
    instance = service.start(application, stop_words)
    instance.program.until(instance.is_healthy, START)
    instance.program.stop(STOP)
    instance.expect(
        not instance.program.was_killed,
        f"the program does not end at SIGTERM: each stop would take {STOP} s, and then it is killed.",
        seen=f"it was still there after {STOP} s",
        expected="an end within a second",
        show=f"grep -n -i sigterm {service.code}",
    )


@pytest.mark.timeout(45)  # two instances start, and end
def test_beside_the_others_two_instances_take_turns(service, stage, work):
    stop_words = (work / service.settings["STOPWORDS"]).read_text().split()
    joined = stage.joined(
        service.name, service.command, work, service.routes, instances=2, environment=service.settings
    )
    with joined as names:
        person = stage.user()
        person.say(f"{made_up_word()} " * 50)
        sent, seen = [], []

        def is_right() -> bool:
            sent.append(f"check-{secrets.token_hex(4)}")
            sources = [message["source"] for message in person.get("/api/messages").json()["messages"]]
            answer = person.get(PATH, headers={"X-Request-ID": sent[-1]})
            seen.append(f"{answer.status_code} from {answer.headers.get('X-Served-By')}: {answer.text:.200}")
            return answer.ok and answer.json() == {"words": most_used(sources, stop_words)}

        # Should somebody post just between the two requests of one look, the next one is as good.
        are_right = all(is_right() or is_right() for _ in 2 * names)
        expect(
            are_right and all(name in " ".join(seen) for name in names),
            f"through the load balancer, {PATH} is not answered by both instances as it is without it.",
            hop=Hop.BALANCER,
            seen="\n".join(seen),
            expected=f"the right words, by {' and by '.join(names)}",
            show=f"curl -si {stage.url}{PATH}",
            log=stage.log("haproxy"),
        )
        way = [hop.backend for hop in stage.hops(sent[-1])]  # who has answered first comes first
        expect(
            way == ["messages", service.name],
            "the load balancer's log does not show one request with one call in it.",
            hop=Hop.BALANCER,
            seen=" ← ".join(way),
            expected=f"messages ← {service.name}",
            show=f"./workshop logs haproxy | grep {sent[-1]}",
            log=stage.log("haproxy"),
        )


def started(service: Service, application: Application, stop_words: Path) -> Instance:
    """Return a program that answers GET /healthz with 200."""
    instance = service.start(application, stop_words)
    instance.expect(
        instance.program.until(instance.is_healthy, START),
        "GET /healthz is not answered with 200: the sidecar would never register the instance.",
        seen=instance.state(),
        expected="200",
    )
    return instance


def opened_by_its_reader(pipe: Path):
    """Return the end of a pipe to write to; None until somebody has opened it to read."""
    try:
        return os.fdopen(os.open(pipe, os.O_WRONLY | os.O_NONBLOCK), "w")
    except OSError as error:
        if error.errno != errno.ENXIO:  # no reader
            raise
        return None


def most_used(sources: list[str], stop_words: list[str]) -> list[dict]:
    counts = Counter(word for source in sources for word in re.findall("[a-z]+", source.lower()))
    for word in stop_words:
        del counts[word]
    ranked = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return [{"word": word, "count": count} for word, count in ranked[:LISTED]]


def made_up_word() -> str:
    """Return a word that nobody has used before."""
    return "q" + "".join(secrets.choice(string.ascii_lowercase) for _ in range(9))


def covers_any(routes: list[str], path: str) -> bool:
    return any(covers(route, path) for route in routes)


def is_list_of_texts(value: object) -> bool:
    return isinstance(value, list) and bool(value) and all(isinstance(word, str) for word in value)
