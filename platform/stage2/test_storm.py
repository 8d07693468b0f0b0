"""A storm: every second for a minute, a random instance is killed; one of each service stays."""

import os
import random
import signal
import time

from tests.load import ask_supervisor, summary

from workshop.probe import Probe

LASTS = 60  # seconds
EVERY = 1  # second
FEW = 0.001  # of the GETs may fail


def victims(stage) -> list[dict]:
    """Return the instances that may be killed: those of services that have another one in rotation."""
    services = [[i for i in s["instances"] if i["state"] == "UP" and i["pid"]] for s in stage.status()["services"]]
    return [instance for up in services if len(up) > 1 for instance in up]


def test_a_minute_in_which_an_instance_is_killed_every_second_loses_nothing(stage, print_figure, until):
    chance, killed = random.Random(1), []
    with Probe(stage.url) as probe:
        started = time.monotonic()
        while time.monotonic() - started < LASTS:
            if candidates := victims(stage):
                victim = chance.choice(candidates)
                os.killpg(victim["pid"], signal.SIGKILL)
                killed.append(victim["id"])
            probe.run_for(max(0.0, EVERY * len(killed) - (time.monotonic() - started)))
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
