import threading
import time

import pytest
from flask import current_app, g

from common.database import db, write_transaction
from parley import tasks
from parley.models.message import DAY, IdempotencyKey, Message


@pytest.fixture(autouse=True)
def context(app):
    with app.app_context():
        yield


@pytest.fixture
def expanded(monkeypatch):
    """Return a function that waits for the next expansion: (id of the message, application, request id)."""
    calls, called = [], threading.Event()

    def expand(message_id):
        calls.append((message_id, current_app.name, g.request_id))
        called.set()

    def wait():
        assert called.wait(timeout=5)
        called.clear()
        return calls.pop()

    monkeypatch.setattr("parley.links.expand", expand)
    return wait


def test_an_expansion_is_queued(expanded):
    tasks.queue_expansion(1)
    assert expanded() == (1, "parley", None)


def test_an_expansion_belongs_to_the_request_that_it_is_done_for(client, auth, ann, expanded):
    headers = {**auth.headers(ann), "X-Request-ID": "abc-1"}
    message = client.post("/api/messages", json={"source": "https://a.example/"}, headers=headers).json
    assert expanded() == (message["id"], "parley", "abc-1")


@pytest.fixture
def slow(monkeypatch):
    """Expansions that end only with the test; return the list of those that have begun."""
    begun, end = [], threading.Event()
    monkeypatch.setattr("parley.links.expand", lambda message_id: (begun.append(message_id), end.wait(timeout=10)))
    yield begun
    end.set()
    until(lambda: not tasks.waiting)


def until(condition):
    deadline = time.monotonic() + 5
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_a_message_that_waits_is_queued_once_however_often_the_sweep_finds_it(ann, slow):
    now = int(time.time())
    with write_transaction() as session:
        for _ in range(60):
            session.add(Message(created_at=now, updated_at=now, source="x", html="x", user_id=ann, expand_after=now))
    for _ in range(40):
        tasks.sweep_links()
    until(lambda: len(slow) == 4)
    assert tasks.threads()._work_queue.qsize() <= 60


def test_what_does_not_fit_into_the_queue_is_left_to_the_sweep(slow):
    for message_id in range(1000):
        tasks.queue_expansion(message_id)
    assert len(tasks.waiting) <= tasks.MAX_WAITING
    until(lambda: len(slow) == 4)
    tasks.queue_expansion(4711)
    assert 4711 in tasks.waiting


def test_a_message_that_is_edited_while_it_is_expanded_is_queued_again(slow):
    tasks.queue_expansion(1)
    until(lambda: slow == [1])
    tasks.queue_expansion(1)
    until(lambda: slow == [1, 1])


def test_an_expansion_that_fails_is_logged_and_left_to_the_sweep(app, ann, monkeypatch, caplog):
    monkeypatch.setattr("parley.links.fetch_quotes", lambda _urls: 1 / 0)
    now = int(time.time())
    with write_transaction() as session:
        source = "https://a.example/"
        session.add(Message(created_at=now, updated_at=now, source=source, html="x", user_id=ann, expand_after=now))
    tasks.queue_expansion(1)
    until(lambda: "expand_links: unexpected error" in caplog.text)
    assert db.session.get(Message, 1).expand_after > now


def test_the_sweep_queues_what_is_due(ann, queued):
    now = int(time.time())
    with write_transaction() as session:
        for after in (None, now, now + 5, now - 5):
            session.add(Message(created_at=now, updated_at=now, source="x", html="x", user_id=ann, expand_after=after))
    tasks.sweep_links()
    assert queued == [4, 2]


def test_the_sweep_deletes_what_has_expired(ann):
    now = int(time.time())
    with write_transaction() as session:
        session.add(Message(id=1, created_at=now, updated_at=now, source="x", html="x", user_id=ann))
        session.flush()
        for age in (DAY - 60, DAY + 60):
            session.add(IdempotencyKey(created_at=now - age, user_id=ann, key=str(age), digest="", message_id=1))
    tasks.sweep_expired()
    assert [key.created_at for key in db.session.query(IdempotencyKey)] == [now - DAY + 60]
