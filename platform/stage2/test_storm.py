"""A storm: every second for a minute, a random instance is killed; one of each service stays."""

import os
import random
import signal
import time

import psutil
from tests.load import ask_supervisor, containers, pid_of, summary

from workshop.haproxy import Runtime
from workshop.probe import Probe

LASTS = 60  # seconds
EVERY = 1  # second
FEW = 0.001  # of the GETs may fail


def victims(stage) -> list[str]:
    """Return the instances that may be killed: those of services that have another one in rotation."""
    rows = Runtime(stage.run_folder / "haproxy").servers().values()
    services = [[name for name, row in servers.items() if row["status"].startswith("UP")] for servers in rows]
    return sorted(name for up in services if len(up) > 1 for name in up)


def kill(stage, instance: str) -> bool:
    """Kill a service with all its processes; its sidecar stays. False when it has just ended already."""
    try:
        if stage.driver == "docker":
            pids = [pid for name, pid, _ in containers(stage) if name.endswith(f"-{instance}")]
        else:
            pids = [service.pid for service in psutil.Process(pid_of(stage, instance)).children()]
        for pid in pids:
            os.killpg(pid, signal.SIGKILL)
    except (psutil.NoSuchProcess, ProcessLookupError):
        return False
    return bool(pids)


def test_a_minute_in_which_an_instance_is_killed_every_second_loses_nothing(stage, print_figure, until):
    chance, killed = random.Random(1), []  # noqa: S311 (the same storm each time)
    with Probe(stage.url) as probe:
        started = time.monotonic()
        while time.monotonic() - started < LASTS:
            candidates = victims(stage)
            if candidates and kill(stage, victim := chance.choice(candidates)):
                killed.append(victim)
            probe.run_for(EVERY - (time.monotonic() - started) % EVERY)
    ledger = probe.ledger
    failed = len(ledger.failed("GET"))
    print_figure(
        f"{len(killed)} kills in {LASTS} s: {summary(ledger)}; listeners reconnected {ledger.reconnects} times; "
        f"{100 * failed / len(ledger.of('GET')):.2f} % of the GETs failed"
    )
    assert len(killed) > LASTS / 2
    assert (ledger.is_counted, ledger.lost, ledger.doubled) == (True, [], [])
    assert failed < FEW * len(ledger.of("GET"))
    states = {p["name"]: p["statename"] for p in ask_supervisor(stage, "getAllProcessInfo")}
    assert "FATAL" not in states.values(), states
    until(lambda: len(victims(stage)) == 7, 20, "all instances back")
