"""Sidecars of the learner's, with a slow service, beside the services of the running stage."""

import secrets
import signal
import sys
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from workshop import paths
from workshop.haproxy import HAProxyUnavailable
from workshop.probe import session
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

SLOW_SERVICE = Path(__file__).with_name("slow_service.py")
SLOW = 3.5  # seconds that a request takes: HAProxy lets none take longer than 4.5
# Seconds for a stop with nothing in flight. Less than SLOW: a pause of fixed length is too short for the one or too
# long for the other.
PROMPT = 3
START = 10  # seconds for a process to start and to be asked, on a busy machine
CLOSING = 1  # seconds that the slow service takes to end
DRAIN_TIMEOUT, STOP_TIMEOUT = 8, 5  # seconds: the sidecar's
SERVICE_BY_HAND = ".venv/bin/python exercises/06-draining/slow_service.py '$PORT' /tmp/slow"
START_TIMEOUT = 20  # seconds: the sidecar's
# Runs the learner's sidecar with a shorter START_TIMEOUT, in seconds: then the check need not wait so long.
HURRIED = "import sidecar; sidecar.START_TIMEOUT = 2; sidecar.main()"
UNKNOWN = "no_route"  # a name that the load balancer reads no service of: nobody will confirm anything to it


def by_hand(stage, command: str = SERVICE_BY_HAND, service: str = "slow") -> str:
    """Return what the learner types to start the same."""
    sidecar = "PYTHONPATH=platform .venv/bin/python work/06-draining/sidecar.py"
    return f"{sidecar} {service} {service}_v1_me /slow {stage.registry} {command}"


class Instance:
    """A sidecar of the learner's with its slow service."""

    def __init__(self, stage, service: str, prefix: str, folder: Path):
        self.name = f"{service}_v1_{secrets.token_hex(2)}"
        self.stage, self.service, self.url = stage, service, stage.url.rstrip("/") + prefix
        self.folder = folder / self.name
        self.folder.mkdir()

    def events(self) -> list[str]:
        """Return what the service has written down."""
        file = self.folder / "events"
        return file.read_text().splitlines() if file.exists() else []

    def has(self, event: str) -> bool:
        return event in self.events()

    def helper_runs(self) -> bool:
        """Tell whether the process that the service has started still runs."""
        pid = next((int(event.split()[1]) for event in self.events() if event.startswith("helper ")), 0)
        try:
            return psutil.Process(pid).name() == "sleep" and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
        except psutil.NoSuchProcess:
            return False

    def in_flight(self) -> int:
        """Return how many requests had begun and not ended, at SIGTERM if that has come."""
        events = self.events()
        past = events[: events.index("SIGTERM")] if "SIGTERM" in events else events
        return past.count("begun") - past.count("answered")

    def become_ready(self) -> None:
        (self.folder / "ready").touch()

    def is_registered(self) -> bool:
        return any(key.endswith(f"/{self.name}") for key in self.stage.keys(f"/services/{self.service}"))

    def is_in_rotation(self) -> bool:
        try:
            row = self.stage.haproxy.servers().get(self.service, {}).get(self.name)
        except HAProxyUnavailable:
            return False  # HAProxy is being told of the new service
        return bool(row) and row["status"].startswith("UP")

    def leave(self) -> None:
        self.program.signal(signal.SIGTERM)

    def post(self, seconds: float) -> str:
        """Send a request, which no load balancer may send twice; return what became of it."""
        with session() as http:
            try:
                return str(http.post(f"{self.url}?seconds={seconds}", timeout=10).status_code)
            except requests.RequestException as error:
                return type(error).__name__


class Instances:
    """All that a test starts."""

    def __init__(self, stage, folder: Path):
        self.stage, self.folder = stage, folder
        self.service = f"slow-{secrets.token_hex(3)}"
        self.started: list[Instance] = []

    def start(
        self,
        learner,
        *behaviour: str,
        service: str | None = None,
        command: list[str] | None = None,
        is_hurried: bool = False,
    ) -> Instance:
        made = Instance(self.stage, service or self.service, f"/{self.service}", self.folder)
        command = command or [sys.executable, str(SLOW_SERVICE), "$PORT", str(made.folder), *behaviour]
        words = [made.service, made.name, f"/{self.service}", self.stage.registry, *command]
        if is_hurried:
            path = f"{paths.REPOSITORY / 'platform'}:{learner.folder}"
            made.program = learner.launch([sys.executable, "-c", HURRIED, *words], learner.folder, PYTHONPATH=path)
        else:
            made.program = learner.start("sidecar.py", *words)
        self.started.append(made)
        return made

    def start_in_rotation(self, learner, *behaviour: str) -> Instance:
        made = self.start(learner, *behaviour)
        made.become_ready()
        expect(
            made.program.until(made.is_in_rotation, START),
            f"An instance that is healthy gets no requests {START} s after it was started.",
            hop=Hop.REGISTRY,
            seen=f"{made.events()[-1:]}, registered: {made.is_registered()}",
            expected="registered, and in rotation",
            show="./workshop logs balancer",
            log=made.program.output(),
        )
        return made

    def end(self) -> None:
        """End what is left, and forget it; the kernel ends the service of a sidecar that is killed."""
        for instance in self.started:
            if not instance.program.has_ended:
                instance.program.signal(signal.SIGKILL)
                instance.program.wait(5)
        for service in {instance.service for instance in self.started}:
            self.stage.etcd.forget(service)
        wait_until(self.is_forgotten, START)

    def is_forgotten(self) -> bool:
        try:
            return self.service not in self.stage.haproxy.servers()
        except HAProxyUnavailable:
            return False


@pytest.fixture
def instances(stage, tmp_path):
    made = Instances(stage, tmp_path)
    yield made
    made.end()


def test_is_registered_once_it_can_serve(instances, learner):
    instance = instances.start(learner)
    instance.program.until(lambda: instance.events().count("checked 503") >= 2 or instance.is_registered(), START)
    checks = instance.events().count("checked 503")
    expect(
        not (instance.is_registered() and checks == 0),
        "It registers the instance without having asked whether it can serve: requests come, and nobody is at home.",
        hop=Hop.REGISTRY,
        seen="the key is there, and the service was never asked",
        expected="GET /healthz until it says 200, and only then the key",
        show="./workshop logs balancer",
        log=instance.program.output(),
    )
    expect(
        not instance.is_registered(),
        "It registers an instance that says 503, not ready: an answer is not a yes, only 200 is.",
        hop=Hop.REGISTRY,
        seen=f"{checks} times 503 from /healthz, and the key is there",
        expected="no key before the first 200",
        show="./workshop logs balancer",
        log=instance.program.output(),
    )
    instance.become_ready()
    expect(
        instance.program.until(instance.is_registered, PROMPT),
        f"The instance says 200, and is not registered {PROMPT} s later: it is there, and serves nobody.",
        hop=Hop.REGISTRY,
        seen=f"no key; the service was asked {len(instance.events()) - 1} times",
        expected=f"/services/{instance.service}/upstream/{instance.name}",
        show="./workshop logs balancer",
        log=instance.program.output(),
    )


def test_only_200_is_healthy(instances, learner):
    folder = str(instances.folder)
    command = [sys.executable, "-m", "http.server", "--bind", "127.0.0.1", "--directory", folder, "$PORT"]
    instance = instances.start(learner, command=command)

    def checks() -> int:
        return instance.program.output().count("GET /healthz")

    instance.program.until(lambda: checks() >= 2 or instance.is_registered(), START)
    expect(
        not instance.is_registered(),
        "The sidecar registers a service that answers 404 to GET /healthz. Only 200 means that an instance can serve.",
        hop=Hop.REGISTRY,
        seen="404 from /healthz, and the key is there",
        expected="no key before the first 200",
        show=by_hand(instances.stage, ".venv/bin/python -m http.server --bind 127.0.0.1 '$PORT'"),
        log=instance.program.output(),
    )


def test_a_health_check_without_an_answer_is_given_up(instances, learner):
    instance = instances.start(learner, "mute")
    instance.become_ready()
    expect(
        instance.program.until(instance.is_registered, START + PROMPT),
        "The first health check gets no answer, and the sidecar waits for it without end. The service would answer the "
        "next one.",
        hop=Hop.SERVICE,
        seen=f"of the service: {', '.join(instance.events()[1:])}; no key {START + PROMPT} s after the start",
        expected="a health check with the timeout HEALTH_TIMEOUT, and then another one",
        show=by_hand(instances.stage, f"{SERVICE_BY_HAND} mute"),
        log=instance.program.output(),
    )


@pytest.mark.timeout(45)
def test_a_service_that_never_becomes_healthy_is_given_up(instances, learner):
    instance = instances.start(learner, is_hurried=True)
    expect(
        instance.program.wait(START_TIMEOUT + PROMPT) == 1,
        "A service that never becomes healthy is asked without end: `begin` has no deadline.",
        hop=Hop.SERVICE,
        seen=f"the sidecar still asks {START_TIMEOUT + PROMPT} s after its start"
        if instance.program.status is None
        else f"status {instance.program.status}",
        expected="after START_TIMEOUT, `begin` returns False, and the sidecar ends with status 1",
        show=by_hand(instances.stage),
        log=instance.program.output(),
    )


def test_gives_up_when_the_service_has_ended(instances, learner):
    instance = instances.start(learner, command=[sys.executable, "-c", "raise SystemExit(3)"])
    expect(
        instance.program.wait(START) == 1,
        "A service that ends at its start leaves its sidecar waiting: nobody learns of it, and nobody starts it anew.",
        hop=Hop.SERVICE,
        seen=f"no end within {START} s" if instance.program.status is None else f"status {instance.program.status}",
        expected="`begin` returns False, and the sidecar ends with status 1",
        show=by_hand(instances.stage, "false"),
        log=instance.program.output(),
    )


def test_stops_and_nobody_notices(instances, learner):
    leaving, staying = (instances.start_in_rotation(learner) for _ in range(2))
    with ThreadPoolExecutor(max_workers=8) as pool:
        slow = [pool.submit(leaving.post, SLOW) for _ in range(4)]
        until_begun(leaving, staying, 4)
        leaving.leave()
        asked, quick = time.monotonic(), []
        deadline = time.monotonic() + SLOW + DRAIN_TIMEOUT + STOP_TIMEOUT
        while not leaving.program.has_ended and time.monotonic() < deadline:
            refuse_end_before_deregistration(leaving)
            refuse_late_deregistration(leaving, asked)
            quick.append(pool.submit(leaving.post, 0))
            time.sleep(0.05)  # the pace of the load: 20 a second
    # First what the service saw: it is nearer to the cause than what became of the requests.
    expect(
        leaving.in_flight() == 0,
        "The service is told to end while requests are in flight: it has got no new ones, but those it had are lost.",
        hop=Hop.SERVICE,
        seen=f"SIGTERM with {leaving.in_flight()} requests in flight; answered: {', '.join(results(slow))}",
        expected="SIGTERM once the load balancer has confirmed that nothing is in flight",
        show="./workshop logs balancer | grep drained",
        log=leaving.program.output(),
    )
    expect(
        leaving.has("closed"),
        "The service has no time to end: it is killed before its files are closed, or the sidecar ends before it, and "
        "then the kernel kills it.",
        hop=Hop.SERVICE,
        seen=f"the last of the service: {leaving.events()[-1]}",
        expected=f"SIGTERM, and then its end is waited for, up to {STOP_TIMEOUT} s",
        show=f"{by_hand(instances.stage)} & tail -f /tmp/slow/events",
        log=leaving.program.output(),
    )
    failed = [answer for answer in results(slow + quick) if answer != "200"]
    expect(
        not failed,
        f"{len(failed)} of {len(slow) + len(quick)} requests failed while an instance was stopped.",
        hop=Hop.BALANCER,
        seen=", ".join(failed),
        expected="200 for all of them",
        show="./workshop logs haproxy",
        log=instances.stage.log("haproxy"),
    )


def until_begun(leaving: Instance, staying: Instance, count: int) -> None:
    """Wait until so many requests are in flight. They are shared by the two, in turn."""
    if not wait_until(lambda: leaving.in_flight() and leaving.in_flight() + staying.in_flight() == count, START):
        raise AssertionError(f"{count} requests were sent: {leaving.events()}, {staying.events()}")


def refuse_end_before_deregistration(instance: Instance) -> None:
    if instance.has("SIGTERM") and instance.is_registered():
        raise Wrong(
            "The service is told to end while it is still registered: the load balancer goes on sending it requests.",
            hop=Hop.REGISTRY,
            seen=f"SIGTERM with {instance.in_flight()} requests in flight, and the key is there",
            expected="first the key is taken away",
            show="./workshop logs balancer",
            log=instance.program.output(),
        )


def refuse_late_deregistration(instance: Instance, asked: float) -> None:
    if time.monotonic() - asked > PROMPT and instance.is_registered():
        raise Wrong(
            "The sidecar is to leave, and leaves its key in the registry: new requests come, so it never has none in "
            "flight, and the load balancer confirms nothing about an instance that is in rotation.",
            hop=Hop.REGISTRY,
            seen=f"{PROMPT} s after SIGTERM the key is there",
            expected="first the key is taken away, at once",
            show="./workshop logs balancer",
            log=instance.program.output(),
        )


def results(futures: list[Future]) -> list[str]:
    return [future.result() for future in futures]


def test_every_wait_has_an_end(instances, learner):
    stubborn = instances.start_in_rotation(learner, "stubborn", "helper")
    unknown = instances.start(learner, "helper", service=UNKNOWN)
    unknown.become_ready()
    unknown.program.until(unknown.is_registered, START)

    stubborn.leave()
    expect(
        stubborn.program.until(lambda: stubborn.has("SIGTERM"), PROMPT),
        "Nothing is in flight, and yet the service is not told to end: no pause of fixed length is right for all.",
        hop=Hop.SERVICE,
        seen=f"no SIGTERM {PROMPT} s after the sidecar got its own",
        expected="SIGTERM as soon as the load balancer has confirmed, within 0.2 s mostly",
        show="./workshop logs balancer | grep drained",
        log=stubborn.program.output(),
    )
    unknown.leave()
    expect(
        unknown.program.wait(DRAIN_TIMEOUT + CLOSING + PROMPT) is not None,
        "Without a load balancer that confirms, the sidecar waits for ever: a machine could never be shut down.",
        hop=Hop.REGISTRY,
        seen=f"it runs {DRAIN_TIMEOUT + CLOSING + PROMPT} s after SIGTERM; nobody has written /drained/…",
        expected=f"SIGTERM to the service after {DRAIN_TIMEOUT} s",
        show=by_hand(instances.stage, service=UNKNOWN),
        log=unknown.program.output(),
    )
    expect(
        stubborn.program.wait(PROMPT) is not None,
        "A service that takes no notice of SIGTERM is waited for without an end.",
        hop=Hop.SERVICE,
        seen=f"it runs {DRAIN_TIMEOUT + CLOSING} s after SIGTERM",
        expected=f"SIGKILL after {STOP_TIMEOUT} s",
        show=by_hand(instances.stage, f"{SERVICE_BY_HAND} stubborn"),
        log=stubborn.program.output(),
    )
    left = {
        "hop": Hop.SERVICE,
        "seen": "the helper of slow_service.py still runs after the sidecar's end",
        "expected": "no process of the service's group, since `kill` reaches all of them",
        "show": "sed -n '/def leave/,/What follows/p' work/06-draining/sidecar.py",
    }
    expect(
        not stubborn.helper_runs(),
        "The sidecar kills a service that takes no notice of SIGTERM, but not the processes that this has started.",
        log=stubborn.program.output(),
        **left,
    )
    expect(
        not unknown.helper_runs(),
        "A service ends at SIGTERM, and a process that it has started outlives it. Call `kill` after that end, too.",
        log=unknown.program.output(),
        **left,
    )
