import time

import jwt
import pytest

from common import revocations
from common.auth import ALGORITHM
from common.refusals import Unavailable

LIST = ("GET", "/internal/tokens/revocations")


def status(client, headers):
    return client.get("/things", headers=headers).status_code


def revoke(others, jti=None, user_id=None, issued_until=None):
    others.revocations.append({"jti": jti, "user_id": user_id, "issued_until": issued_until})


def test_the_list_is_fetched_at_once_and_then_in_the_background_only(client, auth, ann, others):
    headers = auth.headers(ann)
    for _ in range(3):
        assert status(client, headers) == 200
    assert len(others.called(*LIST)) == 1


def test_a_revoked_token_is_refused_as_soon_as_the_list_has_it(app, client, auth, ann, others, private_key):
    token = auth.token(ann)
    this, other = {"Authorization": f"Bearer {token}"}, auth.headers(ann)
    assert status(client, this) == status(client, other) == 200
    revoke(others, jti=jwt.decode(token, private_key.public_key(), [ALGORITHM])["jti"])
    assert status(client, this) == 200
    with app.app_context():
        revocations.refresh()
    assert (status(client, this), status(client, other)) == (401, 200)


def test_all_tokens_of_a_user_until_a_time_are_refused(client, auth, ann, bob, others):
    now = time.time()
    for issued_until in (now - 10, now, now - 20):  # in the order in which the transactions have ended
        revoke(others, user_id=ann, issued_until=issued_until)
    assert status(client, auth.headers(ann, issued_at=now)) == 401
    assert status(client, auth.headers(ann, issued_at=now + 0.001)) == 200
    assert status(client, auth.headers(bob, issued_at=now)) == 200


def test_what_is_no_longer_in_the_list_is_forgotten(context, app, others):
    revoke(others, jti="x")
    revocations.refresh()
    others.revocations.clear()
    revocations.refresh()
    assert app.extensions["revoked"].tokens == set()


def test_while_tokens_is_away_the_last_list_applies(app, client, auth, ann, bob, others):
    revoke(others, user_id=bob, issued_until=time.time() + 10)
    assert status(client, auth.headers(ann)) == 200
    others.away = {"tokens"}
    with app.app_context(), pytest.raises(Unavailable):
        revocations.refresh()
    assert status(client, auth.headers(ann)) == 200
    assert status(client, auth.headers(bob)) == 401


def test_as_long_as_no_list_is_known_at_all_a_token_is_503_and_anonymous_reading_goes_on(client, auth, ann, others):
    others.away = {"tokens"}
    assert status(client, auth.headers(ann)) == 503
    assert status(client, {}) == 200
    others.away = set()
    assert status(client, auth.headers(ann)) == 200
