import time

import pytest

from common.database import db
from parley import presence
from parley.models.user import User


@pytest.fixture
def clock(monkeypatch):
    """A clock that the test sets."""

    class Clock:
        now = time.time()

        def time(self):
            return self.now

    clock = Clock()
    monkeypatch.setattr("parley.presence.time", clock)
    return clock


@pytest.fixture(autouse=True)
def context(app):
    with app.app_context():
        yield


def is_online(user_id):
    db.session.rollback()
    presence.sweep()
    return db.session.get(User, user_id, populate_existing=True).online


def test_a_user_is_online_for_a_minute_and_the_grace_after_a_ping(ann, clock, pushed):
    presence.ping(ann, "tab1")
    clock.now += 64
    assert is_online(ann)
    clock.now += 2
    assert not is_online(ann)
    assert [model["online"] for _class, model in pushed] == [True, False]


def test_closing_one_of_two_tabs_changes_nothing(ann, clock):
    presence.ping(ann, "tab1")
    presence.ping(ann, "tab2")
    presence.close(ann, "tab1")
    clock.now += 30
    assert is_online(ann)


def test_the_last_tab_has_a_grace_in_which_a_reconnect_is_not_seen(ann, clock, pushed):
    presence.ping(ann, "tab1")
    presence.close(ann, "tab1")
    clock.now += 4
    assert is_online(ann)
    presence.ping(ann, "tab2")
    clock.now += 4
    assert is_online(ann)
    presence.close(ann, "tab2")
    clock.now += 6
    assert not is_online(ann)
    assert len(pushed) == 2


def test_leaving_is_at_once_and_until_the_next_ping(ann, clock):
    presence.ping(ann, "tab1")
    presence.leave(ann)
    assert not is_online(ann)
    presence.close(ann, "tab1")
    assert not is_online(ann)
    presence.ping(ann, "tab1")
    assert is_online(ann)


def test_pings_change_nothing_that_clients_see(ann, clock, pushed):
    presence.ping(ann, "tab1")
    updated_at = db.session.get(User, ann).updated_at
    clock.now += 30
    presence.ping(ann, "tab1")
    assert db.session.get(User, ann, populate_existing=True).updated_at == updated_at
    assert len(pushed) == 1


def test_a_user_whom_redis_forgot_stays_online_while_they_are_seen(ann, clock):
    presence.ping(ann, "tab1")
    presence.redis().flushall()
    db.session.get(User, ann).last_seen_at = int(clock.now)
    db.session.commit()
    assert is_online(ann)
    clock.now += 61
    assert not is_online(ann)


def test_presence_goes_on_without_redis(ann, app, pushed):
    app.extensions["presence"].close()
    app.extensions["presence"] = presence.connect("redis://127.0.0.1:1/0")
    presence.ping(ann, "tab1")
    presence.close(ann, "tab1")
    presence.leave(ann)
    assert [model["online"] for _class, model in pushed] == [True, False]


def test_a_ping_sees_that_another_instance_has_marked_the_user_as_offline(app, ann, pushed):
    presence.ping(ann, "tab1")
    db.session.scalar(db.select(User.online))  # this request's reading begins before the other instance writes
    with db.engine.connect() as other:
        other.execute(db.update(User).values(online=False))
        other.commit()
    presence.ping(ann, "tab2")
    db.session.rollback()
    assert db.session.get(User, ann, populate_existing=True).online
