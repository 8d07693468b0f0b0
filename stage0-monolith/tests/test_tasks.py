import time

import pytest

from parley import tasks
from parley.database import db, write_transaction
from parley.models.message import DAY, IdempotencyKey, Message
from parley.models.revocation import Revocation


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
        for left in (60, -60):
            session.add(Revocation(jti=str(left), expires_at=now + left))
    tasks.sweep_expired()
    assert [key.created_at for key in db.session.query(IdempotencyKey)] == [now - DAY + 60]
    assert [revocation.jti for revocation in db.session.query(Revocation)] == ["60"]
