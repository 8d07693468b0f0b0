"""The ui beside the monolith: a process with the page and nothing else, and the routes that lead to it."""

import contextlib
import signal
import string
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest
import requests
from learner import Program

from workshop.exercises import shown
from workshop.ports import HOST, free_port
from workshop.probe import session
from workshop.registry import PREFIX, owner
from workshop.verdict import CannotCheck, Hop, expect
from workshop.waiting import wait_until

START = 15  # seconds for gunicorn to start, and to answer
ANSWER = 10  # seconds: longer than the system lets any request take
STOP = 15  # seconds from SIGTERM to the end of gunicorn, on a busy machine; measured: 0.3
IN_FORCE = 5  # seconds for a route to reach the load balancer's map; measured: 0.02
API = ["/api/users", "/api/tokens", "/api/messages", "/socket.io/?EIO=4&transport=polling"]  # is the monolith's
PAGE = ["/", "/static/main.js", "/static/style.css", "/static/lib/socket.io.js"]  # is to be the ui's
REQUEST_ID = "ui-of-the-check"
HEADERS = ["Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"]


@pytest.fixture
def monolith(stage) -> Path:
    """The folder of the monolith's build: the code that the ui is a part of."""
    return stage.run_folder / "builds" / "monolith" / stage.up.versions["monolith"]


@pytest.fixture
def command(learner) -> list[str]:
    """How the learner starts an instance."""
    found = learner.toml("service.toml").get("command")
    expect(
        isinstance(found, list) and found and all(isinstance(word, str) for word in found),
        "service.toml says no command: nobody would know how to start the service.",
        hop=Hop.CODE,
        seen=f"command = {found!r}",
        expected="a list of texts",
        show=f"cat {shown(learner.path('service.toml'))}",
    )
    return found


@pytest.fixture
def environment(monolith) -> dict[str, str]:
    """What an instance is told. As yet the code is where the monolith has it."""
    return {"PYTHONPATH": str(monolith), "PYTHONDONTWRITEBYTECODE": "1"}


def test_the_routes_can_be_followed(learner, stage):
    routes = learner.toml("service.toml").get("routes", {})
    known = isinstance(routes, dict) and all(name in ("ui", "monolith") for name in routes.values())
    expect(
        known and all(PREFIX.fullmatch(prefix) for prefix in routes) and routes.get("/") == "ui",
        "these routes lead to nobody, or nothing leads to ui.",
        hop=Hop.CODE,
        seen=f"routes = {routes}",
        expected='"/" = "ui", and other prefixes, each of them "ui" or "monolith"',
        show=f"cat {shown(learner.path('service.toml'))}",
    )
    if stage.keys("/services/ui/"):
        raise CannotCheck(
            "a service ui is registered already, by hand perhaps: `./workshop route / monolith`, end it, and take its "
            f"keys away with `{stage.etcdctl_remove('/services/ui', recursive=True)}`."
        )


@pytest.mark.timeout(45)
def test_a_process_answers_the_page_and_nothing_else(learner, stage, command, environment, monolith):
    port = free_port()
    place = {"HOST": HOST, "PORT": str(port)}
    told = environment | place | {"SERVICE": "ui", "VERSION": "v1", "INSTANCE": "ui_v1_test"}
    words = [string.Template(word).safe_substitute(place) for word in command]
    program = learner.launch(words, learner.folder, **told)
    ui, show = f"http://{HOST}:{port}", f"sed -n '/def create_app/,$p' {shown(learner.path('ui.py'))}"

    def wrong_unless(condition: object, sentence: str, seen: object, expected: object, show: str = show) -> None:
        details = {"seen": f"{seen:.300}", "expected": f"{expected:.300}", "show": show, "log": program.output()}
        expect(condition, sentence, hop=Hop.SERVICE, **details)

    wrong_unless(
        program.until(lambda: has_answered(ui), START),
        "ui does not start, or does not listen where it is told to.",
        listening(program),
        f"it listens on {HOST}:{port}, since $HOST is {HOST}, and $PORT {port}",
    )
    service_toml = f"cat {shown(learner.path('service.toml'))}"
    wrong_unless(
        program.listens_on() == [f"{HOST}:{port}"],
        "ui can be reached without the load balancer, from every machine in the network. Bind it to $HOST.",
        listening(program),
        f"it listens on {HOST}:{port} alone, since $HOST is {HOST}",
        show=service_toml,
    )
    health = get(f"{ui}/healthz")
    wrong_unless(
        health.status_code == 200,
        "GET /healthz is not answered with 200: the sidecar would never register ui, and nobody would be sent to it.",
        f"GET /healthz: {health.status_code} {health.text}",
        "200, as the monolith answers it",
    )
    wrong_unless(
        '"ui"' in health.text and '"ui_v1_test"' in health.text,
        "ui does not say its own name, neither in its health nor in its log. Take SERVICE, VERSION and INSTANCE from "
        "the environment.",
        f"GET /healthz: {health.text.strip()}",
        "service ui, instance ui_v1_test",
    )
    page, theirs = get(f"{ui}/"), get(f"{stage.url}/")
    wrong_unless(
        (page.status_code, page.text) == (200, theirs.text),
        "the page is another one than the monolith's: a move changes nothing for those who look.",
        f"GET /: {page.status_code} {page.text}",
        "the same, byte for byte",
    )
    static = monolith / "parley" / "ui" / "static"
    for file in sorted(path for path in static.rglob("*") if path.is_file() and "__pycache__" not in path.parts):
        path = f"/static/{file.relative_to(static)}"
        answer = get(ui + path)
        wrong_unless(
            (answer.status_code, answer.content) == (200, file.read_bytes()),
            "the page is there, and what it loads is not: a browser would show a page on which nothing works.",
            f"GET {path}: {answer.status_code}",
            "200, and the monolith's file",
        )
    missing = [header for header in HEADERS if page.headers.get(header) != theirs.headers[header]]
    wrong_unless(
        not missing,
        "the page is not as safe as it was: the browser is no longer told what it may load.",
        f"GET /: no {', '.join(missing)}, or another one",
        "; ".join(f"{header}: {theirs.headers[header]}" for header in missing),
    )
    wider = [path for path in API[:3] if get(ui + path).status_code != 404]
    wrong_unless(
        not wider,
        "ui answers more than the page: it is still a monolith, under another name.",
        ", ".join(f"GET {path}: {get(ui + path).status_code}" for path in wider),
        "404",
    )
    nothing = get(f"{ui}/nothing", {"X-Request-ID": REQUEST_ID})
    wrong_unless(
        nothing.status_code == 404 and nothing.headers["Content-Type"] == "application/json",
        "who asks for an address that nobody has gets another answer than before: since ui has `/`, it answers these.",
        f"GET /nothing: {nothing.status_code} {nothing.headers['Content-Type']}",
        "404 application/json",
    )
    wrong_unless(
        nothing.json().get("request_id") == REQUEST_ID and REQUEST_ID in program.output(),
        "ui does not say which request it has answered, neither in its log nor in its failures: nobody finds what "
        "the load balancer has sent it.",
        f"X-Request-ID: {REQUEST_ID} was answered with {nothing.text.strip()}",
        f"that id in the answer, and in a line of ui's log, as the monolith has it: {monolith / 'parley' / 'logs.py'}",
    )
    program.signal(signal.SIGTERM)
    wrong_unless(
        wait_until(lambda: not has_answered(ui), STOP) and program.wait(STOP) is not None,
        "The process that the sidecar starts does not pass SIGTERM on to gunicorn, which goes on. Start gunicorn "
        "itself, without a shell around it.",
        f"after SIGTERM to the process of `command`, {ui} still answers",
        "SIGTERM reaches gunicorn, which finishes its requests and ends",
        show=service_toml,
    )


def test_the_page_moves_and_nothing_else(learner, stage, command, environment, work):
    routes = learner.toml("service.toml")["routes"]
    table = {"/": "monolith"} | routes
    with stage.joined("ui", command, work, [], environment=environment), no_routes(stage, routes):
        for prefix, service in routes.items():
            stage.etcd.set_route(prefix, service)
            wait_until_in_force(stage, prefix, service)
            for path in API:
                served_by, ends_there = who_answers(stage, path), owner(table, path.split("?")[0]) == "monolith"
                for_a_moment = "for a moment: when `/` moves, that path is not the monolith's own yet."
                for_ever = "which it does not know: `/` fits every path of which no longer prefix says who answers."
                expect(
                    served_by.startswith("monolith_"),
                    f"ui is asked for {path.split('?')[0]}, {for_a_moment if ends_there else for_ever}",
                    hop=Hop.BALANCER,
                    seen=f'after "{prefix}" = "{service}", GET {path}: answered by {served_by}',
                    expected="an instance of the monolith, at each moment",
                    show="./workshop logs haproxy",
                    log=stage.log("haproxy"),
                )
        for path in PAGE:
            served_by = who_answers(stage, path)
            expect(
                served_by.startswith("ui_"),
                f"{path} is not ui's: the page has not moved entirely.",
                hop=Hop.BALANCER,
                seen=f"GET {path}: answered by {served_by}",
                expected="the instance of ui",
                show="./workshop logs haproxy",
                log=stage.log("haproxy"),
            )


@contextlib.contextmanager
def no_routes(stage, prefixes: Iterable[str]) -> Iterator[None]:
    """Begin without a route that somebody has set by hand; end with these again, and without those of `prefixes`."""
    before, answered = stage.etcd.snapshot().routes, stage.haproxy.routes()
    for prefix in before:
        stage.etcd.remove_route(prefix)
    try:
        yield
    finally:
        for prefix in reversed([*prefixes]):  # as they came, the other way round
            stage.etcd.remove_route(prefix)
        for prefix, service in before.items():
            stage.etcd.set_route(prefix, service)
        if not wait_until(lambda: stage.haproxy.routes() == answered, IN_FORCE):
            raise CannotCheck("the load balancer does not take the routes back: see `./workshop logs balancer`.")


def wait_until_in_force(stage, prefix: str, service: str) -> None:
    key = prefix.rstrip("/") or "/"  # the load balancer makes no difference between /api and /api/
    if not wait_until(lambda: stage.haproxy.routes().get(key) == service, IN_FORCE):
        raise CannotCheck(f"the load balancer does not follow the route of {prefix}: see `./workshop logs balancer`.")


def who_answers(stage, path: str) -> str:
    """Return the instance that answers a path, on a connection of its own."""
    answer = get(stage.url + path)
    return answer.headers.get("X-Served-By") or f"nobody ({answer.status_code})"


def get(url: str, headers: dict[str, str] | None = None) -> requests.Response:
    with session() as http:
        return http.get(url, headers={"Connection": "close"} | (headers or {}), timeout=ANSWER)


def has_answered(url: str) -> bool:
    try:
        return bool(get(f"{url}/healthz").status_code)
    except requests.RequestException:
        return False  # it does not listen yet, or its worker has not started


def listening(program: Program) -> str:
    if program.has_ended:
        return f"it has ended, with status {program.status}"
    return f"it listens on {', '.join(program.listens_on()) or 'nothing'}"
