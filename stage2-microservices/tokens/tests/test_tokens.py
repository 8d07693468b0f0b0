import pytest

from common.auth import check_token
from common.refusals import NotSignedIn
from common.tests.helpers import Answer

CHECK = ("GET", "/api/users/me")


@pytest.fixture
def registered(ann, others):
    """Ann's id; users finds her password right."""
    others.answers[" ".join(CHECK)] = Answer(200, {"id": ann, "nickname": "ann"})
    return ann


@pytest.fixture
def works(app):
    """Return a function that tells whether a token is accepted."""

    def works(token):
        with app.app_context():
            try:
                return bool(check_token(token))
            except NotSignedIn:
                return False

    return works


def sign_in(client, password="correct horse", **more):  # noqa: S107
    return client.post("/api/tokens", auth=("ann", password), **more)


def sign_out(client, token, query=""):
    return client.delete(f"/api/tokens{query}", headers={"Authorization": f"Bearer {token}"}).status_code


def test_signing_in_answers_a_token_that_works(client, app, registered):
    token = sign_in(client).json["token"]
    with app.app_context():
        assert check_token(token)["user_id"] == registered


@pytest.mark.parametrize("password", ["correct horse", "", "pass:word with a colon", "名\x7f"])
def test_the_password_is_checked_by_users_for_the_address_of_the_client(client, registered, others, password):
    client_is = {"REMOTE_ADDR": "127.0.0.1", "HTTP_X_FORWARDED_FOR": "203.0.113.7"}  # as the load balancer sends it
    assert sign_in(client, password, environ_overrides=client_is).status_code == 200
    [asked] = others.called(*CHECK)
    assert asked["auth"] == (b"ann", password.encode())
    assert asked["headers"]["X-Forwarded-For"] == "203.0.113.7"


def test_a_wrong_password_is_401(client, others):
    others.answers[" ".join(CHECK)] = Answer(401, {"error": "Nickname or password is wrong."})
    answer = sign_in(client, "wrong")
    assert (answer.status_code, answer.json["error"]) == (401, "Nickname or password is wrong.")
    assert answer.headers["WWW-Authenticate"].startswith("Bearer ")
    others.calls = []
    assert client.post("/api/tokens").status_code == 401
    assert others.calls == []


def test_too_many_attempts_are_429_and_the_user_is_told_when_to_try_again(client, others):
    others.answers[" ".join(CHECK)] = Answer(429, {"error": "Too many attempts."}, {"Retry-After": "17"})
    answer = sign_in(client)
    assert (answer.status_code, answer.json["error"]) == (429, "Too many attempts.")
    assert answer.headers["Retry-After"] == "17"


def test_while_users_is_away_nobody_signs_in_and_everybody_can_sign_out(client, auth, ann, others):
    others.away = {"users"}
    answer = sign_in(client)
    assert answer.status_code == 503
    assert "the users service, which does not answer" in answer.json["error"]
    assert sign_out(client, auth.token(ann)) == 204


def test_a_database_of_users_that_is_busy_is_503_in_its_words(client, others):
    others.answers[" ".join(CHECK)] = Answer(503, {"error": "The database is busy."})
    answer = sign_in(client)
    assert (answer.status_code, answer.json["error"]) == (503, "The database is busy.")


def test_signing_out_revokes_this_token_only(client, auth, ann, works):
    this, other = auth.token(ann), auth.token(ann)
    assert sign_out(client, this) == 204
    assert not works(this)
    assert sign_out(client, this) == 401
    assert works(other)


def test_signing_out_everywhere_revokes_all_tokens_until_now(client, auth, ann, bob, works):
    bobs, this, other = auth.token(bob), auth.token(ann), auth.token(ann)
    assert sign_out(client, this, "?all=1") == 204
    assert not works(this)
    assert not works(other)
    assert works(auth.token(ann))
    assert works(bobs)


def test_signing_out_needs_a_token_and_a_well_formed_query(client, auth, ann):
    assert client.delete("/api/tokens").status_code == 401
    assert client.delete("/api/tokens?all=yes", headers=auth.headers(ann)).status_code == 400
