"""A build that speaks both: with the monolith before it, on the same database, and with the tokens service."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest
from sqlalchemy import select

from common.database import db
from common.tests.helpers import finish
from parley import bridge
from parley.bridge.models.revocation import Revocation, sweep_expired
from parley.models.sign_out import SignOut, deliver_sign_outs

STAGE0 = Path(__file__).parents[3] / "stage0-monolith"
ASK = """
import sys
from parley import create_app
method, path, token = sys.argv[1:]
print(create_app().test_client().open(path, method=method, headers={"Authorization": f"Bearer {token}"}).status_code)
"""


@pytest.fixture
def ask_stage_0(environ):
    """Return a function that has an instance of stage 0, on the same database, answer a request with its status."""

    def ask(method, path, token):
        command = [sys.executable, "-c", ASK, method, path, token]
        options = {"cwd": STAGE0, "env": {**os.environ, **environ}, "timeout": 30, "check": True}
        return int(subprocess.run(command, capture_output=True, text=True, **options).stdout)

    return ask


@pytest.fixture
def change_password(client, ann, monkeypatch):
    """Return a function that changes Ann's password, with her token and without hashing."""
    monkeypatch.setattr("parley.api.users.hash_password", lambda password: f"hash of {password}")

    def change(token, **more):
        status = send(client, "PUT", f"/api/users/{ann}", token, json={"password": "battery staple", **more})
        finish(deliver_sign_outs)
        return status

    return change


def send(client, method, path, token, **options):
    return client.open(path, method=method, headers={"Authorization": f"Bearer {token}"}, **options).status_code


def works(client, token):
    return send(client, "GET", "/api/messages?limit=1", token) == 200


def rows(app, model):
    """Return what stands in a table: (user id, issued until)."""
    with app.app_context():
        return [(row.user_id, row.issued_until) for row in db.session.scalars(select(model))]


def test_the_old_paths_are_answered(client):
    assert client.get("/").mimetype == "text/html"
    with client.get("/static/main.js") as script, client.get("/static/lib/socket.io.js") as library:
        assert (script.status_code, library.status_code) == (200, 200)
    assert client.get("/api/stats").status_code == 204
    user = client.post("/api/users", json={"nickname": "eve", "password": "correct horse"}).json
    token = client.post("/api/tokens", auth=("eve", "correct horse")).json["token"]
    assert send(client, "PUT", f"/api/users/{user['id']}", token, json={}) == 204
    assert send(client, "DELETE", "/api/tokens", token) == 204
    assert client.post("/api/tokens", auth=("eve", "wrong")).status_code == 401


def test_the_new_paths_are_answered_too(client, ann):
    assert client.put("/internal/users/seen", json={"ids": [ann]}).json == {"known": [ann]}


@pytest.mark.parametrize("query", ["", "?all=1"])
def test_what_is_revoked_here_is_refused_although_no_list_has_it(client, auth, ann, query):
    token = auth.token(ann)
    assert send(client, "DELETE", f"/api/tokens{query}", token) == 204
    assert not works(client, token)
    assert works(client, auth.token(ann))


def test_what_is_revoked_there_is_refused_although_the_table_does_not_have_it(app, client, auth, ann, others):
    others.revocations.append({"jti": None, "user_id": ann, "issued_until": time.time() + 10})
    assert not works(client, auth.token(ann))
    assert rows(app, Revocation) == []


def test_a_new_password_is_noted_for_both_sides_in_one_transaction(app, client, auth, ann, change_password, others):
    token, other = auth.token(ann), auth.token(ann)
    assert works(client, token)  # the list is known from here on
    others.away = {"tokens"}
    assert change_password(token) == 204
    assert [user_id for user_id, _until in rows(app, SignOut)] == [ann]
    assert rows(app, Revocation) == rows(app, SignOut)
    assert not works(client, token)
    assert not works(client, other)
    assert works(client, auth.token(ann))


def test_a_password_that_is_not_changed_is_noted_for_nobody(app, auth, ann, change_password):
    auth.user("bob")
    assert change_password(auth.token(ann), nickname="bob") == 409
    assert rows(app, SignOut) == rows(app, Revocation) == []


def test_an_instance_of_stage_0_refuses_what_was_revoked_here(client, auth, ann, ask_stage_0, change_password):
    revoked, older = auth.token(ann), auth.token(ann)
    assert ask_stage_0("GET", "/api/users", revoked) == 200
    send(client, "DELETE", "/api/tokens", revoked)
    assert ask_stage_0("GET", "/api/users", revoked) == 401
    assert change_password(auth.token(ann)) == 204
    assert ask_stage_0("GET", "/api/users", older) == 401


def test_what_an_instance_of_stage_0_has_revoked_is_refused_here(client, auth, ann, ask_stage_0):
    token = auth.token(ann)
    assert ask_stage_0("DELETE", "/api/tokens?all=1", token) == 204
    assert not works(client, token)


def test_revocations_of_tokens_that_have_expired_are_swept_in_the_background(app):
    assert sweep_expired in [task for _seconds, task in app.extensions["background"]]


def test_what_gunicorn_starts_is_at_work(app, monkeypatch):
    started = []
    monkeypatch.setattr(bridge, "create_app", lambda: app)
    monkeypatch.setattr("common.background.start", started.append)
    assert bridge.serve() is app
    assert started == [app]
