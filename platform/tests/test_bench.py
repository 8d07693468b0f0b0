"""What microservices cost next to the monolith, measured by the bench in one run."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

BENCH_TIMEOUT = 200  # seconds; measured: 45
# What five services may cost, in multiples of the monolith's p50. For a machine that has nothing else to do.
BARS = {"reading, p50": 1.2, "posting over HTTP, p50": 1.5, "posting over Socket.IO, p50": 2.5}
HOPS = {"reading": (1, 1), "posting over HTTP": (1, 1), "posting over Socket.IO": (1, 2), "signing in": (1, 2)}


@pytest.fixture
def temporary(workshop, monkeypatch) -> Path:
    """Where the bench makes the folders of its stages."""
    monkeypatch.setenv("TMPDIR", str(workshop.run_folder))
    return workshop.run_folder


def marked(folder: Path) -> list[psutil.Process]:
    """Return the processes of all platforms whose run folders lie in this one."""
    found = []
    for process in psutil.process_iter():
        try:
            if process.environ().get("WORKSHOP_PLATFORM", "").startswith(f"{folder}/"):
                found.append(process)
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    return found


def test_stage_2_costs_little_more_than_the_monolith(workshop, temporary, print_figure):
    process = workshop.popen("bench", "stage0", "stage2", "--for", "2s", "--json")
    out, err = process.communicate(timeout=BENCH_TIMEOUT)
    assert process.returncode == 0, err
    report = json.loads(out)
    assert {sum(instances.values()) for instances in report["instances"].values()} == {5}
    rows = {row["name"]: row["values"] for row in report["rows"]}
    for row in report["rows"]:
        stage0, stage2 = row["values"]["stage0"], row["values"]["stage2"]
        print_figure(f"{row['name']}: {stage0:.1f} → {stage2:.1f} {row['unit']}, {stage2 / stage0:.2f} times")
    for kind, (stage0, stage2) in HOPS.items():
        assert rows[f"{kind}, hops"] == {"stage0": stage0, "stage2": stage2}
    others = ["reading, p99", "posting over HTTP, p99", "posting over Socket.IO, p99"]
    others += ["reading, 4 clients", "posting over HTTP, 4 clients"]
    others += ["processes, platform included", "memory (PSS), platform included", "lines of Python"]
    assert set(rows) == {*BARS, *others, *(f"{kind}, hops" for kind in HOPS)}
    assert list(temporary.iterdir()) == []
    assert marked(temporary) == []

    too_much = {name: rows[name] for name, most in BARS.items() if rows[name]["stage2"] > most * rows[name]["stage0"]}
    assert not too_much


def test_an_interrupted_bench_leaves_nothing(workshop, temporary, until):
    process = workshop.popen("bench", "stage0", start_new_session=True)
    until(lambda: len(marked(temporary)) > 4, 30, "some of the stage runs")
    os.killpg(process.pid, signal.SIGINT)
    process.communicate(timeout=60)

    assert process.returncode == 1
    assert marked(temporary) == []
    assert list(temporary.iterdir()) == []


def test_an_unknown_stage_and_an_unusable_time_are_refused_before_anything_starts(workshop, temporary):
    assert "There is no stage 'stage9'" in workshop.run("bench", "stage0", "stage9", expect=1).stderr
    assert "60 seconds for each figure" in workshop.run("bench", "--for", "2m", expect=2).stderr
    assert list(temporary.iterdir()) == []
