"""What the monolith still answers, what has left it, and what the services beside it ask of it."""

import pytest

from common import revocations
from parley.models.sign_out import deliver_sign_outs


def paths(app):
    return {rule.rule.split("/<")[0] for rule in app.url_map.iter_rules()}


def test_only_what_has_not_left_is_answered(app):
    assert paths(app) == {
        "/healthz",
        "/api/users",
        "/api/users/me",
        "/api/messages",
        "/internal/users",
        "/internal/users/seen",
        "/internal/messages",
    }


def test_in_the_background_the_list_is_fetched_and_sign_outs_are_delivered_and_the_rest_is_left_to_celery(app):
    assert {task for _seconds, task in app.extensions["background"]} == {revocations.refresh, deliver_sign_outs}
    scheduled = app.extensions["celery"].conf.beat_schedule
    assert set(scheduled) == {"sweep_presence", "sweep_links", "sweep_expired"}


@pytest.mark.parametrize("path", ["/", "/static/main.js", "/api/stats", "/api/tokens", "/internal/tokens/revocations"])
def test_what_has_left_is_not_found(client, path):
    answer = client.get(path)
    assert (answer.status_code, set(answer.json)) == (404, {"error", "request_id"})


def test_tokens_finds_here_what_it_asks_of_users(client):
    client.post("/api/users", json={"nickname": "ann", "password": "correct horse"})
    user = client.get("/api/users/me", auth=("ann", "correct horse")).json
    assert user["nickname"] == "ann"
    assert client.get("/api/users/me", auth=("ann", "wrong")).status_code == 401
    seen = client.put("/internal/users/seen", json={"ids": [user["id"], 4711]})
    assert seen.json == {"known": [user["id"]]}


def test_a_socketio_service_finds_here_what_it_asks_of_users_and_messages(client, auth, ann):
    assert client.put(f"/internal/users/{ann}/connections/tab1").status_code == 204
    assert client.get(f"/api/users/{ann}").json["online"] is True
    assert client.delete(f"/internal/users/{ann}/connections/tab1").status_code == 204
    posted = client.post("/internal/messages", json={"source": "hi"}, headers=auth.headers(ann))
    assert client.get(f"/api/messages/{posted.json['id']}").json["user_id"] == ann
