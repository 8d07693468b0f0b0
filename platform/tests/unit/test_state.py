"""What is up, and the lock: one command at a time changes what runs."""

import fcntl
import re
import threading

import pytest
from click.testing import CliRunner

from workshop import deck, exercises, paths, state
from workshop.commands import exercise
from workshop.errors import WorkshopError


@pytest.fixture(autouse=True)
def run_folder(tmp_path, monkeypatch):
    """A run folder of its own."""
    monkeypatch.setattr(paths, "RUN", tmp_path)
    monkeypatch.setattr(paths, "LOCK", tmp_path / "lock")
    monkeypatch.setattr(paths, "STATE", tmp_path / "stage.json")


def test_a_command_is_refused_and_told_who_is_at_work():
    with state.locked("up stage0"):
        refused = pytest.raises(WorkshopError, match=r"`./workshop up stage0` \(process \d+\) is at work")
        with refused, state.locked("down"):
            pass
        assert state.at_work().startswith("`./workshop up stage0` (process ")
    assert state.at_work() is None


def test_who_is_at_work_and_could_not_write_its_name_is_at_work_all_the_same():
    with state.locked("up stage0"):
        paths.LOCK.write_text("")
        assert state.at_work() == "another command"


def test_a_command_waits_for_somebody_who_only_looks():
    with state.locked("down"):
        pass
    looking = paths.LOCK.open()
    fcntl.flock(looking, fcntl.LOCK_SH)
    is_done = threading.Timer(0.05, looking.close)
    is_done.start()
    with state.locked("up stage0"):
        assert looking.closed
    is_done.join()


def test_texts_name_the_ports_of_the_stage_that_is_up():
    text = "curl localhost:8080/api/users and http://127.0.0.1:8081/, 8080 characters, port 8080, 127.0.0.1:80801"
    assert state.with_real_ports(text) == text
    state.Up("stage0", "process", "sqlite", {"public": 9310, "statistics": 9320}, {}, {}, {}).save(paths.STATE)
    assert state.with_real_ports(text) == (
        "curl localhost:9310/api/users and http://127.0.0.1:9320/, 8080 characters, port 8080, 127.0.0.1:80801"
    )


def test_hints_slides_and_exercises_print_those_ports(tmp_path, monkeypatch):
    monkeypatch.setattr(exercises, "WORK", tmp_path / "work")
    monkeypatch.setattr(exercises, "PROGRESS", tmp_path / "work" / "progress.json")
    state.Up("stage0", "process", "sqlite", {"public": 9310, "statistics": 9320}, {}, {}, {}).save(paths.STATE)
    hints = ""
    for number, levels in (("01", 4), ("10", 4)):
        for level in range(1, levels + 1):
            hints += CliRunner().invoke(exercise.command, ["hint", number, str(level)]).output
    started = CliRunner().invoke(exercise.command, ["start", "01"]).output

    assert "http://127.0.0.1:9310/" in hints and "localhost:9310/" in hints
    assert "http://127.0.0.1:9310/" in deck.page()
    assert "your stage is at localhost:9310" in started
    assert not re.search(r"(localhost|127\.0\.0\.1):808[01]\b", hints + deck.page())
