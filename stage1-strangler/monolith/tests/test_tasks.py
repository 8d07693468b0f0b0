import time

import pytest
from sqlalchemy import update

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


# What keeps Celery from working on a row that has stayed behind when its part left: its expand_after is empty.


@pytest.fixture
def message_id(ann):
    """The id of a message whose link is to be expanded."""
    now = int(time.time())
    message = Message(created_at=1, updated_at=1, source="https://a.example/", html="", user_id=ann, expand_after=now)
    with write_transaction() as session:
        session.add(message)
    return message.id


def empty_expand_after():
    with write_transaction() as session:
        session.execute(update(Message).values(expand_after=None))


@pytest.fixture
def fetched(monkeypatch):
    """The addresses that were fetched: a list of one list per message."""
    calls = []

    def fetch_quotes(urls):
        calls.append(urls)
        return [(url, "A title", "") for url in urls]

    monkeypatch.setattr("parley.links.fetch_quotes", fetch_quotes)
    return calls


def test_what_is_queued_is_fetched_and_pushed(message_id, fetched, pushed):
    tasks.expand_links.apply(args=(message_id,)).get()
    assert fetched == [["https://a.example/"]]
    assert [model["id"] for _class, model in pushed] == [message_id]


def test_of_what_is_queued_and_not_to_be_done_any_more_nothing_is_fetched_and_nothing_pushed(
    message_id, fetched, pushed
):
    empty_expand_after()
    tasks.expand_links.apply(args=(message_id,)).get()
    assert fetched == pushed == []


def test_what_is_not_to_be_done_any_more_when_it_has_been_fetched_is_not_pushed(message_id, pushed, monkeypatch):
    def fetch_quotes(urls):
        empty_expand_after()
        return [(url, "A title", "") for url in urls]

    monkeypatch.setattr("parley.links.fetch_quotes", fetch_quotes)
    tasks.expand_links.apply(args=(message_id,)).get()
    assert pushed == []
    assert db.session.get(Message, message_id).html == ""
