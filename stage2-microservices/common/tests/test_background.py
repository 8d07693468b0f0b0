import threading

from flask import current_app

from common import background
from common.refusals import Unavailable


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
