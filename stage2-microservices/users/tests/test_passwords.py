import socket
import threading

import pytest
from argon2 import extract_parameters
from werkzeug.security import generate_password_hash

from common.database import db
from common.refusals import Overloaded
from parley import passwords
from parley.models.user import User
from parley.passwords import HASH_OF_NOBODY, HASHER, Turns, hash_password, is_gone, matches, needs_rehash

PASSWORD = "correct horse"  # noqa: S105


def test_a_password_matches_its_own_hash_only():
    hashed = hash_password(PASSWORD)
    assert matches(hashed, PASSWORD)
    assert not matches(hashed, PASSWORD + " ")
    assert not matches(None, PASSWORD)


def test_the_hash_of_nobody_costs_as_much_as_any_other():
    assert extract_parameters(HASH_OF_NOBODY) == extract_parameters(hash_password(PASSWORD))


def test_a_new_hash_follows_owasp():
    of_hash = extract_parameters(hash_password(PASSWORD))
    assert hash_password(PASSWORD).startswith("$argon2id$")
    assert (of_hash.memory_cost, of_hash.time_cost, of_hash.parallelism) == (19 * 1024, 2, 1)


@pytest.mark.parametrize("is_busy", [False, True])
def test_a_hash_from_before_argon2_is_accepted_and_replaced_at_sign_in(app, client, monkeypatch, is_busy):
    client.post("/api/users", json={"nickname": "ann", "password": PASSWORD})
    with app.app_context():
        ann = db.session.scalar(db.select(User))
        ann.password_hash = generate_password_hash(PASSWORD)
        db.session.commit()
        old_hash = ann.password_hash
    assert needs_rehash(old_hash)
    if is_busy:  # the sign-in succeeds all the same
        monkeypatch.setattr("parley.api.users.hash_password", refuse)
    assert client.get("/api/users/me", auth=("ann", "wrong horse")).status_code == 401
    assert client.get("/api/users/me", auth=("ann", PASSWORD)).status_code == 200
    with app.app_context():
        stored = db.session.scalar(db.select(User)).password_hash
    assert (stored == old_hash) == is_busy
    assert matches(stored, PASSWORD)


def refuse(_password):
    raise Overloaded("Too many.", 2)


def test_a_password_that_was_changed_during_the_sign_in_is_not_hashed_again(app, client, monkeypatch):
    client.post("/api/users", json={"nickname": "ann", "password": PASSWORD})
    changed = hash_password("battery staple")

    def change_first(password):
        db.session.execute(db.update(User).values(password_hash=changed))
        db.session.commit()
        return HASHER.hash(password)

    with app.app_context():
        db.session.execute(db.update(User).values(password_hash=generate_password_hash(PASSWORD)))
        db.session.commit()
    monkeypatch.setattr("parley.api.users.hash_password", change_first)
    client.get("/api/users/me", auth=("ann", PASSWORD))
    with app.app_context():
        assert db.session.scalar(db.select(User)).password_hash == changed


@pytest.fixture
def busy(monkeypatch):
    """All threads that hash are in use."""
    turns = Turns()
    monkeypatch.setattr(passwords, "turns", turns)
    monkeypatch.setattr(passwords, "LONGEST_WAIT", 0.1)
    for _ in range(passwords.THREADS):
        turns.free.acquire()
    return turns


def test_a_registration_that_waits_too_long_is_503_with_the_time_to_wait(client, busy):
    answer = client.post("/api/users", json={"nickname": "ann", "password": PASSWORD})
    assert answer.status_code == 503
    assert answer.headers["Retry-After"] == "2"
    assert "Too many people" in answer.json["error"]
    assert busy.waiting == 0


def test_a_registration_is_refused_at_once_when_the_queue_is_full(client, busy, monkeypatch):
    monkeypatch.setattr(passwords, "LONGEST_WAIT", 30)
    busy.waiting = passwords.MOST_WAITING
    assert client.post("/api/users", json={"nickname": "ann", "password": PASSWORD}).status_code == 503


def test_a_registration_goes_on_when_a_thread_is_free(client, busy, monkeypatch):
    monkeypatch.setattr(passwords, "LONGEST_WAIT", 30)
    timer = threading.Timer(0.1, busy.free.release)
    timer.start()
    assert client.post("/api/users", json={"nickname": "ann", "password": PASSWORD}).status_code == 201
    timer.join()


def test_nothing_is_hashed_nor_stored_for_a_client_that_has_gone_away(client):
    ours, theirs = socket.socketpair()
    with ours:
        theirs.close()
        body = {"nickname": "ann", "password": PASSWORD}
        client.post("/api/users", json=body, environ_overrides={"gunicorn.socket": ours})
    assert client.get("/api/users").json["users"] == []


def test_a_connection_is_gone_when_its_peer_has_closed_it():
    ours, theirs = socket.socketpair()
    with ours:
        ours.settimeout(7)
        assert not is_gone(ours)
        theirs.close()
        assert is_gone(ours)
        assert ours.gettimeout() == 7
