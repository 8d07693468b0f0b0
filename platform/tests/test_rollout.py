"""Another version, with nobody noticing: upgrade, rollback, canary, promote, abort; and versions that are no good."""

import itertools
import os
import re
import signal
import socket
import statistics
import threading
import time
from contextlib import closing, contextmanager
from dataclasses import dataclass

import pytest
import requests
import websocket
from sqlalchemy import text
from tests.load import Crowd, Watch, assert_flawless, in_rotation, summary
from tests.workshops import copy_of_the_repository

from workshop.probe import Probe


@dataclass(frozen=True)
class Parts:
    """Where in a stage there is something to deploy."""

    service: str
    code: str  # a module of it, to which a test appends what makes a version good or bad
    migrations: str
    table: str
    worker: str | None = None  # that runs the same build


PARTS = {
    "stage0": Parts(
        "monolith", "stage0-monolith/parley/health.py", "stage0-monolith/migrations/versions", "users", "worker"
    ),
    "stage1": Parts(
        "monolith",
        "stage1-strangler/common/health.py",
        "stage1-strangler/monolith/migrations/versions",
        "users",
        "worker",
    ),
    "stage2": Parts(
        "messages",
        "stage2-microservices/common/health.py",
        "stage2-microservices/messages/migrations/versions",
        "messages",
    ),
}
BLUEPRINT = "health"  # the one in that module
# Seconds that an upgrade of three instances may take; the monolith has workers to replace as well.
SLOWEST = {"stage0": 30, "stage1": 30, "stage2": 20}
IN_CONTAINERS = 2.5  # times as long: an image is made, and Docker starts and removes each container beside the load

CRASHES = "raise RuntimeError('this version crashes at its start')"
NEVER_HEALTHY = f"""
@{BLUEPRINT}.before_request
def never_healthy():
    print("this version is never healthy", flush=True)
    return "not yet", 503
"""
ANSWERS_500 = f"""
@{BLUEPRINT}.before_app_request
def fail():
    from flask import request
    if request.path.startswith("/api/"):
        return {{"error": "this version is no good"}}, 500
"""
MIGRATION = """\
import sqlalchemy as sa
from alembic import op

revision, down_revision = "{number:04}", "{before:04}"


def upgrade():
    {operation}
"""


class Deployed:
    """A stage whose code is edited and deployed."""

    def __init__(self, workshop):
        self.workshop, self.parts = workshop, PARTS[workshop.stage]
        self.service = self.parts.service
        self.run, self.popen, self.url = workshop.run, workshop.popen, workshop.url
        self.code = workshop.repository / self.parts.code
        self.original = self.code.read_text()
        self.edits = itertools.count(1)
        self.workers = ("worker", "beat") if self.parts.worker else ()

    def edit(self, appended: str = "") -> None:
        """Have the next version be another one."""
        self.code.write_text(f"{self.original}\n# edit {next(self.edits)}\n{appended}\n")

    def add_migration(self, operation: str) -> None:
        folder = self.workshop.repository / self.parts.migrations
        before = max(int(file.name[:4]) for file in folder.glob("0*.py"))
        text = MIGRATION.format(number=before + 1, before=before, operation=operation)
        (folder / f"{before + 1:04}.py").write_text(text)

    @contextmanager
    def without_newest_migration(self):
        newest = max((self.workshop.repository / self.parts.migrations).glob("0*.py"))
        text = newest.read_text()
        newest.unlink()
        yield
        newest.write_text(text)

    def instances(self) -> dict[str, str]:
        return {instance["id"]: instance["state"] for instance in self.workshop.instances(self.service)}

    def versions(self) -> list[str]:
        """Return the versions of the instances that serve, and of the workers."""
        ours = [s for s in self.workshop.status()["services"] if s["name"] in (self.service, *self.workers)]
        assert {i["state"] for s in ours for i in s["instances"]} == {"UP"}
        return sorted(i["version"] for s in ours for i in s["instances"])

    def version(self) -> str:
        return next(s["version"] for s in self.workshop.status()["services"] if s["name"] == self.service)

    def is_all(self, version: str) -> bool:
        return set(self.versions()) == {version} and len(self.instances()) == 3

    def revision(self) -> str:
        with self.workshop.database(self.service) as database, database.connect() as connection:
            return connection.scalar(text("SELECT version_num FROM alembic_version"))

    @contextmanager
    def crowd(self, size: int):
        """Have so many Socket.IO clients listen, if others than those who are replaced hold their connections."""
        if self.workshop.differences["sockets"] == self.service:
            yield None
        else:
            with closing(Crowd(self.url, size)) as crowd:
                yield crowd

    @contextmanager
    def unchanged(self):
        """Assert that the same instances serve before, all the time, and afterwards."""
        before = self.instances()
        with Watch(self.workshop, self.service) as watch:
            yield
        assert min(watch.counts) >= 3
        assert self.instances() == before


@pytest.fixture(scope="module")
def made(pytestconfig):
    with copy_of_the_repository() as workshop:
        workshop.stage, workshop.db = pytestconfig.getoption("stage"), pytestconfig.getoption("db")
        workshop.up()
        workshop.run("scale", f"{PARTS[workshop.stage].service}=3")
        yield Deployed(workshop)


@pytest.fixture
def deployed(made):
    """Three instances of a good version."""
    yield made
    made.edit()


def test_an_upgrade_and_its_rollback_fail_no_request(deployed, print_figure):
    before = deployed.version()
    deployed.edit()
    with deployed.crowd(20) as crowd, Watch(deployed.workshop, deployed.service) as watch, Probe(deployed.url) as probe:
        probe.run_for(1)
        started = time.monotonic()
        deployed.run("upgrade", deployed.service)
        upgraded = time.monotonic() - started
        after = deployed.version()
        assert after != before
        assert deployed.is_all(after)
        started = time.monotonic()
        deployed.run("rollback", deployed.service)
        rolled_back = time.monotonic() - started
        assert deployed.is_all(before)
        probe.run_for(1)
    print_figure(
        f"upgrade of three instances under load {upgraded:.1f} s, rollback {rolled_back:.1f} s: {summary(probe.ledger)}"
    )
    assert_flawless(probe.ledger)
    assert crowd is None or crowd.arrived.keys() >= set(probe.ledger.acknowledged.values())
    assert min(watch.counts) == 3
    again = deployed.run("rollback", deployed.service, expect=1).stderr
    assert f"has run nothing before {before}" in again
    assert after in again  # it can be had with --to
    deployed.run("upgrade", deployed.service, "--to", after)
    assert deployed.is_all(after)
    assert f"all instances are {after} already" in deployed.run("upgrade", deployed.service).stdout
    times = IN_CONTAINERS if deployed.workshop.driver == "docker" else 1
    assert max(upgraded, rolled_back) < times * SLOWEST[deployed.workshop.stage]


class Tab:
    """A Socket.IO connection that reconnects 0.1 s after it was lost, as a page does after 0.1 to 0.4 s.

    Without a library: python-socketio takes longer to reconnect twenty clients of one process than the platform does.
    """

    def __init__(self, url: str):
        self.url = f"{url.replace('http', 'ws')}/socket.io/?EIO=4&transport=websocket"
        self.gaps, self.is_over = [], threading.Event()
        self.connect()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def connect(self) -> None:
        self.connection = websocket.create_connection(self.url, timeout=30)  # the server pings every 10 s
        self.connection.recv()  # Engine.IO's open packet
        self.connection.send("40")  # join the default namespace
        self.connection.recv()
        self.instance = self.connection.getheaders()["x-served-by"]

    def run(self) -> None:
        while not self.is_over.is_set():
            try:
                self.follow()
            except (OSError, websocket.WebSocketException):
                lost = time.monotonic()
                self.connection.shutdown()
                while not self.is_over.wait(0.1) and not self.is_back():
                    pass
                self.gaps.append(time.monotonic() - lost)

    def follow(self) -> None:
        """Read what comes, until the connection is lost."""
        while (packet := self.connection.recv()) or self.connection.connected:
            if packet == "2":  # Engine.IO's ping
                self.connection.send("3")

    def is_back(self) -> bool:
        try:
            self.connect()
        except (OSError, websocket.WebSocketException):
            self.connection.shutdown()
            return False
        return True

    def close(self) -> None:
        self.is_over.set()
        self.connection.sock.shutdown(socket.SHUT_RDWR)  # wakes the thread
        self.thread.join()
        self.connection.shutdown()


def test_clients_of_an_instance_that_is_replaced_are_back_on_another_within_a_second(deployed, print_figure, until):
    sockets = deployed.workshop.differences["sockets"]
    deployed.run("scale", f"{sockets}=3")
    deployed.edit()
    tabs = [Tab(deployed.url) for _ in range(20)]
    try:
        for command in ("upgrade", "rollback"):
            before = [tab.instance for tab in tabs]
            deployed.run(command, sockets)
            until(lambda old=before: all(t.instance != i for t, i in zip(tabs, old, strict=True)), 5, "all elsewhere")
            gaps = sorted(gap for tab in tabs for gap in tab.gaps)
            print_figure(
                f"{command} of {sockets}: its clients back after {1000 * statistics.median(gaps):.0f} ms, "
                f"the last after {1000 * gaps[-1]:.0f} ms"
            )
            assert gaps[-1] < 1
            for tab in tabs:
                tab.gaps.clear()
    finally:
        for tab in tabs:
            tab.close()


def test_a_version_that_crashes_at_its_start_leaves_the_old_one_serving(deployed):
    deployed.edit(CRASHES)
    with deployed.unchanged():
        message = deployed.run("upgrade", deployed.service, expect=1).stderr
    assert re.search(rf"{deployed.service}_v\d+_\w{{4}} does not start\. Its last lines:", message)
    assert "this version crashes at its start" in message
    with deployed.unchanged():
        assert "does not start" in deployed.run("canary", deployed.service, expect=1).stderr
    assert "has no canary" in deployed.run("abort", deployed.service, expect=1).stderr


def test_a_version_that_never_becomes_healthy_leaves_the_old_one_serving(deployed):
    deployed.edit(NEVER_HEALTHY)
    with deployed.unchanged():
        message = deployed.run("upgrade", deployed.service, expect=1).stderr
    assert "this version is never healthy" in message


def test_a_canary_shows_that_a_version_answers_500_and_abort_removes_it(deployed):
    before = deployed.version()
    deployed.edit(ANSWERS_500)
    with deployed.unchanged():
        shown = deployed.run("canary", deployed.service, "--weight", "25").stdout
        (new,) = [name for name in in_rotation(deployed.workshop, deployed.service) if name.split("_")[1] != before]
        version = new.split("_")[1]
        assert version in shown
        answers = [requests.get(f"{deployed.url}/api/messages", timeout=5) for _ in range(100)]
        failed = [answer for answer in answers if answer.status_code == 500]
        assert {answer.headers["X-Served-By"] for answer in failed} == {new}
        assert len(failed) == pytest.approx(25, abs=3)
        for command in (
            ["scale", f"{deployed.service}=4"],
            *([c, deployed.service] for c in ("upgrade", "restart", "rollback")),
        ):
            message = deployed.run(*command, expect=1).stderr
            assert f"`./workshop promote {deployed.service}` or `./workshop abort {deployed.service}`" in message

        shown = deployed.run("canary", deployed.service).stdout  # shows it again, and starts no other
        assert int(re.search(rf"{version} +│ +\d+ +│ +(\d+) ", shown)[1]) == len(failed)
        assert re.search(rf"{before} +│ +\d+ +│ +0 │ +\d+ ms │ +\d+ ms ", shown)
        assert len(in_rotation(deployed.workshop, deployed.service)) == 4
        deployed.run("abort", deployed.service)
    assert deployed.is_all(before)


def test_a_good_canary_is_promoted_and_no_request_fails(deployed, print_figure):
    deployed.edit()
    before = deployed.version()
    with Watch(deployed.workshop, deployed.service) as watch, Probe(deployed.url) as probe:
        deployed.run("canary", deployed.service)
        probe.run_for(1)
        deployed.run("abort", deployed.service)
        deployed.run("canary", deployed.service)
        started = time.monotonic()
        deployed.run("promote", deployed.service)
        took = time.monotonic() - started
    print_figure(f"canary, abort, canary, promote ({took:.1f} s) under load: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)
    assert min(watch.counts) == 3
    assert max(watch.counts) <= 5  # three, the canary, and the new one of the roll
    assert deployed.is_all(deployed.version())
    deployed.run("rollback", deployed.service)
    assert deployed.is_all(before)


def test_a_migration_runs_once_while_everybody_writes(deployed, print_figure):
    before, at = deployed.version(), deployed.revision()
    deployed.add_migration(f'op.add_column("{deployed.parts.table}", sa.Column("motto", sa.String(100)))')
    deployed.edit()
    plan = deployed.run("upgrade", deployed.service, "--plan").stdout
    assert f"add column {deployed.parts.table}.motto" in plan
    assert "compatible" in plan
    assert (deployed.revision(), deployed.version()) == (at, before)

    with Probe(deployed.url) as probe:
        out = deployed.run("upgrade", deployed.service).stdout
    assert out.count("migrating its database") == 1
    assert deployed.revision() > at
    print_figure(f"upgrade with a migration under load: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)
    assert "Nothing to migrate" in deployed.run("upgrade", deployed.service, "--plan").stdout

    deployed.run("rollback", deployed.service)  # the older version runs on the newer schema
    assert deployed.is_all(before)
    with deployed.without_newest_migration():  # as when the change has been taken back in the code, too
        deployed.run("restart", deployed.service)
    assert deployed.is_all(deployed.version())
    assert deployed.revision() > at


def test_a_breaking_migration_is_refused_unless_it_is_allowed_and_then_there_is_no_way_back(deployed):
    deployed.add_migration(f'op.add_column("{deployed.parts.table}", sa.Column("colour", sa.String(100)))')
    deployed.edit()
    deployed.run("upgrade", deployed.service)
    at = deployed.revision()
    deployed.add_migration(f'op.drop_column("{deployed.parts.table}", "colour")')
    deployed.edit()
    assert "breaking: " in deployed.run("upgrade", deployed.service, "--plan").stdout
    with deployed.unchanged():
        for command in ("upgrade", "canary"):
            message = deployed.run(command, deployed.service, expect=1).stderr
            assert f"drop column {deployed.parts.table}.colour: older versions still use it" in message
            assert "--allow-breaking" in message
    assert deployed.revision() == at

    deployed.run("upgrade", deployed.service, "--allow-breaking")
    assert deployed.revision() > at
    with deployed.unchanged():
        assert "the schema has left it behind" in deployed.run("rollback", deployed.service, expect=1).stderr


@pytest.mark.parametrize(("sent", "exit_code"), [(signal.SIGINT, 1), (signal.SIGKILL, -signal.SIGKILL)])
def test_an_upgrade_that_was_interrupted_can_be_undone_or_finished(deployed, sent, exit_code):
    before = deployed.version()
    deployed.edit()
    for command in ("rollback", "upgrade"):
        with Watch(deployed.workshop, deployed.service) as watch:
            process = deployed.popen("upgrade", deployed.service, start_new_session=True)
            assert " serves" in process.stdout.readline()  # the first one
            os.killpg(process.pid, sent)
            process.communicate(timeout=30)
            assert process.returncode == exit_code
            assert any(f"_{before}_" in instance for instance in deployed.instances())
            deployed.run(command, deployed.service)
        assert min(watch.counts) >= 3
        assert deployed.version() == before if command == "rollback" else deployed.version() != before
        assert deployed.is_all(deployed.version())


def test_an_upgrade_while_another_one_is_running_is_refused_and_names_it(deployed, until):
    deployed.edit()
    first = deployed.popen("upgrade", deployed.service)
    lock = deployed.workshop.run_folder / "lock"
    until(lambda: f"process {first.pid}" in lock.read_text(), 10, "the first one is at work")
    message = deployed.run("upgrade", deployed.service, expect=1).stderr
    assert f"`./workshop upgrade {deployed.service}` (process {first.pid}) is at work" in message
    _, err = first.communicate(timeout=60)
    assert first.returncode == 0, err


def test_build_says_which_version_it_is(deployed):
    deployed.edit()
    version = re.search(r"this is (v\d+)\.", deployed.run("build", deployed.service).stdout)[1]
    assert f"nothing has changed since {version}" in deployed.run("build", deployed.service).stdout
    assert not any(f"_{version}_" in instance for instance in deployed.instances())


def test_bad_input(deployed):
    with deployed.unchanged():
        for command in ("build", "upgrade", "rollback", "canary", "promote", "abort"):
            assert "has no service 'nobody': it has" in deployed.run(command, "nobody", expect=1).stderr
            if worker := deployed.parts.worker:
                refused = deployed.run(command, worker, expect=1).stderr
                assert f"runs the build of {deployed.service}: name that" in refused
        unknown = deployed.run("upgrade", deployed.service, "--to", "v99", expect=1).stderr
        assert re.search(r"has no build 'v99': there are v\d+", unknown)
        assert "has no canary" in deployed.run("promote", deployed.service, expect=1).stderr
        assert "at most 46 %" in deployed.run("canary", deployed.service, "--weight", "90", expect=1).stderr
        deployed.run("canary", deployed.service, "--weight", "100", expect=2)
        deployed.edit("def broken(:")
        for command in ("build", "upgrade", "canary"):
            assert (
                f"The code of {deployed.service} does not compile"
                in deployed.run(command, deployed.service, expect=1).stderr
            )


def test_a_stopped_service_is_started_before_it_is_upgraded(deployed):
    deployed.edit()
    deployed.run("stop", deployed.service)
    for command in ("upgrade", "rollback", "canary"):
        assert (
            f"`./workshop start {deployed.service}` comes first"
            in deployed.run(command, deployed.service, expect=1).stderr
        )
    deployed.run("start", deployed.service)
    deployed.run("upgrade", deployed.service)
    assert deployed.is_all(deployed.version())
