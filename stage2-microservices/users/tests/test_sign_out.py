"""The outbox: who changes a password is signed out everywhere, also when tokens is away just then."""

import contextlib
import sqlite3
import time

import pytest
from sqlalchemy import delete, select

from common.database import db, write_transaction
from common.refusals import Unavailable
from common.tests.helpers import Answer, finish
from parley.models.sign_out import SignOut, deliver_sign_outs

REVOKE = ("POST", "/internal/tokens/revocations")


@pytest.fixture
def change(client, auth, ann, monkeypatch):
    """Return a function that changes Ann's password, without hashing."""
    monkeypatch.setattr("parley.api.users.hash_password", lambda password: f"hash of {password}")

    def change(changes):
        status = client.put(f"/api/users/{ann}", json=changes, headers=auth.headers(ann)).status_code
        finish(deliver_sign_outs)
        return status

    return change


@pytest.fixture
def context(app):
    with app.app_context():
        yield


def waiting():
    """Return the rows of the outbox."""
    db.session.rollback()
    return db.session.scalars(select(SignOut)).all()


def told(others):
    """Return whom tokens was told to sign out, and until when."""
    return [(options["json"]["user_id"], options["json"]["issued_until"]) for options in others.called(*REVOKE)]


def test_a_new_password_signs_out_everywhere_at_once(change, context, ann, others):
    started = time.time()
    assert change({"password": "battery staple"}) == 204
    [(user_id, issued_until)] = told(others)
    assert user_id == ann
    assert started <= issued_until <= time.time()
    assert waiting() == []


def test_a_new_nickname_signs_nobody_out(change, context, others):
    assert change({"nickname": "anna"}) == 204
    assert told(others) == []


def test_a_password_that_is_not_changed_signs_nobody_out(change, context, auth, others):
    auth.user("bob")
    assert change({"nickname": "bob", "password": "battery staple"}) == 409
    assert waiting() == told(others) == []


def put_in(user_id, issued_until):
    """Put a row in the outbox."""
    with write_transaction() as session:
        session.add(SignOut(user_id=user_id, issued_until=issued_until))


def test_while_tokens_is_away_the_password_is_changed_and_the_sign_out_delivered_later_once(
    change, context, ann, others, caplog
):
    assert change({"nickname": "anna"}) == 204  # the list of revocations is known from here on
    others.away = {"tokens"}
    assert change({"password": "battery staple"}) == 204
    assert "deliver_sign_outs: This needs the tokens service" in caplog.text
    [row] = waiting()

    with pytest.raises(Unavailable):
        deliver_sign_outs()
    assert waiting() == [row]

    others.away, others.calls = set(), []
    for _ in range(3):
        deliver_sign_outs()
    assert told(others) == [(ann, row.issued_until)]
    assert waiting() == []


def test_while_the_database_of_tokens_is_away_it_is_the_same(change, context, others, caplog):
    others.answers[" ".join(REVOKE)] = Answer(503, {"error": "The database is busy."})
    assert change({"password": "battery staple"}) == 204
    assert "deliver_sign_outs: The database is busy." in caplog.text
    assert len(waiting()) == 1


def test_a_database_that_is_locked_after_the_commit_changes_no_answer_and_holds_up_none(
    client, context, auth, ann, environ, monkeypatch, caplog
):
    monkeypatch.setattr("parley.api.users.hash_password", lambda password: f"hash of {password}")
    headers = auth.headers(ann)
    assert client.get("/api/users", headers=headers).status_code == 200  # the list of revocations is known from here on
    path = environ["DATABASE_URL"].removeprefix("sqlite:///")
    with contextlib.closing(sqlite3.connect(path, isolation_level=None, check_same_thread=False)) as other:
        lock = lambda *_args, **_kwargs: other.execute("BEGIN IMMEDIATE")  # noqa: E731
        monkeypatch.setattr("parley.models.sign_out.services.call", lock)
        started = time.monotonic()
        changed = client.put(f"/api/users/{ann}", json={"password": "battery staple"}, headers=headers)
        assert changed.status_code == 204
        assert time.monotonic() - started < 2
        finish(deliver_sign_outs)
        assert "deliver_sign_outs: The database is busy" in caplog.text
    assert [row.user_id for row in waiting()] == [ann]


def test_sign_outs_are_delivered_in_their_order(context, others):
    for user_id in (3, 1, 2):
        put_in(user_id, 10.5)
    deliver_sign_outs()
    assert told(others) == [(3, 10.5), (1, 10.5), (2, 10.5)]


def test_a_row_that_came_meanwhile_under_the_same_id_is_kept(context, monkeypatch):
    put_in(1, 10.5)

    def deliver_elsewhere(*_args, **_kwargs):
        """Another instance delivers the same row, and the next one takes its id."""
        with write_transaction() as session:
            session.execute(delete(SignOut))
        put_in(2, 20.5)

    monkeypatch.setattr("parley.models.sign_out.services.call", deliver_elsewhere)
    deliver_sign_outs()
    assert [(row.id, row.user_id) for row in waiting()] == [(1, 2)]
