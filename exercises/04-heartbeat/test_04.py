"""The check of exercise 04: what the learner's registrar writes into etcd, from its start to its end."""

import contextlib
import json
import secrets
import select
import signal
import socket
import socketserver
import sys
import threading
from base64 import b64encode
from concurrent.futures import ThreadPoolExecutor

import pytest
import requests
from system import registry_session

from workshop import paths
from workshop.ports import HOST, free_port
from workshop.registry import HEARTBEAT, TTL, Backend, Registry, RegistryUnavailable
from workshop.verdict import Hop, expect
from workshop.waiting import wait_until

TINY_SERVICE = paths.REPOSITORY / "platform" / "tests" / "tiny_service.py"
FOLDERS = "platform:exercises/04-heartbeat"  # where the learner's program finds keys.py, and what that imports
PROGRAM = f"PYTHONPATH={FOLDERS} .venv/bin/python work/04-heartbeat/registrar.py"
LOOK = "PYTHONPATH=platform .venv/bin/python exercises/04-heartbeat/keys.py /services/shop"
START_TIMEOUT = 10  # seconds for a Python program to start and to make its first call; measured: 0.3
ASK_TIMEOUT = 5  # seconds for a question of the check's own; loopback needs milliseconds
LEAVE_TIMEOUT = 2  # seconds between SIGTERM and the end of the key
RELAY_POLL = 0.1  # seconds between two looks whether a relay has fallen silent
PATIENCE = 6  # seconds until a registry that says nothing is asked again: a time-out of 2, a pause of 3, and 1 more


class Key:
    """The key that a registrar is to write, under names that only this check knows, and what etcd says of it."""

    def __init__(self, stage):
        self.stage = stage
        self.url = stage.registry_url
        self.service = f"heartbeat{secrets.token_hex(3)}"
        self.instance = f"{self.service}_v1_{secrets.token_hex(2)}"
        self.address = f"{HOST}:{free_port()}"
        self.path = f"/services/{self.service}/upstream/{self.instance}"

    def value(self) -> str | None:
        """Return its value; None when there is no such key."""
        return self.stage.etcd.etcd.get(self.path)

    def ttl(self) -> int | None:
        """Return how many seconds it has left; None when it has no TTL, or is not there."""
        return self.stage.etcd.etcd.ttl(self.path)

    def next_change(self, timeout: float) -> str:
        """Return what those who watch the key are told of its next change, in etcd's word; empty if they are not."""
        with registry_session() as http, contextlib.suppress(requests.RequestException):
            if self.stage.up.registry_api == "v2":
                return http.get(f"{self.url}/v2/keys{self.path}?wait=true", timeout=timeout).json()["action"]
            watch = {"create_request": {"key": b64encode(self.path.encode()).decode()}}
            with http.post(f"{self.url}/v3/watch", json=watch, timeout=timeout, stream=True) as answer:
                lines = answer.iter_lines()
                next(lines)  # the watch exists
                return json.loads(next(lines))["result"]["events"][0].get("type", "PUT").lower()
        return ""

    def look(self, then: str = f"sleep 1; {LOOK}") -> str:
        """Return commands that start the learner's registrar, and what follows."""
        return f"{PROGRAM} shop shop_v1_mine 127.0.0.1:9000 {self.url} .run/certificates &\n{then}; kill $!"


class Relay(socketserver.ThreadingTCPServer):
    """Passes bytes on between a registrar and etcd, until it falls silent: then it accepts calls, and says nothing."""

    daemon_threads = True
    block_on_close = False

    def __init__(self, stage):
        super().__init__((HOST, 0), Call)
        self.etcd = stage.registry.split(":")
        self.url = f"https://{HOST}:{self.server_address[1]}"
        self.is_silent, self.is_over = threading.Event(), threading.Event()
        self.unanswered = 0  # calls since it fell silent


class Call(socketserver.BaseRequestHandler):
    def handle(self):
        if self.server.is_silent.is_set():
            self.server.unanswered += 1
            self.server.is_over.wait()
            return
        host, port = self.server.etcd
        with socket.create_connection((host, int(port)), ASK_TIMEOUT) as etcd:
            other = {self.request: etcd, etcd: self.request}
            while not self.server.is_silent.is_set():
                for side in select.select([*other], [], [], RELAY_POLL)[0]:
                    data = side.recv(65536)
                    if not data:
                        return
                    other[side].sendall(data)


@contextlib.contextmanager
def relay_before(stage):
    with Relay(stage) as relay:
        thread = threading.Thread(target=relay.serve_forever, args=[RELAY_POLL])
        thread.start()
        try:
            yield relay
        finally:
            relay.is_over.set()
            relay.shutdown()
            thread.join()


def start_registrar(learner, service: str, instance: str, address: str, etcd: str):
    """Start the learner's program."""
    folders = ":".join(str(paths.REPOSITORY / folder) for folder in FOLDERS.split(":"))
    arguments = (service, instance, address, etcd, paths.CERTIFICATES)
    return learner.start("registrar.py", *arguments, PYTHONPATH=folders)


@contextlib.contextmanager
def registrar(learner, stage, key):
    """Yield the learner's registrar at work; afterwards nothing of it is left in the registry."""
    program = start_registrar(learner, key.service, key.instance, key.address, stage.registry_url)
    try:
        yield program
    finally:
        program.stop()  # first: it would register again what is forgotten
        stage.etcd.forget(key.service)


def answers(etcd: Registry) -> bool:
    """Tell whether the registry is back."""
    try:
        return bool(etcd.snapshot())
    except RegistryUnavailable:
        return False


def expect_key(program, key, stage) -> None:
    expect(
        program.until(key.value, START_TIMEOUT),
        "the instance is not in the registry: the load balancer cannot know of it.",
        hop=Hop.REGISTRY,
        seen=f"below /services: {' '.join(stage.keys('/services')) or 'nothing'}",
        expected=key.path,
        show=stage.etcdctl_list("/services"),
        log=program.output(),
    )


def test_the_key_says_the_address_expires_and_is_refreshed(learner, stage):
    key = Key(stage)
    with registrar(learner, stage, key) as program:
        expect_key(program, key, stage)
        value, ttl = key.value(), key.ttl()
        expect(
            value.split()[:1] == [key.address],
            "the key is there, but its value is not the instance's address: the load balancer ignores it.",
            hop=Hop.REGISTRY,
            seen=repr(value),
            expected=repr(key.address),
            show=key.look(),
            log=stage.log("balancer"),
        )
        expect(
            ttl is not None,
            "the key has no TTL: of an instance that is killed, it stays for ever.",
            hop=Hop.REGISTRY,
            seen=f"{key.path} without a ttl",
            expected=f"a ttl of {TTL} s",
            show=key.look(),
            log=program.output(),
        )
        expect(
            TTL - 3 <= ttl <= TTL,  # up to 2 s may have passed until we look, and v3 rounds down
            f"the key's TTL is not the one that everybody here goes by: {TTL} s, so that two refreshes may fail.",
            hop=Hop.REGISTRY,
            seen=f"a ttl of {ttl} s just after it was written",
            expected=f"{TTL} s",
            show=key.look(),
            log=program.output(),
        )
        seen = [ttl]

        def is_refreshed() -> bool:
            seen.append(key.ttl() or 0)
            return seen[-1] > seen[-2]

        with ThreadPoolExecutor(max_workers=1) as pool:
            news = pool.submit(key.next_change, HEARTBEAT + 2)
            kept = program.until(is_refreshed, HEARTBEAT + 2)
        expect(
            kept,
            f"the key is not refreshed: after {TTL} s the instance is out of rotation, and in the best of health.",
            hop=Hop.REGISTRY,
            seen=f"a ttl that only falls, {' '.join(map(str, dict.fromkeys(seen)))}",
            expected=f"every {HEARTBEAT} s, {TTL} again",
            show=key.look(f"sleep 5; {LOOK}"),
            log=program.output(),
        )
        expect(
            not news.result(),
            "each refresh wakes all who watch the registry: the load balancer would look at everything again, every "
            f"{HEARTBEAT} s for every instance, and find nothing new.",
            hop=Hop.REGISTRY,
            seen=f"who waits for a change is told of one: {news.result()}",
            expected="the key stays, and no watcher wakes: with `refresh`, and without writing the value",
            show=key.look("timeout 5 ./workshop etcdctl watch /services/shop/upstream/shop_v1_mine"),
            log=program.output(),
        )


def test_the_instance_is_served_until_sigterm(learner, stage):
    key = Key(stage)
    location = f"/{key.service}"
    stage.etcd.announce(Backend(key.service, [location]))
    learner.launch([sys.executable, str(TINY_SERVICE), key.address.split(":")[1]], TINY_SERVICE.parent)
    with registrar(learner, stage, key) as program, requests.Session() as http:
        http.trust_env = False
        http.headers["Connection"] = "close"  # or it would stay with a load balancer from before a reload
        expect_key(program, key, stage)

        def served_by() -> str | None:
            return http.get(f"{stage.url.rstrip('/')}{location}", timeout=ASK_TIMEOUT).headers.get("X-Served-By")

        expect(
            program.until(lambda: served_by() == key.instance, START_TIMEOUT),
            "the instance is registered, but no request gets to it.",
            hop=Hop.BALANCER,
            seen=f"GET {location} was answered by {served_by() or 'the load balancer itself'}",
            expected=f"by {key.instance}",
            show="./workshop logs balancer",
            log=stage.log("balancer"),
        )
        program.signal(signal.SIGTERM)
        program.until(lambda: not key.value(), LEAVE_TIMEOUT)
        expect(
            not (key.value() and program.until(lambda: not key.value(), HEARTBEAT + 1)),
            "the registrar sleeps on when it is asked to stop, and takes its key away only then: meanwhile requests go "
            "where nobody listens.",
            hop=Hop.REGISTRY,
            seen=f"more than {LEAVE_TIMEOUT} s from SIGTERM to the end of the key",
            expected="at once: a wait that a signal ends",
            show=key.look(f"sleep 2; kill $!; sleep 1; {LOOK}"),
            log=program.output(),
        )
        expect(
            not key.value(),
            "the registrar was asked to stop and left its key: until it expires, requests go where nobody listens.",
            hop=Hop.REGISTRY,
            seen=f"after SIGTERM the key is there, for {key.ttl()} s more",
            expected="no key",
            show=key.look(f"sleep 2; kill $!; sleep 1; {LOOK}"),
            log=program.output(),
        )
        expect(
            program.wait(LEAVE_TIMEOUT) is not None,
            "the registrar took its key away at SIGTERM, but does not end: it would be killed.",
            hop=Hop.CODE,
            seen=f"it runs {LEAVE_TIMEOUT} s later",
            expected="it has ended",
            show=key.look(),
            log=program.output(),
        )
        expect(
            not key.value(),
            "the registrar has taken its key away, and written it once more before its end: another heartbeat came.",
            hop=Hop.REGISTRY,
            seen=f"it has ended, and the key is there, for {key.ttl()} s more",
            expected="no heartbeat after SIGTERM",
            show=key.look(f"sleep 2; kill $!; sleep 1; {LOOK}"),
            log=program.output(),
        )


def test_a_registry_that_says_nothing_is_asked_again(learner, stage):
    connections = []
    with socket.create_server((HOST, 0)) as silent:
        silent.setblocking(False)
        address = f"https://{HOST}:{silent.getsockname()[1]}"
        program = start_registrar(learner, "shop", "shop_v1_mine", f"{HOST}:{free_port()}", address)

        def was_asked_twice() -> bool:
            with contextlib.suppress(BlockingIOError):  # nobody has connected since we looked
                connections.append(silent.accept()[0])
            return len(connections) >= 2

        program.until(was_asked_twice, PATIENCE)
        for connection in connections:
            connection.close()
    expect(
        len(connections) >= 2,
        "the registry takes the call and says nothing, and the registrar waits for ever: a call needs a time-out.",
        hop=Hop.CODE,
        seen=f"{len(connections)} call within {PATIENCE} s",
        expected="the call given up after 2 s, and another one",
        show=".venv/bin/python -c 'import socket; s = socket.create_server((\"127.0.0.1\", 9001)); input()'\n"
        f"and, beside it, {PROGRAM} shop shop_v1_mine 127.0.0.1:9000 https://127.0.0.1:9001 .run/certificates",
        log=program.output(),
    )


def test_a_registry_that_falls_silent_later_is_asked_again(learner, stage):
    key = Key(stage)
    show = "sed -n '/def register/,/def keep_registered/p' work/04-heartbeat/registrar.py"
    with relay_before(stage) as relay:
        program = start_registrar(learner, key.service, key.instance, key.address, relay.url)
        try:
            expect_key(program, key, stage)
            relay.is_silent.set()
            expect(
                program.until(lambda: relay.unanswered >= 2, HEARTBEAT + PATIENCE),
                "etcd falls silent while the registrar runs, and `refresh` waits for it without end. A call needs a "
                "timeout each time, not only the first time.",
                hop=Hop.REGISTRY,
                seen=f"{relay.unanswered} call within {HEARTBEAT + PATIENCE} s after etcd fell silent",
                expected="each call given up after 2 s, and another one",
                show=show,
                log=program.output(),
            )
            program.signal(signal.SIGTERM)
            expect(
                program.wait(PATIENCE) is not None,
                "etcd is silent when the registrar is asked to stop, and `deregister` waits for it without end.",
                hop=Hop.REGISTRY,
                seen=f"the registrar runs {PATIENCE} s after SIGTERM",
                expected="the call given up after 2 s, and the end of the registrar: the key expires",
                show=show,
                log=program.output(),
            )
            expect(
                program.status == 0,
                "etcd is silent when the registrar is asked to stop, and the registrar ends with an exception.",
                hop=Hop.REGISTRY,
                seen=f"status {program.status} after SIGTERM",
                expected="a warning, and status 0: the key expires",
                show=show,
                log=program.output(),
            )
        finally:
            program.signal(signal.SIGKILL)
            program.wait(LEAVE_TIMEOUT)
            stage.etcd.forget(key.service)


def test_ctrl_c_takes_the_key_away_too(learner, stage):
    key = Key(stage)
    with registrar(learner, stage, key) as program:
        expect_key(program, key, stage)
        program.signal(signal.SIGINT)
        program.wait(START_TIMEOUT)
        expect(
            not key.value(),
            "Ctrl-C ends the registrar, and its key stays: until it expires, requests go where no process listens.",
            hop=Hop.REGISTRY,
            seen=f"after SIGINT the key is there, for {key.ttl()} s more",
            expected="no key, as after SIGTERM: both are in SIGNALS",
            show=key.look(f"sleep 2; kill -INT $!; sleep 1; {LOOK}"),
            log=program.output(),
        )


@pytest.mark.timeout(60)
def test_a_restart_of_the_registry_is_survived(learner, stage):
    key = Key(stage)
    with registrar(learner, stage, key) as program:
        expect_key(program, key, stage)
        with stage.stopped("etcd"):
            # The subject of this test: at least one heartbeat fails.
            wait_until(lambda: program.has_ended, HEARTBEAT + 1)
        wait_until(lambda: answers(stage.etcd), START_TIMEOUT)
        is_written = "NotImplementedError" not in program.output()  # else `until`, below, says so
        expect(
            not (program.has_ended and is_written),
            "etcd was away for a moment, and the registrar died of it: so would all, and then nothing is served.",
            hop=Hop.REGISTRY,
            seen=f"it ended with status {program.status} while etcd was stopped",
            expected="another attempt, soon, until etcd is back",
            show="while your registrar runs, .venv/bin/supervisorctl -c .run/supervisor/supervisord.conf restart etcd",
            log=program.output(),
        )
        stage.etcd.deregister(key.service, key.instance)  # what an etcd does that comes back with an empty folder
        expect(
            program.until(key.value, HEARTBEAT + 2),
            "etcd has forgotten the key, and the registrar does not write it again: nobody finds the instance again.",
            hop=Hop.REGISTRY,
            seen=f"no key {HEARTBEAT + 2} s after it was removed",
            expected=f"{key.path} again, at the next heartbeat",
            show=f"while your registrar runs, {stage.etcdctl_remove('/services/shop/upstream/shop_v1_mine')}",
            log=program.output(),
        )
