import time

import pytest
from sqlalchemy.exc import OperationalError

from common.redis_client import connect
from common.refusals import TooMany
from parley import attempts


@pytest.fixture(autouse=True)
def context(app):
    with app.app_context():
        yield


def refused(nickname, address):
    try:
        attempts.count(nickname, address)
    except TooMany:
        return True
    return False


def spend(number, nickname="ann", address="192.0.2.1"):
    for _ in range(number):
        attempts.count(nickname, address)


def test_ten_wrong_passwords_a_minute_are_let_through_and_then_the_user_is_told_when_to_try_again():
    spend(10)
    with pytest.raises(TooMany, match=r"try again in \d+ seconds\.$") as refusal:
        attempts.count("ann", "192.0.2.1")
    assert 1 <= refusal.value.retry_after <= 60


def test_a_right_password_does_not_count():
    for _ in range(30):
        attempts.give_back(attempts.count("ann", "192.0.2.1"))
    spend(10)


def test_nobody_is_locked_out_by_a_stranger_elsewhere():
    spend(10)
    for _ in range(1000):  # refused ones do not count
        assert refused("ann", "192.0.2.1")
    assert not refused("ann", "192.0.2.2")
    assert not refused("bob", "192.0.2.1")


def test_one_address_has_a_hundred_attempts_for_all_nicknames():
    for number in range(100):
        attempts.count(f"user {number}", "192.0.2.1")
    assert refused("ann", "192.0.2.1")
    assert not refused("ann", "192.0.2.2")


def test_one_nickname_has_a_hundred_attempts_from_all_addresses():
    for number in range(100):
        attempts.count("ann", f"192.0.2.{number}")
    assert refused("ann", "198.51.100.1")
    assert not refused("bob", "198.51.100.1")


def test_the_minute_ends(app):
    spend(10)
    redis = connect(app.config["REDIS_URL"])
    keys = redis.keys("attempts:*")
    assert all(0 < redis.ttl(key) <= 60 for key in keys)
    for key in keys:
        redis.expire(key, 0)
    assert not refused("ann", "192.0.2.1")
    redis.close()


@pytest.mark.parametrize("nickname", ["", "a/b\r\nFLUSHALL", "x" * 10_000, "名", "\0"])
def test_keys_are_short_and_plain_whatever_the_nickname(app, nickname):
    attempts.count(nickname, "192.0.2.1")
    redis = connect(app.config["REDIS_URL"])
    keys = redis.keys("attempts:*")
    redis.close()
    assert len(keys) == 3
    assert all(len(key) < 150 and key.isascii() and key.isprintable() for key in keys)


def test_without_redis_this_instance_counts_alone(make_app, environ, caplog):
    app = make_app({**environ, "REDIS_URL": "redis://127.0.0.1:1/0"})
    started = time.monotonic()
    with app.app_context():
        attempts.give_back(attempts.count("ann", "192.0.2.1"))
        spend(10)
        assert refused("ann", "192.0.2.1")
    assert time.monotonic() - started < 2
    assert "counted by this instance alone" in caplog.text


def test_a_refused_attempt_is_429_and_says_when_to_try_again(client, ann):
    address = {
        "REMOTE_ADDR": "127.0.0.1",
        "HTTP_X_FORWARDED_FOR": "203.0.113.7",
    }  # as the load balancer sends it, or tokens
    spend(10, address="203.0.113.7")
    answer = client.get("/api/users/me", auth=("ann", "wrong"), environ_overrides=address)
    assert answer.status_code == 429
    assert 1 <= int(answer.headers["Retry-After"]) <= 60
    assert answer.json["error"].startswith("Too many attempts to sign in.")
    assert client.get("/api/users/me", auth=("ann", "wrong")).status_code == 401


def test_an_attempt_that_the_database_could_not_answer_does_not_count(client, monkeypatch):
    def fail(_nickname):
        raise OperationalError("SELECT", {}, Exception("locked"))

    with monkeypatch.context() as patched:
        patched.setattr("parley.api.users.find_by_nickname", fail)
        for _ in range(11):
            assert client.get("/api/users/me", auth=("ann", "wrong")).status_code == 503
    assert client.get("/api/users/me", auth=("ann", "wrong")).status_code == 401
