"""Who is revoked stands in the list of the tokens service, of which the monolith has a copy."""

import time

from common import revocations


def status(client, headers):
    return client.get("/api/messages", headers=headers).status_code


def test_a_token_that_tokens_has_revoked_is_refused_from_the_next_list_on(app, client, auth, ann, others):
    headers = auth.headers(ann)
    assert status(client, headers) == 200
    others.revocations.append({"jti": None, "user_id": ann, "issued_until": time.time() + 10})
    with app.app_context():
        revocations.refresh()
    assert status(client, headers) == 401


def test_while_tokens_is_away_the_last_list_applies_and_who_has_none_says_so(client, auth, ann, others):
    others.away = {"tokens"}
    assert status(client, auth.headers(ann)) == 503
    others.away = set()
    assert status(client, auth.headers(ann)) == 200
    others.away = {"tokens"}
    assert status(client, auth.headers(ann)) == 200


def test_a_good_token_counts_as_seen_here_and_nobody_is_told(client, auth, ann, others):
    status(client, auth.headers(ann))
    assert client.get(f"/api/users/{ann}").json["last_seen_at"] >= time.time() - 5
    assert others.called("PUT", "/internal/users/seen") == []
