"""A clock that is set back by an hour, in the process under test."""

import datetime

import pytest
import time_machine

from parley import links, presence, tasks
from parley.database import db
from parley.models.user import User

BEFORE = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
HOUR = 3600


@pytest.fixture(autouse=True)
def clock():
    """The clock at noon; `clock.shift(-HOUR)` sets it back."""
    with time_machine.travel(BEFORE) as clock:
        yield clock


@pytest.fixture
def ann(client):
    return client.post("/api/users", json={"nickname": "ann", "password": "correct horse"}).json["id"]


def sign_in(client):
    token = client.post("/api/tokens", auth=("ann", "correct horse")).json["token"]
    return {"Authorization": f"Bearer {token}"}


def works(client, headers):
    return client.get("/api/messages", headers=headers).status_code == 200


def post(client, headers, source, **more):
    return client.post("/api/messages", json={"source": source}, headers={**headers, **more})


def test_tokens_go_on_working_and_end_with_signing_out(client, ann, clock):
    this, other = sign_in(client), sign_in(client)
    clock.shift(-HOUR)
    assert works(client, this)
    assert client.delete("/api/tokens", headers=this).status_code == 204
    assert not works(client, this)
    assert works(client, other)


def test_signing_out_everywhere_holds_for_older_tokens_and_one_can_sign_in_again_at_once(client, ann, clock):
    other, this = sign_in(client), sign_in(client)
    clock.shift(-HOUR)
    assert client.delete("/api/tokens?all=1", headers=this).status_code == 204
    assert not works(client, this)
    assert not works(client, other)

    again = sign_in(client)
    assert works(client, again)
    clock.shift(HOUR - 10)
    assert works(client, again)
    assert not works(client, this)
    clock.shift(20)
    assert not works(client, again), "it lives longer than an hour"
    assert not works(client, this)
    assert not works(client, other)


def test_a_new_password_signs_out_everywhere_and_works_at_once(client, ann, clock):
    headers = sign_in(client)
    clock.shift(-HOUR)
    changed = client.put(f"/api/users/{ann}", json={"password": "correct horse"}, headers=headers)
    assert changed.status_code == 204
    assert not works(client, headers)
    assert works(client, sign_in(client))


def test_messages_go_on_in_their_order_and_are_caught_up_on(client, ann, clock):
    headers = sign_in(client)
    first = post(client, headers, "first").json
    clock.shift(-HOUR)
    second = post(client, headers, "second").json
    assert client.put(first["_links"]["self"], json={"source": "edited"}, headers=headers).status_code == 204

    caught_up = client.get(f"/api/messages?updated_since={first['updated_at']}").json["messages"]
    assert [message["source"] for message in caught_up] == ["edited", "second"]
    assert second["created_at"] >= first["created_at"]
    pages, path = [], "/api/messages?limit=1"
    while path:
        page = client.get(path).json
        pages += [message["source"] for message in page["messages"]]
        path = page["_links"].get("next")
    assert pages == ["second", "edited"]


def test_users_are_caught_up_on(client, ann, clock):
    known = client.get(f"/api/users/{ann}").json["updated_at"]
    headers = sign_in(client)
    clock.shift(-HOUR)
    client.put("/api/users/me", headers=headers)
    client.post("/api/users", json={"nickname": "bob", "password": "correct horse"})
    changed = client.get(f"/api/users?updated_since={known}").json["users"]
    assert [(user["nickname"], user["online"]) for user in changed] == [("ann", True), ("bob", False)]


def test_an_idempotency_key_is_still_known(client, ann, clock):
    headers = sign_in(client)
    key = {"Idempotency-Key": "k1"}
    first = post(client, headers, "once", **key)
    clock.shift(-HOUR)
    repeat = post(client, headers, "once", **key)
    assert (first.status_code, repeat.status_code) == (201, 200)
    assert repeat.json["id"] == first.json["id"]
    tasks.sweep_expired.apply()
    assert post(client, headers, "once", **key).status_code == 200


@pytest.mark.parametrize("begun", [False, True])
def test_links_do_not_wait_an_hour_for_a_worker(app, client, ann, clock, begun):
    with app.app_context():
        message = post(client, sign_in(client), "https://example.invalid/").json["id"]
        if begun:
            assert links.claim(message)
        clock.shift(-HOUR)
        assert links.find_due() == [message]
        assert links.claim(message)
        assert links.find_due() == []
        assert not links.claim(message)
        clock.shift(links.LEASE)
        assert links.find_due() == [message]


def test_a_preview_that_comes_after_it_is_newer_than_the_message(app, client, ann, clock, pushed):
    with app.app_context():
        message = post(client, sign_in(client), "https://example.invalid/").json
        clock.shift(-HOUR)
        lease = links.claim(message["id"])
        assert links.finish(message["id"], lease, message["source"], "<p>with preview</p>")
        assert pushed[-1][1]["html"] == "<p>with preview</p>"
        assert pushed[-1][1]["updated_at"] >= message["updated_at"]


def test_who_vanished_is_offline_within_the_minute_and_who_pings_stays(app, client, ann, clock):
    def is_online():
        presence.sweep()
        return db.session.get(User, ann, populate_existing=True).online

    with app.app_context():
        presence.ping(ann, "tab1")
        clock.shift(-HOUR)
        presence.ping(ann, "tab1")
        assert is_online()
        presence.ping(ann, "tab2")
        clock.shift(-HOUR)
        assert not is_online()
        presence.ping(ann, "tab2")
        assert is_online()
        clock.shift(presence.PING_LASTS + presence.GRACE + 1)
        assert not is_online()


def test_who_is_seen_is_seen_now(client, ann, clock):
    headers = sign_in(client)
    works(client, headers)
    clock.shift(-HOUR)
    works(client, headers)
    seen = client.get(f"/api/users/{ann}").json["last_seen_at"] - (int(BEFORE.timestamp()) - HOUR)
    assert 0 <= seen < 60  # seconds: the clock goes on while the test runs
