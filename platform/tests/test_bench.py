"""What the strangler and the microservices cost next to the monolith, measured by the bench in one run."""

import json
import os
import signal
from pathlib import Path

import psutil
import pytest

BENCH_TIMEOUT = 200  # seconds: each of three stages comes up, is scaled, measured for 5 s, and goes down
INSTANCES = 5
# gunicorn and its worker for each instance; while there is Celery, its worker and its clock
SERVICES, CELERY = INSTANCES * 2, 2
# a sidecar for each instance; supervisord, etcd, Redis, HAProxy and its master, the manager
PLATFORM = INSTANCES + 6
# What is so in stages 0, 1 and 2, whatever the machine.
EXACTLY = {
    "reading, hops": (1, 1, 1),
    "posting over HTTP, hops": (1, 1, 1),
    "posting over Socket.IO, hops": (1, 1, 2),
    "signing in, hops": (1, 2, 2),
    "processes of the services": (SERVICES + CELERY, SERVICES + CELERY, SERVICES),
    "processes with the platform": (SERVICES + CELERY + PLATFORM, SERVICES + CELERY + PLATFORM, SERVICES + PLATFORM),
}
# What stages 1 and 2 may cost, in multiples of the monolith's p50. For a machine that has nothing else to do.
BARS = {"reading, p50": (1.2, 1.2), "posting over HTTP, p50": (1.5, 1.5), "posting over Socket.IO, p50": (1.5, 2.5)}
WITHOUT_BAR = {
    "reading, p99",
    "posting over HTTP, p99",
    "posting over Socket.IO, p99",
    "reading, 4 clients",
    "posting over HTTP, 4 clients",
    "memory of the services",
    "memory with the platform",
    "lines of Python",
}


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


def test_the_strangler_and_the_services_cost_little_more_than_the_monolith(workshop, temporary, print_figure):
    process = workshop.popen("bench", "--for", "1s", "--json")
    out, err = process.communicate(timeout=BENCH_TIMEOUT)
    assert process.returncode == 0, err
    assert list(temporary.iterdir()) == []
    assert marked(temporary) == []

    report = json.loads(out)
    for by_stage in (report["instances"], report["wins"], report["loses"]):
        assert list(by_stage) == ["stage0", "stage1", "stage2"]
        assert all(by_stage.values())
    assert {sum(instances.values()) for instances in report["instances"].values()} == {INSTANCES}
    rows = {row["name"]: tuple(row["values"].values()) for row in report["rows"]}
    for name, (monolith, *others) in rows.items():
        print_figure(f"{name}: {monolith:.1f} → " + ", ".join(f"{v:.1f} ({v / monolith:.2f} times)" for v in others))
    assert rows.keys() == EXACTLY.keys() | BARS.keys() | WITHOUT_BAR
    assert {name: rows[name] for name in EXACTLY} == EXACTLY
    for part, whole in zip(rows["memory of the services"], rows["memory with the platform"], strict=True):
        assert 0 < part < whole
    for name, bars in BARS.items():
        monolith, *others = rows[name]
        assert all(value < most * monolith for value, most in zip(others, bars, strict=True)), (name, rows[name])


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
