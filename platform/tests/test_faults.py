"""What breaks, breaks alone: kills, freezes and absences under a steady load, each within its bound."""

import os
import secrets
import shutil
import signal
import socket
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import psutil
import pytest
import requests
import socketio
from contract.conftest import Client, Listener, Site, http_session, serving
from sqlalchemy import Engine, text
from sqlalchemy.exc import OperationalError
from tests.load import (
    INSIDE,
    Watch,
    ask_supervisor,
    assert_flawless,
    containers,
    frozen,
    in_rotation,
    pid_of,
    pid_of_server,
    still_running,
    stopped,
    summary,
    suspended,
)

from workshop.probe import Ledger, Probe
from workshop.registry import TTL, RegistryUnavailable

LONGEST_ANSWER = 5  # seconds, whatever fails
# Seconds. Of a container, the supervisor learns up to a second later that it has ended, and Docker starts it in a half.
HAPROXY_IS_BACK = {"process": 2, "docker": 3}
# Docker reports the end of a container to the sidecar, and starts the next one in about twice the time of a process.
OUT = {"process": 0.25, "docker": 1}
REPLACED = {"process": 5, "docker": 10}
ROOM = 0.5  # seconds more for the load generator, which runs on the same cores


def longest(ledger: Ledger) -> float:
    return max(answer.took for answer in ledger.answers)


def kill_under_load(stage, until, kill) -> tuple[Ledger, float, float]:
    """Kill one instance; return the ledger, and the seconds until it was out of rotation and until it was replaced."""
    with Probe(stage.url) as probe:
        probe.run_for(1)
        victim = stage.instances()[0]
        killed = time.monotonic()
        kill(victim)
        until(lambda: victim["id"] not in in_rotation(stage), 5, "out of rotation")
        out = time.monotonic() - killed
        until(lambda: victim["id"] in in_rotation(stage), 15, "replaced")
        replaced = time.monotonic() - killed
        probe.run_for(1)
    return probe.ledger, out, replaced


def test_killing_one_of_three_instances_fails_no_get_and_it_is_replaced(stage, print_figure, until):
    ledger, out, replaced = kill_under_load(stage, until, lambda victim: os.killpg(victim["pid"], signal.SIGKILL))

    print_figure(f"kill -9 → out of rotation {1000 * out:.0f} ms, → replaced {replaced:.1f} s: {summary(ledger)}")
    assert_flawless(ledger, killed=1)
    assert out < OUT[stage.driver]
    assert replaced < REPLACED[stage.driver]


def test_the_row_of_a_killed_instance_is_gone_before_the_statistics_page_refreshes(stage, until):
    page, victim = stage.status()["stats_url"], stage.instances()[0]
    assert "refresh" in requests.get(page, timeout=5).text  # by itself, every 2 s
    os.killpg(victim["pid"], signal.SIGKILL)
    until(lambda: victim["id"] not in requests.get(f"{page};csv", timeout=5).text, 2, "no row")


def test_killing_an_instance_with_its_sidecar_fails_no_get_and_leaves_no_orphan(stage, print_figure, until):
    family = []

    def kill(victim):
        service = psutil.Process(victim["pid"])
        family.extend([service, *service.children(recursive=True)])
        os.kill(pid_of(stage, victim["id"]), signal.SIGKILL)
        os.killpg(service.pid, signal.SIGKILL)

    ledger, out, replaced = kill_under_load(stage, until, kill)
    print_figure(
        f"kill -9 with the sidecar → out of rotation {1000 * out:.0f} ms, → replaced {replaced:.1f} s: "
        f"{summary(ledger)}"
    )
    assert_flawless(ledger, killed=1)
    assert out < 1.5
    assert replaced < REPLACED[stage.driver]
    assert still_running(family) == []


def test_a_sidecar_killed_alone_leaves_no_orphan_of_a_real_service(stage, print_figure, until):
    victim = stage.instances()[0]
    service = psutil.Process(victim["pid"])
    family = [service, *service.children(recursive=True)]
    assert len(family) > 1  # gunicorn's master and its worker

    killed = time.monotonic()
    os.kill(pid_of(stage, victim["id"]), signal.SIGKILL)
    until(lambda: not still_running(family), 5, "all ended")
    print_figure(f"sidecar killed alone → no orphan: {time.monotonic() - killed:.2f} s")


def test_killing_the_last_instance_gives_errors_in_json_for_a_few_seconds_at_most(stage, print_figure, until):
    stage.run("scale", f"{stage.chat}=1")
    (last,) = stage.instances()
    with Probe(stage.url) as probe:
        probe.run_for(1)
        killed = time.monotonic()
        os.killpg(last["pid"], signal.SIGKILL)
        until(lambda: not in_rotation(stage), 5, "out of rotation")
        until(lambda: in_rotation(stage), 15, "replaced")
        probe.run_for(1)
    ledger = probe.ledger
    ended = max(answer.at + answer.took for answer in ledger.failed()) - (killed - probe.started)
    print_figure(f"kill -9 of the last instance → errors for {ended:.1f} s: {summary(ledger)}")
    unavailable = [answer for answer in ledger.failed() if answer.failure.startswith('503 {"error": "No instance')]
    assert unavailable
    # The rest: what was inside it.
    assert len(ledger.failed() + ledger.cut_off()) - len(unavailable) <= 2 * INSIDE
    assert (ledger.is_counted, ledger.lost, ledger.doubled) == (True, [], [])
    assert ended < 5


def post_until_acknowledged(url: str, token: str, source: str) -> int:
    """Post a message as a client does that wants it stored once: with a key, repeated until there is an answer."""
    headers = {"Authorization": f"Bearer {token}", "Idempotency-Key": secrets.token_hex()}
    deadline = time.monotonic() + 10
    repeats = 0
    with http_session() as http:
        while time.monotonic() < deadline:
            try:
                answer = http.post(f"{url}/api/messages", json={"source": source}, headers=headers, timeout=10)
            except requests.RequestException:
                repeats += 1
                continue  # nobody knows whether it was stored
            if answer.ok:
                return repeats
            assert answer.status_code >= 500, answer.text
            repeats += 1
    pytest.fail(f"{source} was never acknowledged")


def test_a_post_that_is_repeated_with_its_key_after_a_kill_is_stored_once(stage, print_figure, until):
    url, is_over, sent, repeats = stage.url, threading.Event(), [], []
    ann = Client(url).register()

    def write(writer: int) -> None:
        while not is_over.is_set():
            sent.append(f"{ann.nickname} {writer} {len(sent)}")
            repeats.append(post_until_acknowledged(url, ann.token, sent[-1]))

    with ThreadPoolExecutor(INSIDE) as pool:
        writers = [pool.submit(write, writer) for writer in range(INSIDE)]
        for victim in stage.instances():
            os.killpg(victim["pid"], signal.SIGKILL)
            until(lambda victim=victim: victim["id"] not in in_rotation(stage), 5, "out of rotation")
            until(lambda victim=victim: victim["id"] in in_rotation(stage), 15, "replaced")
        is_over.set()
        for writer in writers:
            writer.result()
    print_figure(f"3 kills, each POST repeated with its key: {len(sent)} messages, {sum(repeats)} repeats")
    assert sum(repeats)
    with stage.database(stage.chat) as database, database.connect() as connection:
        stored = connection.scalars(text("SELECT source FROM messages WHERE user_id = :id"), {"id": ann.id}).all()
    assert sorted(stored) == sorted(sent)


# What takes the lock for which all writers wait; PostgreSQL has none.
TAKE_LOCK = {"sqlite": ["PRAGMA busy_timeout = 1000", "BEGIN IMMEDIATE"], "postgresql": []}


def freeze(pid: int, database: Engine) -> None:
    """Freeze an instance, but not in the moment in which it holds the database's lock: all writers would wait then."""
    while True:
        os.killpg(pid, signal.SIGSTOP)
        with database.connect() as connection:
            try:
                for statement in TAKE_LOCK[database.dialect.name]:
                    connection.exec_driver_sql(statement)
                return
            except OperationalError:
                os.killpg(pid, signal.SIGCONT)


def test_a_frozen_instance_costs_those_inside_it_a_504_and_is_replaced(stage, print_figure, until):
    with stage.database(stage.chat) as database, Probe(stage.url) as probe:
        probe.run_for(1)
        victim = stage.instances()[0]
        freeze(victim["pid"], database)
        frozen_at = time.monotonic()
        until(lambda: victim["id"] not in in_rotation(stage), 10, "out of rotation")
        out = time.monotonic() - frozen_at
        until(lambda: victim["id"] in in_rotation(stage), 30, "replaced")
        replaced = time.monotonic() - frozen_at
        probe.run_for(1)
    ledger = probe.ledger
    print_figure(
        f"SIGSTOP → out of rotation {out:.1f} s, → replaced {replaced:.1f} s; longest answer {longest(ledger):.1f} s: "
        f"{summary(ledger)}"
    )
    assert out < 2
    assert replaced < 15
    assert longest(ledger) < LONGEST_ANSWER + ROOM
    assert [answer for answer in ledger.failed() if not answer.failure.startswith("504")] == []
    for method in ("GET", "POST"):
        assert len(ledger.failed(method) + ledger.cut_off(method)) <= INSIDE
    assert (ledger.is_counted, ledger.lost, ledger.doubled) == (True, [], [])


@pytest.fixture
def registered(stage):
    """Tell which instances stand in the registry; none while it is away."""
    registry = stage.registry()

    def read() -> list[str]:
        try:
            return sorted(registry.snapshot().services[stage.chat].upstreams)
        except (RegistryUnavailable, KeyError):
            return []

    return read


def test_etcd_away_for_20_s_fails_no_request_and_takes_nothing_out(stage, registered, print_figure, until):
    before = in_rotation(stage)
    with Watch(stage) as watch, Probe(stage.url) as probe:
        with stopped(stage, "etcd"):
            probe.run_for(20)
        back = time.monotonic()
        until(lambda: registered() == before, TTL, "all registered again")
        took = time.monotonic() - back
        probe.run_for(TTL)
    print_figure(f"etcd away for 20 s, all registered {took:.1f} s after its start: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)
    assert set(watch.counts) == {len(before)}


@pytest.mark.parametrize("seconds", [12, 40], ids=["for_12_s", "for_40_s"])
def test_a_frozen_etcd_takes_nothing_out_when_it_goes_on(stage, registered, print_figure, until, seconds):
    """All keys are there at the manager's first look, and expire in the next instant."""
    before = in_rotation(stage)
    with Watch(stage) as watch, Probe(stage.url) as probe:
        with frozen(pid_of_server(stage, "etcd")):
            probe.run_for(seconds)
        thawed = time.monotonic()
        until(lambda: registered() == before, TTL, "all registered again")
        took = time.monotonic() - thawed
        probe.run_for(TTL + 1)
    print_figure(f"etcd frozen for {seconds} s, all registered {took:.1f} s later: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)
    assert set(watch.counts) == {len(before)}
    assert probe.ledger.reconnects == 0


SERVES_AGAIN = 5  # seconds


# 12 s: longer than the registry's TTL. (Open pages, for longer: contract/test_page.py.)
@pytest.mark.parametrize("seconds", [12, 60], ids=["for_12_s", "for_a_minute"])
def test_a_stage_that_was_suspended_serves_again(stage, ann, print_figure, until, seconds):
    before, pids = in_rotation(stage), {instance["pid"] for instance in stage.instances()}
    url, failures = stage.url, []
    with suspended(stage):
        time.sleep(seconds)  # the subject of this test
    resumed = time.monotonic()

    def took(serves) -> float:
        until(serves, 2 * SERVES_AGAIN, "serves again")
        return time.monotonic() - resumed

    def answers(method: str, path: str, **options) -> bool:
        try:
            answer = ann.http.request(method, url + path, timeout=SERVES_AGAIN, **options)
        except requests.RequestException as error:
            failures.append(str(error))
            return False
        if not answer.ok:
            failures.append(answer.text)
        return answer.ok

    def pushes() -> bool:
        try:
            listener = Listener(url)
        except socketio.exceptions.ConnectionError as error:
            failures.append(str(error))
            return False
        message = ann.say("Do you hear me?")
        until(lambda: listener.heard("Message", message["id"]), SERVES_AGAIN, "pushed")
        listener.close()
        return True

    times = {
        "page": took(lambda: answers("GET", "/")),
        "GET": took(lambda: answers("GET", "/api/messages")),
        "POST": took(lambda: answers("POST", "/api/messages", json={"source": "Good morning"})),
        "Socket.IO": took(pushes),
    }
    shown = ", ".join(f"{name} {seconds_:.1f} s" for name, seconds_ in times.items())
    print_figure(f"everything suspended for {seconds} s; after that {shown}; {len(failures)} failures")
    assert max(times.values()) < SERVES_AGAIN
    with Watch(stage) as watch, Probe(url) as probe:  # nothing expires, and nothing is killed, later on
        probe.run_for(TTL + 2)
    assert_flawless(probe.ledger)
    assert set(watch.counts) == {len(before)}
    assert in_rotation(stage) == before
    assert {instance["pid"] for instance in stage.instances()} == pids


def test_an_instance_killed_while_etcd_is_away_leaves_and_comes_back_even_if_etcd_lost_its_data(
    stage, registered, print_figure, until
):
    before = in_rotation(stage)
    with Probe(stage.url) as probe:
        with stopped(stage, "etcd"):
            victim = stage.instances()[0]
            killed = time.monotonic()
            os.killpg(victim["pid"], signal.SIGKILL)
            until(lambda: victim["id"] not in in_rotation(stage), 5, "out of rotation")
            out = time.monotonic() - killed
            probe.run_for(3)
            assert in_rotation(stage) == [name for name in before if name != victim["id"]]
            shutil.rmtree(stage.run_folder / "stores/etcd/data")
        back = time.monotonic()
        until(lambda: registered() == in_rotation(stage) == before, TTL, "all registered and in rotation again")
        took = time.monotonic() - back
        with Watch(stage) as watch:
            probe.run_for(TTL + 1)
    print_figure(
        f"kill -9 while etcd is away → out of rotation {1000 * out:.0f} ms; an empty etcd → all in rotation "
        f"{took:.1f} s after its start: {summary(probe.ledger)}"
    )
    assert_flawless(probe.ledger, killed=1)
    assert set(watch.counts) == {len(before)}


@pytest.fixture
def ann(stage):
    client = Client(stage.url).register()
    yield client
    client.http.close()


@pytest.fixture
def listeners(stage, until):
    """Socket.IO connections to all instances that hold some."""
    url, instances, made = stage.url, in_rotation(stage, stage.differences["sockets"]), []

    def everywhere() -> bool:
        made.append(Listener(url))
        return len({listener.instance for listener in made}) == len(instances)

    try:
        until(everywhere, 10, "connections to all instances")
        yield made
    finally:
        for listener in made:
            listener.close()


def until_all_hear_the_others(ann, listeners, until, timeout: float) -> None:
    """Post messages until each listener was pushed one that another instance has answered, so through Redis."""
    posted = []

    def all_heard() -> bool:
        answer = ann.post("/api/messages", json={"source": "Do you hear me?"})
        posted.append((answer.json()["id"], answer.headers["X-Served-By"]))
        return all(
            any(listener.heard("Message", number) for number, instance in posted if instance != listener.instance)
            for listener in listeners
        )

    until(all_heard, timeout, "pushes from other instances")


def redis_answers(stage) -> bool:
    (address,) = [store["address"] for store in stage.status()["stores"] if store["name"] == "queue"]
    host, port = address.split(":")
    try:
        with socket.create_connection((host, int(port)), timeout=1) as connection:
            connection.sendall(b"PING\r\n")
            return bool(connection.recv(64))
    except OSError:
        return False


class SlowSite(Site):
    """A web site that answers when it is `released`, and knows from which addresses it was asked."""

    def __init__(self, host: str):
        super().__init__(host)
        self.peers: list[tuple[str, int]] = []
        self.released = threading.Event()

    class Page(Site.Page):
        def do_GET(self):
            self.server.peers.append(self.client_address)
            self.server.released.wait(LONGEST_ANSWER)
            try:
                super().do_GET()
            except ConnectionError:
                pass  # who asked was killed


@pytest.fixture
def site(running_stage):
    with serving(SlowSite(running_stage.site_host)) as server:
        yield server
        server.released.set()


def is_expanded(ann, message) -> bool:
    answer = ann.http.get(f"{ann.url}/api/messages/{message['id']}", timeout=10)
    return answer.ok and "<blockquote>" in answer.json()["html"]


def test_redis_away_for_10_s_fails_no_request_and_pushes_resume(stage, ann, listeners, site, print_figure, until):
    site.released.set()
    workers = [worker["pid"] for worker in stage.instances(stage.differences["expanders"])]
    listeners[0].call("ping_user", ann.token)
    with Probe(stage.url) as probe:
        probe.run_for(1)
        with stopped(stage, "redis"):
            probe.run_for(5)
            message = ann.say(site.add("/", "A title"))
            probe.run_for(5)
        until(lambda: redis_answers(stage), 5, "Redis answers")
        back = time.monotonic()
        until_all_hear_the_others(ann, listeners, until, 10)
        resumed = time.monotonic() - back
        until(lambda: is_expanded(ann, message), 15, "links expanded")
        expanded = time.monotonic() - back
    print_figure(
        f"Redis away for 10 s; after its return pushes {resumed:.1f} s, links {expanded:.1f} s; longest answer "
        f"{longest(probe.ledger):.1f} s: {summary(probe.ledger)}"
    )
    assert_flawless(probe.ledger, are_pushed=False)
    assert resumed < 5
    assert [worker["pid"] for worker in stage.instances(stage.differences["expanders"])] == workers
    # Redis has forgotten who is there. Nobody may seem to have left because of that, and who leaves now is noticed.
    assert [user["online"] for user in listeners[-1].heard("User", ann.id)] == [True]
    listeners[0].call("ping_user", ann.token)
    listeners[0].close()
    until(lambda: not ann.user(ann.id)["online"], 5 + 3, "offline")


def test_a_frozen_redis_slows_answers_down_and_fails_none(stage, ann, listeners, site, print_figure, until):
    site.released.set()
    with Probe(stage.url) as probe:
        probe.run_for(1)
        with frozen(pid_of_server(stage, "redis")):
            probe.run_for(3)
            started = time.monotonic()
            message = ann.say(site.add("/", "A title"))
            with_link = time.monotonic() - started
            probe.run_for(3)
        back = time.monotonic()
        until_all_hear_the_others(ann, listeners, until, 10)
        resumed = time.monotonic() - back
        until(lambda: is_expanded(ann, message), 15, "links expanded")
        probe.run_for(2)  # in which the writers make up for the time that they lost
    print_figure(
        f"Redis frozen for 6 s; pushes back {resumed:.1f} s later; longest answer {longest(probe.ledger):.1f} s, "
        f"with a link {with_link:.1f} s: "
        f"{summary(probe.ledger)}"
    )
    assert_flawless(probe.ledger, are_pushed=False)
    assert max(longest(probe.ledger), with_link) < LONGEST_ANSWER
    assert resumed < 5


def test_haproxy_killed_is_back_with_the_same_set(stage, print_figure, until):
    before, master = in_rotation(stage), pid_of_server(stage, "haproxy")

    def is_back() -> bool:
        return pid_of_server(stage, "haproxy") not in (master, 0) and in_rotation(stage) == before

    with Probe(stage.url) as probe:
        probe.run_for(1)
        killed = time.monotonic()
        os.kill(master, signal.SIGKILL)
        until(is_back, 10, "back with the same set")
        back = time.monotonic()
        until(lambda: all(listener.connected for listener in probe.listeners), 5, "listeners are back")
        reconnected = time.monotonic() - killed
        probe.run_for(2)
    ledger, took = probe.ledger, back - killed
    print_figure(
        f"HAProxy killed → back with the same set {took:.1f} s, → listeners {reconnected:.1f} s: {summary(ledger)}"
    )
    assert took < HAPROXY_IS_BACK[stage.driver]
    failed_after = [a.at + a.took - (killed - probe.started) for a in ledger.failed() + ledger.cut_off()]
    assert [after for after in failed_after if not -ROOM < after < took + ROOM] == []
    assert ledger.reconnects == len(probe.listeners)
    assert (ledger.is_counted, ledger.lost, ledger.doubled) == (True, [], [])


def test_requests_go_on_without_the_balancers_manager_and_without_the_supervisor(workshop, print_figure, until):
    workshop.up()
    with Probe(workshop.url) as probe:
        psutil.Process(pid_of(workshop, "balancer")).kill()
        probe.run_for(1)
        psutil.Process(ask_supervisor(workshop, "getPID")).kill()
        probe.run_for(2)
    print_figure(f"manager killed, then the supervisor: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)


@pytest.mark.parametrize("killed", ["the one", "all"])
def test_links_that_a_killed_process_was_expanding_are_expanded_by_another(
    stage, ann, site, print_figure, until, killed
):
    """In stage 0 that is a Celery worker, in stage 2 an instance of messages."""
    message = ann.say(site.add("/", "A title"))
    (asked_from,) = until(lambda: site.peers, 10, "somebody fetches")
    groups = [psutil.Process(one["pid"]) for one in stage.instances(stage.differences["expanders"])]
    fetching = [group for group in groups if is_at(group, asked_from, stage)]
    assert len(fetching) == 1
    kill = time.monotonic()
    for group in fetching if killed == "the one" else groups:
        os.killpg(group.pid, signal.SIGKILL)
    site.released.set()
    until(lambda: is_expanded(ann, message), 15, "links expanded")
    took = time.monotonic() - kill
    print_figure(f"{killed} killed in the middle of an expansion → expanded {took:.1f} s")
    assert took < 15


def is_at(group: psutil.Process, address: tuple[str, int], stage) -> bool:
    """Tell whether a process, or a child of it, is connected from an address; in a container, all that is there is."""
    if stage.driver == "docker":
        return (group.pid, address[0]) in [(pid, host) for _, pid, host in containers(stage)]
    return address in [
        c.laddr for process in (group, *group.children(recursive=True)) for c in process.net_connections()
    ]
