import time

import pytest

from common.database import db, write_transaction
from parley import tasks
from parley.models.message import DAY, IdempotencyKey, Message


@pytest.fixture(autouse=True)
def context(app):
    with app.app_context():
        yield


def queue_length(app):
    with app.extensions["celery"].connection_or_acquire() as connection:
        return connection.default_channel.client.llen("celery")


def test_an_expansion_is_queued(app):
    tasks.queue_expansion(1)
    assert queue_length(app) == 1


def test_queueing_without_redis_is_given_up_quickly_and_logged(make_app, environ, caplog):
    app = make_app({**environ, "REDIS_URL": "redis://127.0.0.1:1/0"})
    started = time.monotonic()
    with app.app_context():
        tasks.queue_expansion(1)
    assert time.monotonic() - started < 1
    assert "the sweep will find it" in caplog.text


def test_the_sweep_queues_what_is_due(ann, queued):
    now = int(time.time())
    with write_transaction() as session:
        for after in (None, now, now + 5, now - 5):
            session.add(Message(created_at=now, updated_at=now, source="x", html="x", user_id=ann, expand_after=after))
    tasks.sweep_links()
    assert queued == [4, 2]


def test_a_task_runs_within_the_application(app, monkeypatch):
    called = []
    monkeypatch.setattr("parley.links.expand", called.append)
    tasks.expand_links.apply(args=(7,), headers={"request_id": "abc-1"})
    assert called == [7]


def test_the_sweep_deletes_what_has_expired(ann):
    now = int(time.time())
    with write_transaction() as session:
        session.add(Message(id=1, created_at=now, updated_at=now, source="x", html="x", user_id=ann))
        session.flush()
        for age in (DAY - 60, DAY + 60):
            session.add(IdempotencyKey(created_at=now - age, user_id=ann, key=str(age), digest="", message_id=1))
    tasks.sweep_expired()
    assert [key.created_at for key in db.session.query(IdempotencyKey)] == [now - DAY + 60]


@pytest.mark.parametrize(
    ("parts", "done"),
    [("users messages", {"expand", "find_due", "sweep"}), ("users", {"sweep"}), ("messages", {"expand", "find_due"})],
)
def test_for_a_part_that_has_left_nothing_is_done(make_app, environ, monkeypatch, parts, done):
    called = set()
    monkeypatch.setattr("parley.links.expand", lambda _message_id: called.add("expand"))
    monkeypatch.setattr("parley.links.find_due", lambda: called.add("find_due") or [])
    monkeypatch.setattr("parley.presence.sweep", lambda: called.add("sweep"))
    make_app({**environ, "PARTS": parts})
    tasks.expand_links.apply(args=(7,))
    for sweep in (tasks.sweep_links, tasks.sweep_presence):
        sweep.apply()
    assert called == done


def test_while_messages_are_kept_elsewhere_the_keys_are_left_alone(app, make_app, environ, ann):
    with write_transaction() as session:
        session.add(Message(id=1, created_at=1, updated_at=1, source="x", html="x", user_id=ann))
        session.flush()
        session.add(IdempotencyKey(created_at=1, user_id=ann, key="k", digest="", message_id=1))
    make_app({**environ, "PARTS": "users"})
    tasks.sweep_expired.apply()
    assert db.session.query(IdempotencyKey).count() == 1
