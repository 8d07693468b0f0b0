"""Tokens: sign in, sign out, and what is refused."""

import base64
import json
import time

import pytest


def decode(part: str) -> dict:
    """Read a part of a JWT (RFC 7515): base64url without padding."""
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def encode(part: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def bearer(token: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {token}"}


# For each part of the API a call that changes nothing, whether its token is good (the last one: 400) or not.
CALLS = {
    "/api/users": ("GET", "/api/users?ids=1"),
    "/api/messages": ("GET", "/api/messages?limit=1"),
    "/api/tokens": ("DELETE", "/api/tokens?all=malformed"),
}


@pytest.fixture
def refused_everywhere(anonymous, differences):
    """Tell whether every instance of every service refuses a token."""

    def refused(token: str) -> bool:
        for path, service in differences["services"].items():
            asked, instances = set(), differences["instances"][service]
            for _ in range(4 * instances):  # the balancer goes round; other clients may turn it on as well
                answer = anonymous.send(*CALLS[path], headers=bearer(token))
                if answer.status_code != 401:
                    return False
                asked.add(answer.headers["X-Served-By"])
                if len(asked) == instances:
                    break
            assert len(asked) == instances
        return True

    return refused


def test_a_token_is_a_jwt_that_is_valid_for_one_hour(ann):
    header, payload, _signature = ann.token.split(".")
    claims = decode(payload)

    assert decode(header)["alg"] == "HS256"
    assert set(claims) == {"user_id", "iat", "exp", "jti"}
    assert claims["user_id"] == ann.id
    assert abs(claims["iat"] - time.time()) < 10
    assert 3599 <= claims["exp"] - claims["iat"] <= 3600


def test_two_tokens_of_a_user_differ(ann):
    assert decode(ann.token.split(".")[1])["jti"] != decode(ann.sign_in().split(".")[1])["jti"]


def test_signing_in_takes_nickname_and_password(ann, anonymous, random_nickname):
    for credentials in ((ann.nickname, "wrong password"), (random_nickname(), ann.password), ("", ""), None):
        assert anonymous.post("/api/tokens", auth=credentials).status_code == 401, credentials
    assert ann.post("/api/tokens").status_code == 401  # a token is no password


def test_a_revoked_token_is_refused_by_all_instances_within_2_seconds(
    ann, anonymous, refused_everywhere, differences, until
):
    first, second = ann.token, ann.sign_in()
    assert ann.delete("/api/tokens", headers=bearer(first)).status_code == 204

    until(lambda: refused_everywhere(first), differences["revoked_within"], "every instance refuses the token")
    assert refused_everywhere(first)
    assert ann.delete("/api/tokens", headers=bearer(first)).status_code == 401
    assert anonymous.get("/api/messages", headers=bearer(second)).status_code == 200


def test_signing_out_everywhere_revokes_all_tokens_until_now(ann, bob, refused_everywhere, differences, until):
    tokens = [ann.token, ann.sign_in()]
    assert ann.delete("/api/tokens?all=1").status_code == 204

    for token in tokens:
        until(lambda x=token: refused_everywhere(x), differences["revoked_within"], "every instance refuses the token")
    ann.sign_in()  # within the same second
    assert ann.put("/api/users/me").status_code == 204
    assert bob.put("/api/users/me").status_code == 204


def test_a_changed_password_revokes_all_tokens_until_now(ann, refused_everywhere, differences, until):
    tokens, old = [ann.token, ann.sign_in()], ann.credentials
    ann.password = "another password"  # noqa: S105
    assert ann.put(f"/api/users/{ann.id}", json={"password": ann.password}).status_code == 204

    for token in tokens:
        until(lambda x=token: refused_everywhere(x), differences["revoked_within"], "every instance refuses the token")
    assert ann.post("/api/tokens", auth=old).status_code == 401
    ann.sign_in()  # within the same second
    assert ann.put("/api/users/me").status_code == 204


@pytest.mark.parametrize("query", ["all=2", "all=yes", "all="])
def test_a_malformed_query_of_tokens_is_refused(ann, query):
    assert ann.delete(f"/api/tokens?{query}").status_code == 400
    assert ann.put("/api/users/me").status_code == 204  # still signed in


def test_forged_tokens_are_refused_also_where_none_is_needed(ann, bob, anonymous):
    header, payload, signature = ann.token.split(".")
    claims = decode(payload)
    for forged in (
        f"{header}.{encode(claims | {'user_id': bob.id})}.{signature}",
        f"{header}.{encode(claims | {'exp': claims['exp'] + 3600})}.{signature}",
        f"{encode({'alg': 'none', 'typ': 'JWT'})}.{payload}.",
        f"{header}.{payload}.",
        "not-a-token",
    ):
        assert anonymous.get("/api/messages", headers=bearer(forged)).status_code == 401, forged
        assert anonymous.get("/api/users", headers=bearer(forged)).status_code == 401, forged
        assert anonymous.put("/api/users/me", headers=bearer(forged)).status_code == 401, forged


def test_other_schemes_are_no_token(ann):
    for header in ("", "Bearer", "Bearer ", f"Token {ann.token}", ann.token):
        answer = ann.get("/api/messages", headers={"Authorization": header})
        assert answer.status_code == 401, header
