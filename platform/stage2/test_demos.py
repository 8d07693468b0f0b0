"""The live demonstrations, without an audience: each keeps its promise, and leaves the stage as it was."""

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
