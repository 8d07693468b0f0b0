"""Attacks on passwords: guessing, spraying, locking others out, and finding out who exists."""

import itertools
import statistics
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
from contract.conftest import Client

pytestmark = pytest.mark.usefixtures("several_addresses")

WRONG = "not the password"
VARYING = {"date", "x-request-id", "x-served-by", "retry-after"}
addresses = (f"127.0.{n // 200 + 100}.{n % 200 + 1}" for n in itertools.count())


@pytest.fixture
def stranger(url):
    """Make somebody at an address of their own, so that the other tests' attempts are not counted with theirs."""
    made = []

    def make() -> Client:
        made.append(Client(url, next(addresses)))
        return made[-1]

    yield make
    for client in made:
        client.http.close()


def guess(client, nickname, password=WRONG):
    return client.post("/api/tokens", auth=(nickname.encode(), password.encode()))


def test_the_eleventh_wrong_password_is_refused_with_the_time_to_wait(ann, stranger):
    mallory = stranger()
    for number in range(10):
        check = mallory.get("/api/users/me", auth=(ann.nickname, WRONG)) if number % 2 else guess(mallory, ann.nickname)
        assert check.status_code == 401
    for answer in (guess(mallory, ann.nickname), mallory.get("/api/users/me", auth=(ann.nickname, WRONG))):
        assert answer.status_code == 429
        assert 1 <= int(answer.headers["Retry-After"]) <= 60
        assert f"try again in {answer.headers['Retry-After']} seconds" in answer.json()["error"]
    assert guess(mallory, ann.nickname, ann.password).status_code == 429


def test_a_stranger_locks_nobody_out_who_is_elsewhere_nor_anybody_else_who_is_here(ann, bob, stranger):
    mallory = stranger()
    for _ in range(30):
        guess(mallory, ann.nickname)
    ann.sign_in()
    assert guess(stranger(), ann.nickname, ann.password).status_code == 200
    assert guess(mallory, bob.nickname, bob.password).status_code == 200
    assert ann.get("/api/messages?limit=1").status_code == 200


def test_thirty_guesses_at_once_on_all_instances_are_ten_guesses(ann, stranger):
    mallory = stranger()
    with ThreadPoolExecutor(30) as threads:
        answers = list(threads.map(lambda _: guess(mallory, ann.nickname), range(30)))
    assert len({answer.headers["X-Served-By"] for answer in answers}) > 1
    assert sorted(answer.status_code for answer in answers) == [401] * 10 + [429] * 20


def test_signing_in_rightly_is_not_limited(ann, stranger):
    here = stranger()
    assert {guess(here, ann.nickname, ann.password).status_code for _ in range(15)} == {200}


def test_one_password_for_many_nicknames_is_limited_per_address(ann, stranger, random_nickname):
    mallory = stranger()
    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: guess(mallory, random_nickname()).status_code, range(110)))
    assert sorted(answers) == [401] * 100 + [429] * 10
    assert guess(mallory, ann.nickname, ann.password).status_code == 429
    assert guess(stranger(), ann.nickname, ann.password).status_code == 200


def test_guesses_from_many_addresses_are_limited_per_nickname(ann, stranger):
    mallories = [stranger() for _ in range(11)]
    with ThreadPoolExecutor(11) as threads:
        answers = [
            a for some in threads.map(lambda m: [guess(m, ann.nickname) for _ in range(10)], mallories) for a in some
        ]
    assert sorted(answer.status_code for answer in answers) == [401] * 100 + [429] * 10


def outside(answer) -> tuple:
    """Return all of an answer but for what differs from request to request."""
    headers = {name.lower(): value for name, value in answer.headers.items() if name.lower() not in VARYING}
    sentence = "".join("#" if character.isdigit() else character for character in answer.json()["error"])
    return answer.status_code, headers, sentence


def test_a_nickname_that_nobody_has_is_answered_like_one_that_somebody_has(ann, stranger, random_nickname):
    known, unknown = stranger(), stranger()
    nobody = random_nickname()
    for _ in range(12):  # the last two are 429
        assert outside(guess(known, ann.nickname)) == outside(guess(unknown, nobody))


@pytest.mark.parametrize(
    "nickname", ["", "x" * 1000, "a\0b", "名" * 40, "a/b", "*", "' OR 1=1 --", "\u202e", "ann\r\nX: y"]
)
def test_odd_nicknames_are_wrong_like_any_other(stranger, nickname):
    answer = guess(stranger(), nickname)
    assert answer.status_code == 401
    assert answer.json()["error"] == guess(stranger(), "nobody").json()["error"]


def test_the_time_taken_does_not_tell_whether_somebody_has_a_nickname(ann, stranger, random_nickname, print_figure):
    taken = {ann.nickname: [], random_nickname(): []}
    for _ in range(3):
        client = stranger()
        for _ in range(7):
            for nickname, times in taken.items():
                started = time.perf_counter()
                assert guess(client, nickname).status_code == 401
                times.append(time.perf_counter() - started)
    known, unknown = (statistics.median(times) for times in taken.values())
    print_figure(f"wrong password: {known * 1000:.0f} ms; unknown nickname: {unknown * 1000:.0f} ms (medians of 21)")
    assert 0.67 < known / unknown < 1.5
