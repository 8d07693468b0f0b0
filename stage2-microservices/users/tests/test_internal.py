import time


def seen_at(client, user_id):
    return client.get(f"/api/users/{user_id}").json["last_seen_at"]


def is_online(client, user_id):
    return client.get(f"/api/users/{user_id}").json["online"]


def test_those_who_were_seen_are_noted_and_those_who_are_known_answered(client, auth, ann, pushed):
    bob, cid = auth.user("bob"), auth.user("cid")
    answer = client.put("/internal/users/seen", json={"ids": [cid, 4711, ann]})
    assert sorted(answer.json["known"]) == [ann, cid]
    assert seen_at(client, ann) >= time.time() - 5
    assert seen_at(client, cid) >= time.time() - 5
    assert seen_at(client, bob) == 1
    assert pushed == []


def test_of_nobody_nobody_is_known(client):
    assert client.put("/internal/users/seen", json={"ids": [4711]}).json == {"known": []}


def test_a_connection_counts_until_it_is_closed(app, client, ann, pushed):
    for connection in ("tab1", "tab2"):
        assert client.put(f"/internal/users/{ann}/connections/{connection}").status_code == 204
    assert is_online(client, ann)
    members = app.extensions["presence"]
    assert set(members.zrange(f"presence:{ann}", 0, -1)) == {"tab1", "tab2"}

    for _ in range(2):  # twice does no harm
        assert client.delete(f"/internal/users/{ann}/connections/tab1").status_code == 204
    tab1, tab2 = (members.zscore(f"presence:{ann}", connection) for connection in ("tab1", "tab2"))
    assert tab1 < time.time() + 6 < tab2
    assert is_online(client, ann)
    assert [model["online"] for _class, model in pushed] == [True]


def test_the_connection_of_an_unknown_user_does_no_harm(client, pushed):
    assert client.put("/internal/users/4711/connections/tab1").status_code == 204
    assert client.delete("/internal/users/4711/connections/tab1").status_code == 204
    assert pushed == []
