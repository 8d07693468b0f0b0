import time


def test_a_good_token_counts_as_seen_and_changes_nothing_else(client, auth, ann, pushed):
    before = client.get(f"/api/users/{ann}").json
    client.get("/api/users", headers=auth.headers(ann))
    after = client.get(f"/api/users/{ann}").json
    assert after["last_seen_at"] >= time.time() - 5
    assert {**after, "last_seen_at": 0} == {**before, "last_seen_at": 0}
    assert pushed == []


def test_the_token_of_an_unknown_user_is_refused(client, auth):
    assert client.get("/api/users", headers=auth.headers(4711)).status_code == 401


def test_a_revoked_token_is_refused(client, auth, ann, others):
    others.revocations.append({"jti": None, "user_id": ann, "issued_until": time.time() + 10})
    assert client.get("/api/users", headers=auth.headers(ann)).status_code == 401
