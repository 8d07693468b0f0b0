import time

import jwt
import pytest

from common.auth import check_token
from common.refusals import NotSignedIn

HOUR = 3600


def get(client, token):
    return client.get("/things", headers={"Authorization": f"Bearer {token}"})


@pytest.fixture
def claims(ann):
    return {"user_id": ann, "iat": time.time(), "exp": int(time.time()) + HOUR, "jti": "x"}


def test_a_good_token_is_accepted(client, claims, secret):
    assert get(client, jwt.encode(claims, secret, "HS256")).status_code == 200


@pytest.mark.parametrize("claim", ["user_id", "iat", "exp", "jti"])
def test_a_token_that_lacks_a_claim_is_refused(client, claims, claim, secret):
    del claims[claim]
    assert get(client, jwt.encode(claims, secret, "HS256")).status_code == 401


def test_an_expired_token_is_refused(client, claims, secret):
    assert get(client, jwt.encode({**claims, "exp": int(time.time()) - 1}, secret, "HS256")).status_code == 401


def test_a_token_with_another_key_is_refused(client, claims, secret):
    assert get(client, jwt.encode(claims, secret[::-1], "HS256")).status_code == 401


def test_a_token_with_another_algorithm_is_refused(client, claims, secret):
    assert get(client, jwt.encode(claims, secret * 2, "HS512")).status_code == 401
    assert get(client, jwt.encode(claims, None, "none")).status_code == 401


INF = float("inf")


@pytest.mark.parametrize(
    ("claim", "values"),
    [
        ("user_id", [True, "1", [1], {}, 1.0, 0, -1, 2**31, 2**80, INF]),
        ("iat", ["0", [], INF, -INF, float("nan"), 10**20, 10**400, True]),
        ("exp", ["9999999999", [], INF, float("nan"), 10**20, 9999999999.5, True]),
        ("jti", [1, [], {}, "x" * 65]),
    ],
)
def test_a_token_with_a_claim_of_another_kind_is_refused(client, claims, claim, values, secret):
    for value in values:
        answer = get(client, jwt.encode({**claims, claim: value}, secret, "HS256"))
        assert answer.status_code == 401, value


@pytest.mark.parametrize("token", ["\ud800", "é.é.é", "\0", "x" * 100_000, b"x.x.x", "." * 1000])
def test_odd_characters_are_no_token(context, token):
    with pytest.raises(NotSignedIn):
        check_token(token)


def test_a_token_outlives_a_clock_that_is_set_back(client, claims, secret):
    assert get(client, jwt.encode({**claims, "iat": time.time() + HOUR}, secret, "HS256")).status_code == 200


@pytest.mark.parametrize(
    "header", ["Bearer", "Bearer ", "Bearer x", "Basic YTpi", "Nonsense", "", "Basic \xff\xff", "Basic é"]
)
def test_a_bad_header_is_401_where_none_is_fine(client, header):
    assert client.get("/things").status_code == 200
    answer = client.get("/things", headers={"Authorization": header})
    assert answer.status_code == 401
    assert answer.headers["WWW-Authenticate"] == 'Bearer realm="Authentication Required"'
