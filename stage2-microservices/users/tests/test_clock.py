"""A clock that is set back by an hour, in the process under test."""

import datetime

import pytest
import time_machine

from common.database import db
from parley import presence
from parley.models.user import User

BEFORE = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
HOUR = 3600


@pytest.fixture(autouse=True)
def clock():
    """The clock at noon; `clock.shift(-HOUR)` sets it back."""
    with time_machine.travel(BEFORE) as clock:
        yield clock


def test_a_new_password_signs_out_the_token_that_asks_for_it_too(client, auth, ann, clock, others, monkeypatch):
    monkeypatch.setattr("parley.api.users.hash_password", lambda password: f"hash of {password}")
    headers = auth.headers(ann)
    clock.shift(-HOUR)
    changed = client.put(f"/api/users/{ann}", json={"password": "correct horse"}, headers=headers)
    assert changed.status_code == 204
    [told] = others.called("POST", "/internal/tokens/revocations")
    assert told["json"]["issued_until"] >= BEFORE.timestamp()


def test_users_are_caught_up_on(client, auth, ann, clock):
    headers = auth.headers(ann)
    client.put("/api/users/me", headers=headers)
    known = client.get(f"/api/users/{ann}").json["updated_at"]
    clock.shift(-HOUR)
    client.delete("/api/users/me", headers=headers)
    client.post("/api/users", json={"nickname": "bob", "password": "correct horse"})
    changed = client.get(f"/api/users?updated_since={known}").json["users"]
    assert [(user["nickname"], user["online"]) for user in changed] == [("ann", False), ("bob", False)]


def test_who_vanished_is_offline_within_the_minute_and_who_pings_stays(app, ann, clock):
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


def test_who_is_seen_is_seen_now(client, auth, ann, clock):
    headers = auth.headers(ann)
    client.get("/api/users", headers=headers)
    clock.shift(-HOUR)
    client.get("/api/users", headers=headers)
    seen = client.get(f"/api/users/{ann}").json["last_seen_at"] - (int(BEFORE.timestamp()) - HOUR)
    assert 0 <= seen < 60  # seconds: the clock goes on while the test runs
