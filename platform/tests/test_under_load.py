"""Scaling under a steady load, with nobody noticing: the ledger of the probe says so."""

import re
import signal
import time

from tests.load import Watch, assert_flawless, in_rotation, summary

from workshop.probe import Probe


def test_scaling_from_one_to_four_and_back_fails_no_request(stage, print_figure):
    stage.run("scale", f"{stage.chat}=1")
    started = time.monotonic()
    with Probe(stage.url) as probe:
        probe.run_for(1)
        stage.run("scale", f"{stage.chat}=4")
        assert len(in_rotation(stage)) == 4
        probe.run_for(1)
        stage.run("scale", f"{stage.chat}=1")
        assert len(in_rotation(stage)) == 1
        probe.run_for(1)
        took = time.monotonic() - started
    print_figure(f"scaling 1→4→1 in {took:.1f} s: {summary(probe.ledger)}")
    assert_flawless(probe.ledger)


def test_scaling_never_has_fewer_in_rotation_than_the_smaller_of_before_and_after(stage):
    with Watch(stage) as watch:
        stage.run("scale", f"{stage.chat}=2")
        stage.run("scale", f"{stage.chat}=3")
    assert min(watch.counts) == 2
    assert max(watch.counts) == 3


def test_the_probe_command_prints_its_ledger_and_exits_with_0_when_nothing_failed(stage):
    ledger = stage.run("probe", "--for", "2s").stdout

    assert re.search("of these lost, doubled +│ 0, 0 ", ledger)


def test_the_probe_command_exits_with_1_when_requests_failed(stage, until):
    killed = {instance["pid"] for instance in stage.instances()}
    probe = stage.popen("probe", "--for", "1m")
    assert "POSTs a second" in probe.stdout.readline()  # the load has begun
    stage.run("kill", stage.chat)
    until(lambda: killed.isdisjoint(i["pid"] for i in stage.instances()) and in_rotation(stage), 20, "one is back")
    probe.send_signal(signal.SIGINT)
    out, _ = probe.communicate(timeout=30)

    assert probe.returncode == 1, out
    assert "503" in out, out
    assert re.search("of these lost, doubled +│ 0, 0 ", out), out
