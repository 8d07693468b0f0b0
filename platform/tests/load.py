"""What the tests under load share: what is asserted of a ledger, how a stage is watched, and how parts of it fail."""

import os
import signal
import subprocess
import sys
import threading
import xmlrpc.client
from contextlib import contextmanager, suppress
from pathlib import Path

import psutil
from contract.conftest import Client
from supervisor.xmlrpc import SupervisorTransport
from tests.engine import docker

from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.probe import Ledger, Load

# A second. The load offers more than 50 GETs and 20 POSTs; while containers start on two cores, fewer are answered.
LEAST_READS, LEAST_WRITES = 25, 10
INSIDE = Load().readers  # requests of a kind that can be inside one instance: each client waits for its answer
assert Load().writers == INSIDE
CLIENTS = Path(__file__).with_name("socketio_clients.py")


def assert_flawless(ledger: Ledger, killed: int = 0, are_pushed: bool = True) -> None:
    """Assert that the load was what it is meant to be, that nothing was lost or doubled, and that nothing failed.

    What was already inside the `killed` instances is excepted: answers that had begun, and POSTs.
    """
    inside, seconds = killed * INSIDE, ledger.duration - 1
    assert ledger.is_counted
    assert ledger.failed("GET") == []
    assert len(ledger.cut_off("GET")) <= inside, ledger.cut_off("GET")
    assert len(ledger.failed("POST") + ledger.cut_off("POST")) <= inside, ledger.failed("POST")
    assert (ledger.lost, ledger.doubled) == ([], [])
    assert len(ledger.of("GET")) >= LEAST_READS * seconds
    assert len(ledger.of("POST")) >= LEAST_WRITES * seconds
    # A push may fall into the moment in which all listeners reconnect; their pages would catch up.
    if are_pushed:  # without Redis there is nothing to be expected
        assert len(ledger.pushed & set(ledger.acknowledged.values())) >= 0.9 * len(ledger.acknowledged)


def summary(ledger: Ledger) -> str:
    kinds = [
        f"{len(ledger.of(method))} {method}s ({len(ledger.of(method)) / ledger.duration:.0f} a second), "
        f"{len(ledger.failed(method))} failed, {len(ledger.cut_off(method))} cut off, "
        f"p99 {ledger.percentile(method, 99):.0f} ms"
        for method in ("GET", "POST")
    ]
    pushed = ledger.pushed & set(ledger.acknowledged.values())
    return f"{'; '.join(kinds)}; {len(pushed)} of {len(ledger.acknowledged)} pushed"


def in_rotation(stage, service: str | None = None) -> list[str]:
    """Return the instances of a service that HAProxy sends requests to; none when HAProxy itself is away."""
    try:
        rows = Runtime(stage.run_folder / "haproxy").servers()[service or stage.chat]
    except HAProxyUnavailable:
        return []
    return sorted(name for name, row in rows.items() if row["status"].startswith("UP"))


class Watch:
    """Looks all the time how many instances of a service are in rotation."""

    def __init__(self, stage, service: str | None = None):
        self.stage, self.service, self.counts, self.is_over = stage, service, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.is_over.wait(0.01):
            self.counts.append(len(in_rotation(self.stage, self.service)))

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.is_over.set()
        self.thread.join()


def still_running(processes) -> list[psutil.Process]:
    """Return those that have not ended; one that has, and that its new parent has not reaped yet, does not count."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def ask_supervisor(stage, method: str, *arguments):
    """Call a method of the stage's process supervisor, as supervisorctl does."""
    transport = SupervisorTransport(serverurl=f"unix://{stage.run_folder}/supervisor/supervisor.sock")
    with xmlrpc.client.ServerProxy("http://127.0.0.1", transport=transport) as proxy:
        return getattr(proxy.supervisor, method)(*arguments)


def pid_of(stage, program: str) -> int:
    """Return the process id of what the supervisor has started: for an instance, its sidecar."""
    return ask_supervisor(stage, "getProcessInfo", program)["pid"]


def pid_of_server(stage, program: str) -> int:
    """Return the process id of HAProxy or of a store itself, in a container or not; 0 when it does not run."""
    if stage.driver != "docker":
        return pid_of(stage, program)
    return next((pid for name, pid, _ in containers(stage) if name.endswith(f"-{program}")), 0)


def containers(stage) -> list[tuple[str, int, str]]:
    """Return the name, the process id and the IP address of each container of a stage."""
    running = docker("ps", "--quiet", "--filter", f"label=workshop={stage.run_folder}").split()
    row = "{{.Name}} {{.State.Pid}} {{range .NetworkSettings.Networks}}{{.IPAddress}}{{end}}"
    rows = [line.split() for line in docker("inspect", "--format", row, *running).splitlines()]
    return [(row[0], int(row[1]), row[2]) for row in rows if len(row) == 3]  # one that has just ended has no address


@contextmanager
def stopped(stage, program: str):
    """Keep one of the platform's programs away, and start it again."""
    ask_supervisor(stage, "stopProcess", program)
    try:
        yield
    finally:
        ask_supervisor(stage, "startProcess", program, False)


@contextmanager
def frozen(pid: int):
    """Keep a process from doing anything, while its connections stay."""
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        os.kill(pid, signal.SIGCONT)


@contextmanager
def suspended(stage):
    """Stop every process of the stage, as a closed laptop lid does, and continue all of them."""
    stopped_ones: set[int] = set()
    try:
        # Again and again: a process may have started another one before it was stopped.
        while running := set(stage.processes()) - stopped_ones:
            for pid in running:
                with suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGSTOP)
            stopped_ones |= running
        yield
    finally:
        for pid in stopped_ones:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


class Crowd:
    """A process that holds many Socket.IO connections of one user."""

    def __init__(self, url: str, size: int):
        self.user = Client(url).register()
        self.arrived: dict[int, list[float]] = {}  # message that all of them got → when each did
        command = [sys.executable, str(CLIENTS), url, self.user.token, str(size)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout.readline() == "ready\n"
        self.reader = threading.Thread(target=self.read)
        self.reader.start()

    def read(self) -> None:
        for line in self.process.stdout:
            message_id, *times = line.split()
            self.arrived[int(message_id)] = [float(time) for time in times]

    def close(self) -> None:
        self.process.kill()
        self.process.wait()
        self.reader.join()
        self.process.stdout.close()
        self.user.http.close()
