"""Answers of supervisord that the real one gives only by chance."""

import os
import signal
import threading
import xmlrpc.client
from types import SimpleNamespace

import psutil
import pytest
from supervisor.xmlrpc import Faults

from workshop import supervisor
from workshop.errors import WorkshopError


@pytest.fixture
def refuse_start(monkeypatch):
    """Have supervisord know one program, which has ended, and refuse to start it."""

    def refuse(code: int) -> None:
        def start(name: str, wait: bool) -> None:
            raise xmlrpc.client.Fault(code, name)

        rows = [{"name": "monolith_v1_aaaa", "statename": "EXITED", "pid": 0}]
        fake = SimpleNamespace(getAllProcessInfo=lambda: rows, startProcess=start)
        monkeypatch.setattr(supervisor, "_supervisord", lambda: fake)
        monkeypatch.setattr(supervisor, "has_logs", lambda: True)

    return refuse


def test_a_program_that_supervisord_restarts_in_the_same_instant_is_no_error(refuse_start):
    refuse_start(Faults.ALREADY_STARTED)

    supervisor.restart(["monolith_v1_aaaa"])


def test_a_program_that_supervisord_cannot_start_is_an_error(refuse_start):
    refuse_start(Faults.NO_FILE)

    with pytest.raises(xmlrpc.client.Fault):
        supervisor.restart(["monolith_v1_aaaa"])


def test_a_program_is_told_to_end_only_when_it_is_more_than_a_copy_of_supervisord(monkeypatch):
    reading, writing = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            os.read(reading, 1)
            os.execvp("sleep", ["sleep", "60"])
        finally:
            os._exit(1)
    told = []
    rows = [{"name": "monolith_v1_aaaa", "statename": "STARTING", "pid": pid}]
    fake = SimpleNamespace(
        getAllProcessInfo=lambda: rows, stopProcess=lambda name, wait: told.append(psutil.Process(pid).name())
    )
    monkeypatch.setattr(supervisor, "_supervisord", lambda: fake)
    become_the_program = threading.Timer(0.2, os.write, (writing, b"now"))
    become_the_program.start()
    try:
        supervisor.begin_to_stop(["monolith_v1_aaaa"])
    finally:
        become_the_program.join()
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
        os.close(reading)
        os.close(writing)

    assert told == ["sleep"]


class Crashing:
    """A supervisord with a program that ends by itself at the worst moment; it starts it anew, as the real one does."""

    def __init__(self, state: str):
        self.state = state
        self.told_in: list[str] = []  # states

    def getAllProcessInfo(self) -> list[dict]:
        row = {"name": "monolith_v1_aaaa", "statename": self.state, "pid": 0}
        if self.state == "EXITED":
            self.state = "STARTING"
        return [row]

    def stopProcess(self, name: str, wait: bool) -> None:
        self.told_in.append(self.state)
        if self.state == "RUNNING":
            self.state = "EXITED"  # it was faster
            raise xmlrpc.client.Fault(Faults.NOT_RUNNING, name)
        self.state = "STOPPED"


@pytest.mark.parametrize(
    ("state", "told_in"),
    [("EXITED", ["STARTING"]), ("RUNNING", ["RUNNING", "STARTING"]), ("STARTING", ["STARTING"])],
)
def test_a_program_that_has_just_ended_by_itself_is_ended_for_good(monkeypatch, state, told_in):
    fake = Crashing(state)
    monkeypatch.setattr(supervisor, "_supervisord", lambda: fake)
    monkeypatch.setattr(supervisor, "STOP_TIMEOUT", -4)  # so that `stop` gives up after a second

    supervisor.stop(["monolith_v1_aaaa"])

    assert (fake.state, fake.told_in) == ("STOPPED", told_in)


def test_a_supervisord_that_is_just_ending_is_one_that_is_gone(monkeypatch):
    def refuse() -> None:
        raise xmlrpc.client.Fault(Faults.SHUTDOWN_STATE, "SHUTDOWN_STATE")

    monkeypatch.setattr(supervisor, "_supervisord", lambda: SimpleNamespace(getState=refuse, getAllProcessInfo=refuse))

    assert not supervisor.is_running()
    with pytest.raises(WorkshopError, match="supervisor is gone"):
        supervisor.processes()
