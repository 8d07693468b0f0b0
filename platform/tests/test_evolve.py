"""A stage that runs becomes the next one while people write, step by step, each of which can be undone."""

import itertools
import json
import os
import re
import signal
import sqlite3
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import pytest
from contract.conftest import EXPANDED_WITHIN, Client, Site, bearer, serving
from contract.test_page import LOST, Visitor, browser
from playwright.sync_api import expect
from sqlalchemy import text
from tests.load import assert_flawless, summary
from tests.terminal import Terminal
from tests.workshops import REPOSITORY

from workshop import evolution
from workshop.probe import Probe
from workshop.routing import HOLD
from workshop.waiting import wait_until

__all__ = ["browser"]  # a fixture, which the contract's tests have as well

USERS, MESSAGES = 200, 5000
POSTERS = Path(__file__).with_name("socketio_posters.py")
STEPS = {"stage1": evolution.between("stage0").steps, "stage2": evolution.between("stage1").steps}
STEP_TIMEOUT = 40  # seconds
REFUSED_WITHIN = 2  # seconds for a token that was revoked
NAMED = 3  # requests that a failure names


@pytest.fixture
def stage0(workshop, pytestconfig):
    """A stage 0, whatever the command line says: here is where the way begins."""
    workshop.db = pytestconfig.getoption("db")
    workshop.up()
    return workshop


@pytest.fixture
def stage1(workshop, pytestconfig):
    """A stage 1, where the second half begins."""
    workshop.stage, workshop.db = "stage1", pytestconfig.getoption("db")
    workshop.up()
    return workshop


def fill(workshop) -> tuple[list[int], list[tuple]]:
    """Fill the monolith's database, which takes no requests for it; return the users' ids, and the messages."""
    now = int(time.time())
    users = [{"nickname": f"user {n}", "now": now, "online": False} for n in range(1, USERS + 1)]
    with workshop.database("monolith") as engine, engine.begin() as connection:
        insert = "INSERT INTO users (nickname, password_hash, created_at, updated_at, last_seen_at, online)"
        connection.execute(text(f"{insert} VALUES (:nickname, 'none', :now, :now, :now, :online)"), users)
        ids = list(connection.execute(text("SELECT id FROM users ORDER BY id")).scalars())
        messages = [{"source": f"message {n}", "now": now, "user": ids[n % USERS]} for n in range(MESSAGES)]
        insert = "INSERT INTO messages (source, html, created_at, updated_at, user_id)"
        connection.execute(text(f"{insert} VALUES (:source, '', :now, :now, :user)"), messages)
    return ids, rows_of(workshop, "monolith")


def rows_of(workshop, service: str) -> list[tuple]:
    """Return the messages that a service has stored."""
    with workshop.database(service) as engine, engine.begin() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT id, source, user_id FROM messages ORDER BY id"))]


@dataclass(frozen=True)
class Wait:
    """Somebody who waited for an answer."""

    at: float  # seconds on the monotonic clock, which processes share
    took: float  # seconds
    name: str


class Posters:
    """The people who post through Socket.IO, in a process of their own."""

    def __init__(self, url: str):
        self.user = Client(url).register()
        command = [sys.executable, POSTERS, url, self.user.token]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"

    def __enter__(self) -> "Posters":
        return self

    def __exit__(self, *exception) -> None:
        out, _ = self.process.communicate(timeout=30)
        self.lines = [line.split("\t") for line in out.splitlines()]
        self.user.http.close()

    @property
    def refused(self) -> list[str]:
        return [answer for _, answer, *_ in self.lines if not answer.isdigit()]

    @property
    def repeats(self) -> int:
        return sum(int(times) - 1 for _, _, times, _, _ in self.lines)

    @property
    def waits(self) -> list[Wait]:
        """How long each message waited for its acknowledgement."""
        return [Wait(float(at), float(took), source) for source, _, _, at, took in self.lines]


def one_step(workshop, target: str) -> str:
    """Go one step as an instructor does: press a key, and leave it at the next pause; return what was shown."""
    terminal = Terminal(workshop, "evolve", target)
    assert terminal.read_until("Any key"), terminal.seen
    terminal.press(" ")
    if terminal.read_until("Any key"):
        terminal.press("\x03")
        terminal.read_until("nothing more")
    terminal.end()
    assert "Error" not in terminal.seen, terminal.seen
    return terminal.seen


class Tokens:
    """Somebody who signs in and out all the way, and stays signed in or out whatever is moved meanwhile."""

    def __init__(self, url: str):
        self.client = Client(url).register()
        self.kept = self.client.token
        self.revoked: list[str] = []

    def check(self, until) -> None:
        self.revoked.append(self.client.sign_in())
        assert self.client.delete("/api/tokens").status_code == 204
        assert self.client.get("/api/messages?limit=1", headers=bearer(self.kept)).status_code == 200
        until(lambda: all(self.is_refused(token) for token in self.revoked), REFUSED_WITHIN, "tokens are refused")

    def is_refused(self, token: str) -> bool:
        paths = ("/api/messages?limit=1", "/api/users?ids=1")
        statuses = [self.client.get(path, headers=bearer(token)).status_code for path in paths]
        return [*statuses, self.client.delete("/api/tokens?all=no", headers=bearer(token)).status_code] == [401] * 3


@pytest.mark.timeout(900)  # in containers, since an image is made at each step; as processes it takes two minutes
def test_a_running_monolith_becomes_five_services_and_every_step_can_be_undone(stage0, print_figure, until):
    stage0.run("scale", "monolith=2", "worker=2")
    users, messages = fill(stage0)
    shown, moving, url = [], [], stage0.url
    tokens = Tokens(url)
    with Probe(url) as probe, Posters(url) as posters:
        started = time.monotonic()
        for target, steps in STEPS.items():
            for step in steps:
                begun = time.monotonic()
                shown.append(one_step(stage0, target))
                shown.append(stage0.run("evolve", "--back", "--yes").stdout)
                tokens.check(until)
                shown.append(one_step(stage0, target))
                tokens.check(until)
                if step.rows:
                    moving.append((begun, time.monotonic()))
        took = time.monotonic() - started
    ledger, holds = probe.ledger, [float(words) / 1000 for part in shown for words in held(part)]
    posts = [Wait(probe.started + a.at, a.took, f"POST {a.request_id}") for a in ledger.of("POST")]
    post, event = longest(posts), longest(posters.waits)
    unheld = longest(w for w in posts + posters.waits if not any(begun <= w.at <= end for begun, end in moving))
    print_figure(
        f"stage 0 → 2, each step undone and done again, {took:.0f} s: {summary(ledger)}; listeners reconnected "
        f"{ledger.reconnects} times; through Socket.IO {len(posters.lines)} messages, {posters.repeats} sent again; "
        f"writes were held {len(holds)} times, for {1000 * max(holds):.0f} ms at most; the slowest POST took "
        f"{1000 * post.took:.0f} ms, the slowest event {1000 * event.took:.0f} ms, and while no rows moved either of "
        f"them {1000 * unheld.took:.0f} ms"
    )
    assert_flawless(ledger)
    assert len(holds) == 3 * len(moving)  # done, undone and done again
    assert max(holds) < HOLD
    # What was held joins a queue then, as long as those that there are while nothing is held, on the same machine.
    assert max(post.took, event.took) < HOLD + unheld.took, slowest(posts, posters.waits, stage0, started)
    assert posters.refused == []
    status = stage0.status()
    assert status["stage"] == "stage2"
    assert [service["name"] for service in status["services"]] == ["ui", "tokens", "users", "messages", "socketio"]
    assert not [name for name in stage0.names() if "celery" in name or "monolith" in name]
    with stage0.database("users") as engine, engine.begin() as connection:
        assert set(users) <= set(connection.execute(text("SELECT id FROM users")).scalars())
    rows = rows_of(stage0, "messages")
    assert rows[: len(messages)] == messages
    posted = {source: id_ for id_, source, _ in rows}
    assert len(posted) == len(rows)
    assert {source: int(id_) for source, id_, *_ in posters.lines}.items() <= posted.items()


def held(shown: str) -> list[str]:
    """Return for how many milliseconds writes were held, from what evolve has shown."""
    return [words.split()[0] for words in shown.split("writes were held for ")[1:]]


def longest(waits: Iterable[Wait]) -> Wait:
    return max(waits, key=lambda wait: wait.took)


def slowest(posts: list[Wait], events: list[Wait], workshop, started: float) -> str:
    """Name what took longest, and what HAProxy logged of it; an event has become a call with an id of its own."""
    log = (workshop.run_folder / "logs" / "haproxy.log").read_text(errors="replace").splitlines()
    logged = {found[1]: line for line in log if (found := re.search(r"request_id=(\S+)", line))}
    calls = [line for line in log if " internal " in line and "POST /internal/messages" in line]
    calls.sort(key=lambda line: sum(int(time) for time in re.findall(r"(-?\d+) ms", line)))
    named = [
        f"{wait.name}: {wait.took:.3f} s, {wait.at - started:.1f} s after the start: "
        f"{logged.get(wait.name.removeprefix('POST '), 'one of the calls below')}"
        for waits in (posts, events)
        for wait in sorted(waits, key=lambda wait: wait.took)[-NAMED:]
    ]
    return "\n".join([*named, "the slowest calls of events:", *calls[-NAMED:]])


# For each step when `evolve` is killed: at this text or, where that says little of the middle, at this moment.
HELD, BEGUN = "while writes are held", "as soon as it has begun"
MIDDLES = {
    "stage1": ["starting tokens", "serves", "revocations", "/ → ui", "serves"],
    "stage2": ["starting socketio", HELD, HELD, BEGUN],
}


def test_evolve_is_killed_in_the_middle_of_every_step_and_done_again_or_undone(stage0, print_figure):
    done_then = itertools.cycle(["done again", "undone"])
    with Probe(stage0.url) as probe:
        for target, middles in MIDDLES.items():
            assert len(middles) == len(STEPS[target])
            for middle, then in zip(middles, done_then, strict=False):
                kill_in_the_middle(stage0, target, middle)
                assert "a further one has begun" in stage0.status()["on_the_way"]
                probe.run_for(HOLD + 0.5 if middle == HELD else 0.5)
                if then == "undone":
                    stage0.run("evolve", "--back", "--yes")
                one_step(stage0, target)
    longest = max(answer.took for answer in probe.ledger.of("POST"))
    print_figure(
        f"evolve killed in each of {sum(map(len, MIDDLES.values()))} steps: {summary(probe.ledger)}; the slowest POST "
        f"took {longest:.1f} s"
    )
    assert_flawless(probe.ledger)
    assert HOLD / 2 < longest < HOLD + 1  # somebody had to wait until the hold was over by itself
    assert stage0.status()["stage"] == "stage2"


def kill_in_the_middle(workshop, target: str, middle: str) -> None:
    terminal = Terminal(workshop, "evolve", target)
    assert terminal.read_until("Any key"), terminal.seen
    terminal.press(" ")
    if middle in (HELD, BEGUN):
        threading.Thread(target=terminal.read_until, args=("nothing more",), daemon=True).start()
        wait_until_held(workshop) if middle == HELD else wait_until_begun(workshop)
    else:
        assert terminal.read_until(middle), terminal.seen
    terminal.process.send_signal(signal.SIGKILL)
    terminal.end()


def wait_until_held(workshop) -> None:
    holds = workshop.run_folder / "haproxy" / "holds.map"
    assert wait_until(holds.read_text, STEP_TIMEOUT, poll=0.002)


def wait_until_begun(workshop) -> None:
    state = workshop.run_folder / "stage.json"
    assert wait_until(lambda: json.loads(state.read_text())["has_begun"], STEP_TIMEOUT)


@pytest.fixture
def before_messages(stage1):
    """A system on its way to stage 2, one step before its messages move; there are some."""
    fill(stage1)
    one_step(stage1, "stage2")
    return stage1


def test_rows_that_differ_are_named_and_stay_where_they_are(before_messages, print_figure):
    """Whoever writes into the new database spoils the copy: here a trigger does."""
    workshop = before_messages
    one_step(workshop, "stage2")
    workshop.run("evolve", "--back", "--yes")
    spoil = "CREATE TRIGGER spoil AFTER INSERT ON messages WHEN NEW.source = 'spoil me' BEGIN {} END"
    update = "UPDATE messages SET source = 'spoiled' WHERE id = NEW.id;"
    with sqlite3.connect(workshop.run_folder / "data" / "messages.db") as database:
        database.execute(spoil.format(update))
    ann = Client(workshop.url).register()
    message = ann.say("spoil me")
    with Probe(workshop.url) as probe:
        refused = workshop.run("evolve", "stage2", "--yes", expect=1).stderr
        assert ann.read(message["id"])["source"] == "spoil me"
        with sqlite3.connect(workshop.run_folder / "data" / "messages.db") as database:
            database.execute("DROP TRIGGER spoil")
        workshop.run("evolve", "stage2", "--yes")
        assert ann.read(message["id"])["source"] == "spoil me"
    print_figure(f"a comparison that failed, and was done again: {summary(probe.ledger)}")
    assert f"different: {message['id']}\n" in refused
    assert_flawless(probe.ledger)


# What happens to `evolve` while it moves messages: the line that makes it happen, what it says, and who answers then.
ACCIDENTS = {
    "it would take too long": ("routing.HOLD = routing.ROUTE_TIME", "would have taken too long", "monolith"),
    "interrupted before the route moves": ("records.compare = interrupt", "Aborted!", "monolith"),
    "interrupted when the route has moved": ("routing.come_into_force = interrupt", "Aborted!", "monolith"),
    "the route comes too late": ("routing.come_into_force = late", "not take over the routes in time", "monolith"),
    "killed before the route moves": ("Registry.set_route = die", "", "monolith"),
    "killed when the route moves": ("Registry.set_route = set_and_die", "", "messages"),
    "killed when the route has moved": ("evolve._arrive = die", "", "messages"),
}
WITH_ACCIDENTS = """
import os, signal, sys, time
from workshop import cli, evolve, records, routing
from workshop.registry import Registry

come_into_force = routing.come_into_force
def interrupt(*_):
    routing.come_into_force = come_into_force
    raise KeyboardInterrupt

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

set_route = Registry.set_route
def set_and_die(*arguments):
    set_route(*arguments)
    die()

def late(routes, timeout):
    routing.come_into_force = come_into_force
    time.sleep(timeout + 0.3)  # the hold is over: meanwhile people write to the new service
    return False

{accident}
sys.argv = ["workshop", "evolve", "stage2", "--yes"]
cli.main()
"""


def test_whatever_happens_to_evolve_while_rows_move_nothing_is_lost(before_messages, print_figure):
    workshop = before_messages
    environment = os.environ | {"WORKSHOP_RUN_DIR": str(workshop.run_folder), "PYTHONPATH": "platform"}
    ann = Client(workshop.url).register()
    with Probe(workshop.url) as probe:
        for name, (accident, sentence, answered_by) in ACCIDENTS.items():
            program = [sys.executable, "-c", WITH_ACCIDENTS.format(accident=accident)]
            done = subprocess.run(program, env=environment, cwd=REPOSITORY, capture_output=True, text=True, timeout=90)
            assert done.returncode == (1 if sentence else -signal.SIGKILL), f"{name}: {done.stdout}{done.stderr}"
            assert sentence in done.stderr, name
            until_answered_by(ann, answered_by)
            probe.run_for(0.5)
        workshop.run("evolve", "--back", "--yes")
        until_answered_by(ann, "monolith")
        one_step(workshop, "stage2")
    print_figure(f"{len(ACCIDENTS)} accidents while messages moved: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)


def until_answered_by(client: Client, service: str) -> None:
    def is_answered() -> bool:
        return client.get("/api/messages?limit=1").headers["X-Served-By"].startswith(f"{service}_")

    assert wait_until(is_answered, 2), service


def test_what_is_taken_down_on_the_way_goes_on_from_there(before_messages):
    workshop = before_messages
    one_step(workshop, "stage2")
    ann = Client(workshop.url).register()
    message = ann.say("after the move")
    torn = workshop.run("route", "/api/messages", "monolith", expect=1).stderr
    workshop.run("down")
    refused = workshop.run("up", "stage0", "--db", workshop.db, expect=1).stderr
    workshop.run("up", "stage1", "--db", workshop.db)
    here = Client(workshop.url)
    assert "/api/messages moves together with its rows" in torn
    assert "stage1 was taken down on its way" in refused
    assert here.read(message["id"])["source"] == "after the move"
    assert here.get("/api/messages?limit=1").headers["X-Served-By"].startswith("messages_")
    workshop.run("evolve", "--back", "--yes")
    assert here.read(message["id"])["source"] == "after the move"
    assert here.get("/api/messages?limit=1").headers["X-Served-By"].startswith("monolith_")


def test_an_open_page_goes_all_the_way(stage0, browser):
    """Who chats meanwhile need not sign in again, nor load the page again; what was still to be done is done."""
    visitor = Visitor(browser, stage0.url).register()
    visitor.expected = LOST
    with serving(Site(stage0.site_host)) as site:
        address = site.add("/page", "A title that took a while")
        visitor.say("from the monolith")
        expect(visitor.message("from the monolith")).to_be_visible()
        stage0.run("evolve", "stage1", "--yes")
        stage0.run("stop", "worker")
        visitor.say(f"look: {address}")
        expect(visitor.message("look:")).to_be_visible()
        stage0.run("evolve", "stage2", "--yes")
        expect(visitor.message("A title that took a while")).to_be_visible(timeout=EXPANDED_WITHIN * 1000)
    other = Client(stage0.url).register()
    other.say("from five services")
    expect(visitor.message("from five services")).to_be_visible(timeout=5000)
    visitor.say("and back")
    expect(visitor.message("and back")).to_be_visible()
    expect(visitor.banner).to_be_hidden()
    visitor.context.close()
    assert visitor.problems == []


def test_fifty_flips_of_a_route_fail_no_request(stage0, print_figure):
    for _ in range(3):
        one_step(stage0, "stage1")
    workers = haproxy_processes(stage0)
    url, flips, over = stage0.url, [], threading.Event()
    ann = Client(url).register()
    statuses = []

    def sign_in_and_out() -> None:
        client = Client(url)
        client.nickname, client.password = ann.nickname, ann.password
        while not over.is_set():
            client.sign_in()
            statuses.append(client.delete("/api/tokens").status_code)

    people = [threading.Thread(target=sign_in_and_out) for _ in range(2)]
    with Probe(url) as probe:
        for one in people:
            one.start()
        for service in ["tokens", "monolith"] * 25:
            started = time.monotonic()
            stage0.run("route", "/api/tokens", service)
            flips.append(time.monotonic() - started)
        over.set()
        for one in people:
            one.join()
    print_figure(
        f"50 flips of a route, {statistics.median(flips):.2f} s each: {summary(probe.ledger)}; meanwhile "
        f"{len(statuses)} people signed in and out"
    )
    assert_flawless(probe.ledger)
    assert set(statuses) == {204}
    assert len(statuses) > 20
    assert haproxy_processes(stage0) == workers


def haproxy_processes(workshop) -> int:
    return sum("haproxy.cfg" in name for name in workshop.names())


def test_a_route_is_refused_to_who_does_not_serve_the_prefix(stage1):
    before = stage1.status()
    for arguments, sentence in [
        (("/api/tokens", "monolith"), "monolith does not serve /api/tokens: it serves /api/users"),
        (("/api/tokens", "ui"), "ui does not serve /api/tokens: it serves /."),
        (("/api/tokens", "nobody"), "There is no service 'nobody': there are monolith, tokens, ui."),
        (("api", "tokens"), "'api' is no path prefix: allowed is something like /api/users."),
    ]:
        assert sentence in stage1.run("route", *arguments, expect=1).stderr
    stage1.run("stop", "tokens")
    assert "tokens has no instance that could answer" in stage1.run("route", "/x", "tokens", expect=1).stderr
    stage1.run("start", "tokens")
    after = stage1.status()
    assert [service["routes"] for service in after["services"]] == [service["routes"] for service in before["services"]]


def test_a_route_that_no_stage_declares_stands_in_the_way_of_no_step(stage0):
    one_step(stage0, "stage1")
    stage0.run("route", "/api/users/me", "monolith")
    one_step(stage0, "stage1")
    stage0.run("evolve", "--back", "--yes")


def test_evolve_says_what_is_wrong(stage0):
    for arguments, sentence, status in [
        ((), "Name the stage to go to, or give --back", 2),
        (("stage1",), "There is nobody to press keys: add --yes.", 2),
        (("stage7", "--yes"), "There is no stage 'stage7'", 1),
        (("--back", "--yes"), "stage0 is the beginning of the way", 1),
    ]:
        assert sentence in stage0.run("evolve", *arguments, expect=status).stderr
    assert "is up: http://" in stage0.run("evolve", "stage0", "--yes").stdout
    assert "`./workshop evolve`" in stage0.run("up", "stage2", expect=1).stderr
    stage0.run("down")
    assert "No stage is up" in stage0.run("evolve", "stage1", "--yes", expect=1).stderr
    stage0.run("up", "stage1")
    assert "stage0 lies behind" in stage0.run("evolve", "stage0", "--yes", expect=1).stderr
