"""The lock: one command at a time changes what runs."""

import fcntl
import threading

import pytest

from workshop import paths, state
from workshop.errors import WorkshopError


@pytest.fixture(autouse=True)
def run_folder(tmp_path, monkeypatch):
    """A run folder of its own."""
    monkeypatch.setattr(paths, "RUN", tmp_path)
    monkeypatch.setattr(paths, "LOCK", tmp_path / "lock")


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
