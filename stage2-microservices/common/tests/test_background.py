import threading

from flask import current_app, g

from common import background
from common.refusals import Unavailable
from common.tests.helpers import finish


def test_a_task_runs_again_and_again_within_the_application_from_the_start_on(app):
    names, done = [], threading.Event()

    def task():
        names.append(current_app.name)
        if len(names) == 3:
            done.set()
            threading.Event().wait()

    app.extensions["background"] = []
    background.every(app, 0, task)
    assert names == []
    background.start(app)
    assert done.wait(timeout=5)
    assert names == ["parley"] * 3


def test_a_task_that_fails_is_logged_and_runs_again(app, caplog):
    runs, done = [], threading.Event()

    def fails():
        runs.append(1)
        if len(runs) == 1:
            raise Unavailable("tokens")
        if len(runs) == 2:
            raise RuntimeError("swordfish")
        done.set()
        threading.Event().wait()

    app.extensions["background"] = []
    background.every(app, 0, fails)
    background.start(app)
    assert done.wait(timeout=5)
    assert "fails: This needs the tokens service" in caplog.text
    assert "swordfish" in caplog.text  # nobody expected it: with its traceback


def test_a_failure_that_lasts_is_logged_when_it_begins_and_when_it_is_over(app, caplog):
    runs, done = [], threading.Event()

    def fails_ten_times():
        runs.append(1)
        if len(runs) <= 10:
            raise ConnectionError("Connection refused.")
        if len(runs) == 13:
            done.set()
            threading.Event().wait()

    app.extensions["stores"] = (lambda error: "Redis is away." if isinstance(error, ConnectionError) else None,)
    app.extensions["background"] = []
    background.every(app, 0, fails_ten_times)
    background.start(app)
    assert done.wait(timeout=5)
    assert [record.getMessage() for record in caplog.records if "fails_ten_times" in record.getMessage()] == [
        "fails_ten_times: Redis is away. (Connection refused.)",
        "fails_ten_times works again.",
    ]
    assert "Traceback" not in caplog.text


def test_a_task_that_a_request_starts_has_its_id_and_the_request_neither_waits_nor_fails(app, caplog):
    begun, released = threading.Event(), threading.Event()

    def fails():
        begun.set()
        released.wait(timeout=5)
        raise RuntimeError(f"swordfish of {g.request_id}")

    with app.app_context():
        g.request_id = "abc-1"
        background.soon(fails)
    assert begun.wait(timeout=5)
    released.set()
    finish(fails)
    assert "swordfish of abc-1" in caplog.text
