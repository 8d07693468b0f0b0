"""Scaling and killing under a steady load, with nobody noticing: the ledger of the probe says so."""

import os
import signal
import threading
import time

import psutil

from workshop.haproxy import HAProxyUnavailable, Runtime
from workshop.probe import Probe

LEAST_READS, LEAST_WRITES = 50, 20  # a second, so that the load counts as one


def assert_flawless(ledger, seconds: float, posts_may_fail: int = 0) -> None:
    """Assert that the load was what it is meant to be, and that nothing failed, was lost or doubled."""
    assert ledger.is_counted
    assert ledger.failed("GET") == []
    assert len(ledger.failed("POST")) <= posts_may_fail, ledger.failed("POST")
    assert (ledger.lost, ledger.doubled) == ([], [])
    assert len(ledger.of("GET")) >= LEAST_READS * seconds
    assert len(ledger.of("POST")) >= LEAST_WRITES * seconds
    # A push may fall into the moment in which all listeners reconnect; their pages would catch up.
    assert len(ledger.pushed & set(ledger.acknowledged.values())) >= 0.9 * len(ledger.acknowledged)


def summary(ledger) -> str:
    return (
        f"{len(ledger.of('GET'))} GETs, {len(ledger.failed('GET'))} failed, p99 {ledger.percentile('GET', 99):.0f} ms; "
        f"{len(ledger.of('POST'))} POSTs, {len(ledger.failed('POST'))} failed, "
        f"p99 {ledger.percentile('POST', 99):.0f} ms, "
        f"{len(ledger.pushed & set(ledger.acknowledged.values()))} of {len(ledger.acknowledged)} pushed"
    )


def still_running(processes) -> list[psutil.Process]:
    """Return those that have not ended; one that has, and that its new parent has not reaped yet, does not count."""
    return [p for p in processes if p.is_running() and p.status() != psutil.STATUS_ZOMBIE]


def in_rotation(stage) -> list[str]:
    rows = Runtime(stage.run_folder / "haproxy").servers()["monolith"]
    return [name for name, row in rows.items() if row["status"].startswith("UP")]


def test_scaling_from_one_to_four_and_back_fails_no_request(stage, print_figure):
    stage.run("scale", "monolith=1")
    started = time.monotonic()
    with Probe(stage.url) as probe:
        probe.run_for(1)
        stage.run("scale", "monolith=4")
        assert len(in_rotation(stage)) == 4
        probe.run_for(1)
        stage.run("scale", "monolith=1")
        assert len(in_rotation(stage)) == 1
        probe.run_for(1)
        took = time.monotonic() - started
    print_figure(f"scaling 1→4→1 in {took:.1f} s: {summary(probe.ledger)}")
    assert_flawless(probe.ledger, took - 1)


class Watch:
    """Looks all the time how many instances are in rotation."""

    def __init__(self, stage):
        self.stage, self.counts, self.is_over = stage, [], threading.Event()
        self.thread = threading.Thread(target=self.run)

    def run(self) -> None:
        while not self.is_over.wait(0.01):
            self.counts.append(len(in_rotation(self.stage)))

    def __enter__(self) -> "Watch":
        self.thread.start()
        return self

    def __exit__(self, *exception) -> None:
        self.is_over.set()
        self.thread.join()


def test_scaling_never_has_fewer_in_rotation_than_the_smaller_of_before_and_after(stage):
    with Watch(stage) as watch:
        stage.run("scale", "monolith=2")
        stage.run("scale", "monolith=3")
    assert min(watch.counts) == 2
    assert max(watch.counts) == 3


def test_a_frozen_instance_leaves_rotation_and_is_replaced(stage, print_figure, until):
    victim = stage.instances()[0]
    frozen = time.monotonic()
    os.killpg(victim["pid"], signal.SIGSTOP)
    until(lambda: victim["id"] not in in_rotation(stage), 10, "out of rotation")
    out = time.monotonic() - frozen
    until(lambda: victim["id"] in in_rotation(stage), 30, "replaced")
    replaced = time.monotonic() - frozen
    print_figure(f"SIGSTOP → out of rotation {out:.1f} s, → replaced {replaced:.1f} s")
    assert out < 2
    assert replaced < 15


def test_the_probe_command_prints_its_ledger_and_exits_with_0_when_nothing_failed(stage):
    ledger = stage.run("probe", "--for", "2s").stdout

    assert "of these lost, doubled │ 0, 0" in ledger


def test_the_probe_command_exits_with_1_when_requests_failed(stage):
    probe = stage.popen("probe", "--for", "4s")
    assert "POSTs a second" in probe.stdout.readline()  # the load has begun
    stage.run("kill", "monolith")
    out, _ = probe.communicate(timeout=30)

    assert probe.returncode == 1
    assert "503" in out
    assert "of these lost, doubled │ 0, 0" in out


def test_killing_one_of_three_instances_fails_no_get_and_it_is_replaced(stage, print_figure, until):
    started = time.monotonic()
    with Probe(stage.url) as probe:
        probe.run_for(1)
        victim = stage.instances()[0]
        killed = time.monotonic()
        os.killpg(victim["pid"], signal.SIGKILL)
        until(lambda: victim["id"] not in in_rotation(stage), 5, "out of rotation")
        out = time.monotonic() - killed
        until(lambda: victim["id"] in in_rotation(stage), 15, "replaced")
        replaced = time.monotonic() - killed
        probe.run_for(1)
        took = time.monotonic() - started
    print_figure(f"kill -9 → out of rotation {1000 * out:.0f} ms, → replaced {replaced:.1f} s: {summary(probe.ledger)}")
    # What was already inside the killed process: at most one POST per writer.
    assert_flawless(probe.ledger, took - 1, posts_may_fail=probe.load.writers)
    assert out < 0.25
    assert replaced < 5


def test_killing_an_instance_with_its_sidecar_fails_no_get_and_leaves_no_orphan(stage, print_figure, until):
    started = time.monotonic()
    with Probe(stage.url) as probe:
        probe.run_for(1)
        victim = stage.instances()[0]
        service = psutil.Process(victim["pid"])
        family = [service, *service.children(recursive=True)]
        killed = time.monotonic()
        service.parent().kill()
        os.killpg(victim["pid"], signal.SIGKILL)
        until(lambda: victim["id"] not in in_rotation(stage), 5, "out of rotation")
        out = time.monotonic() - killed
        until(lambda: victim["id"] in in_rotation(stage), 15, "replaced")
        replaced = time.monotonic() - killed
        took = time.monotonic() - started
    print_figure(
        f"kill -9 with the sidecar → out of rotation {1000 * out:.0f} ms, → replaced {replaced:.1f} s: "
        f"{summary(probe.ledger)}"
    )
    assert_flawless(probe.ledger, took - 1, posts_may_fail=probe.load.writers)
    assert out < 1.5
    assert replaced < 5
    assert still_running(family) == []


def test_a_sidecar_killed_alone_leaves_no_orphan_of_a_real_service(stage, print_figure, until):
    victim = stage.instances()[0]
    service = psutil.Process(victim["pid"])
    family = [service, *service.children(recursive=True)]
    assert len(family) > 1  # gunicorn's master and its worker

    killed = time.monotonic()
    service.parent().kill()
    until(lambda: not still_running(family), 5, "all ended")
    print_figure(f"sidecar killed alone → no orphan: {time.monotonic() - killed:.2f} s")


def test_haproxy_killed_is_back_with_the_same_set(stage, print_figure, until):
    before = sorted(in_rotation(stage))
    # The master: the one that is not another one's child.
    both = [process for process in map(psutil.Process, stage.processes()) if process.name() == "haproxy"]
    (master,) = [process for process in both if process.parent() not in both]
    killed = time.monotonic()
    master.kill()
    until(lambda: is_back(stage, before), 10, "back with the same set")
    took = time.monotonic() - killed
    print_figure(f"HAProxy killed → back with the same set: {took:.1f} s")
    assert took < 2


def is_back(stage, expected) -> bool:
    try:
        return sorted(in_rotation(stage)) == expected
    except HAProxyUnavailable:
        return False
