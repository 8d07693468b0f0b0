import time

REVOCATIONS = "/internal/tokens/revocations"


def revocations(client):
    return client.get(REVOCATIONS).json["revocations"]


def test_all_revocations_are_listed(client, auth, ann, bob):
    assert revocations(client) == []
    client.delete("/api/tokens", headers=auth.headers(ann))
    client.delete("/api/tokens?all=1", headers=auth.headers(bob))
    single, everywhere = revocations(client)
    assert single["jti"]
    assert (single["user_id"], single["issued_until"]) == (None, None)
    assert everywhere == {"jti": None, "user_id": bob, "issued_until": everywhere["issued_until"]}
    assert time.time() - 5 < everywhere["issued_until"] <= time.time()


def test_a_user_is_signed_out_everywhere_and_twice_does_no_harm(client, auth, ann, bob):
    now = time.time()
    for _ in range(2):
        assert client.post(REVOCATIONS, json={"user_id": ann, "issued_until": now}).status_code == 204
    assert revocations(client) == [{"jti": None, "user_id": ann, "issued_until": now}] * 2

    def signs_out(user_id, issued_at):
        return client.delete("/api/tokens", headers=auth.headers(user_id, issued_at=issued_at)).status_code

    assert signs_out(ann, now) == 401
    assert signs_out(ann, now + 0.001) == 204
    assert signs_out(bob, now) == 204
