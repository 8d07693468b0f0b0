import pytest


@pytest.fixture
def registered(client):
    return client.post("/api/users", json={"nickname": "ann", "password": "correct horse"}).json["id"]


def sign_in(client, password="correct horse"):  # noqa: S107
    return client.post("/api/tokens", auth=("ann", password))


def test_signing_in_answers_a_token_that_works(client, registered):
    token = sign_in(client).json["token"]
    headers = {"Authorization": f"Bearer {token}"}
    assert client.post("/api/messages", json={"source": "hi"}, headers=headers).json["user_id"] == registered


def test_a_wrong_password_is_401(client, registered):
    assert sign_in(client, "wrong").status_code == 401
    assert client.post("/api/tokens").status_code == 401


def test_signing_out_revokes_this_token_only(client, auth, ann):
    this, other = auth.headers(ann), auth.headers(ann)
    assert client.delete("/api/tokens", headers=this).status_code == 204
    assert client.get("/api/messages", headers=this).status_code == 401
    assert client.delete("/api/tokens", headers=this).status_code == 401
    assert client.get("/api/messages", headers=other).status_code == 200


def test_signing_out_everywhere_revokes_all_tokens_until_now(client, auth, ann):
    bob = auth.headers(auth.user("bob"))
    this, other = auth.headers(ann), auth.headers(ann)
    assert client.delete("/api/tokens?all=1", headers=this).status_code == 204
    assert client.get("/api/messages", headers=this).status_code == 401
    assert client.get("/api/messages", headers=other).status_code == 401
    assert client.get("/api/messages", headers=auth.headers(ann)).status_code == 200
    assert client.get("/api/messages", headers=bob).status_code == 200


def test_signing_out_needs_a_token_and_a_well_formed_query(client, auth, ann):
    assert client.delete("/api/tokens").status_code == 401
    assert client.delete("/api/tokens?all=yes", headers=auth.headers(ann)).status_code == 400
