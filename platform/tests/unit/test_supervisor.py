"""Answers of supervisord that the real one gives only by chance."""

import xmlrpc.client
from types import SimpleNamespace

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
