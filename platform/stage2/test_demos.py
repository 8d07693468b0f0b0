"""The live demonstrations, without an audience: each keeps its promise, and leaves the stage as it was."""

import signal

import pytest

from workshop.demos import DEMOS


@pytest.mark.parametrize("name", DEMOS)
def test_a_demonstration_keeps_its_promise_and_leaves_the_stage_as_it_was(stage, name):
    def shape() -> dict:
        return {s["name"]: (s["version"], len(s["instances"])) for s in stage.status()["services"]}

    before = shape()
    out = stage.run("demo", name, "--auto").stdout
    assert f"As promised: {DEMOS[name].promise}." in out
    assert shape() == before


def test_an_interrupted_demonstration_leaves_the_stage_as_it_was(stage):
    before = [len(s["instances"]) for s in stage.status()["services"]]
    process = stage.popen("demo", "kill", "--auto")
    for line in process.stdout:  # ends with the test's time-out, if it never comes
        if line.startswith("$ ./workshop scale"):
            break
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=60)

    assert process.returncode == 1
    assert [len(s["instances"]) for s in stage.status()["services"]] == before
