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


@pytest.fixture
def refuse_start(monkeypatch):
    """Have supervisord know one program, which has ended, and refuse to start it."""

    def refuse(code: int) -> None:
        def start(name: str, wait: bool) -> None:
            raise xmlrpc.client.Fault(code, name)

        rows = [{"name": "monolith_v1_aaaa", "statename": "EXITED", "pid": 0}]
        fake = SimpleNamespace(getAllProcessInfo=lambda: rows, startProcess=start)
        monkeypatch.setattr(supervisor, "_supervisord", lambda: fake)

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
