"""Tokens: sign in, sign out, and what is refused."""

import base64
import json
import time

import pytest
from contract.conftest import bearer


def decode(part: str) -> dict:
    """Read a part of a JWT (RFC 7515): base64url without padding."""
    return json.loads(base64.urlsafe_b64decode(part + "=" * (-len(part) % 4)))


def encode(part: dict) -> str:
    return base64.urlsafe_b64encode(json.dumps(part).encode()).decode().rstrip("=")


def test_a_token_is_a_jwt_that_is_valid_for_one_hour(ann):
    header, payload, _signature = ann.token.split(".")
    claims = decode(payload)

    assert decode(header)["alg"] == "EdDSA"
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


def test_a_revoked_token_is_refused_by_all_instances_within_2_seconds(ann, anonymous, wait_until_refused):
    first, second = ann.token, ann.sign_in()
    assert ann.delete("/api/tokens", headers=bearer(first)).status_code == 204

    wait_until_refused(first)
    assert ann.delete("/api/tokens", headers=bearer(first)).status_code == 401
    assert anonymous.get("/api/messages", headers=bearer(second)).status_code == 200


def test_signing_out_everywhere_revokes_all_tokens_until_now(ann, bob, wait_until_refused):
    tokens = [ann.token, ann.sign_in()]
    assert ann.delete("/api/tokens?all=1").status_code == 204

    for token in tokens:
        wait_until_refused(token)
    ann.sign_in()  # within the same second
    assert ann.put("/api/users/me").status_code == 204
    assert bob.put("/api/users/me").status_code == 204


def test_a_changed_password_revokes_all_tokens_until_now(ann, wait_until_refused):
    tokens, old = [ann.token, ann.sign_in()], ann.credentials
    ann.password = "another password"  # noqa: S105
    assert ann.put(f"/api/users/{ann.id}", json={"password": ann.password}).status_code == 204

    for token in tokens:
        wait_until_refused(token)
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
