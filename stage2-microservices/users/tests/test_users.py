import threading

import pytest
from sqlalchemy import text

from common.database import write_transaction


def register(client, nickname="ann", password="correct horse", **more):  # noqa: S107
    return client.post("/api/users", json={"nickname": nickname, "password": password, **more})


def test_registering_answers_the_user_and_pushes_it(client, pushed):
    answer = register(client, unknown="ignored")
    assert answer.status_code == 201
    assert answer.headers["Location"] == answer.json["_links"]["self"]
    assert client.get(answer.headers["Location"]).json == answer.json
    assert set(answer.json) == {"id", "created_at", "updated_at", "last_seen_at", "nickname", "online", "_links"}
    assert set(answer.json["_links"]) == {"self", "messages", "tokens"}
    assert pushed == [("User", answer.json)]


@pytest.mark.parametrize("nickname", ["a", "ann b", "Zoë", "名" * 32])
def test_a_nickname_may_have_any_printable_characters(client, nickname):
    assert register(client, nickname).json["nickname"] == nickname


BAD_NICKNAMES = [None, 5, [], "", "x" * 33, "a\n", "a\0", "\u202eann", "a:b", " ann", "ann ", "\ud800"]


@pytest.mark.parametrize("nickname", BAD_NICKNAMES)
def test_a_bad_nickname_is_400(client, nickname):
    assert register(client, nickname).status_code == 400


@pytest.mark.parametrize("password", [None, 12345678, "x" * 7, "x" * 129, "\ud800" * 8])
def test_a_bad_password_is_400(client, password):
    assert register(client, password=password).status_code == 400


def test_a_taken_nickname_is_409(client, ann):
    assert register(client).status_code == 409


def test_a_write_that_fails_logs_neither_the_password_nor_its_hash(app, client, caplog):
    with app.app_context(), write_transaction() as session:
        session.execute(text("ALTER TABLE users RENAME COLUMN online TO gone"))
    answer = register(client)
    assert answer.status_code == 503
    assert "gone" in caplog.text or "online" in caplog.text
    assert "correct horse" not in caplog.text
    assert "scrypt" not in caplog.text


def test_of_racing_registrations_one_wins(app):
    statuses = []
    threads = [
        threading.Thread(target=lambda: statuses.append(register(app.test_client()).status_code)) for _ in range(4)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [201, 409, 409, 409]


def test_users_are_listed_and_filtered(client, auth, ann):
    bob = auth.user("bob")
    client.put("/api/users/me", headers=auth.headers(bob))

    def ids(query):
        return [user["id"] for user in client.get(f"/api/users?{query}").json["users"]]

    assert ids("") == [ann, bob]
    assert ids("online=1") == [bob]
    assert ids("online=0") == [ann]
    assert ids("updated_since=2") == [bob]
    assert ids(f"ids={bob},4711,{ann}") == [ann, bob]
    assert ids(f"ids={bob}&online=0") == []


def test_users_are_listed_page_by_page_also_when_all_share_a_second(client, auth):
    users = {nickname: auth.user(nickname) for nickname in ("ann", "bob", "cy", "Zoë", "张", "two words")}
    by_nickname = [users[nickname] for nickname in sorted(users)]
    for query, expected in (
        ("updated_since=0", by_nickname),
        ("", by_nickname[4:] + by_nickname[2:4] + by_nickname[:2]),
    ):
        found, url = [], f"/api/users?ids={','.join(map(str, by_nickname))}&limit=2&{query}"
        while url:
            answer = client.get(url).json
            found += [user["id"] for user in answer["users"]]
            url = answer["_links"].get("next")
        assert found == expected


@pytest.mark.parametrize("query", ["online=2", "online=yes", "updated_since=x", "ids=", "ids=" + ",".join("1" * 501)])
def test_a_malformed_query_is_400(client, query):
    assert client.get(f"/api/users?{query}").status_code == 400


@pytest.mark.parametrize("user_id", [4711, 2**31, 2**70])
def test_an_unknown_user_is_404(client, auth, ann, user_id):
    assert client.get(f"/api/users/{user_id}").status_code == 404
    assert client.put(f"/api/users/{user_id}", json={}, headers=auth.headers(ann)).status_code == 404


def test_one_changes_ones_nickname(client, auth, ann, pushed):
    answer = client.put(f"/api/users/{ann}", json={"nickname": "anna", "id": 7}, headers=auth.headers(ann))
    assert (answer.status_code, answer.text) == (204, "")
    changed = client.get(f"/api/users/{ann}").json
    assert changed["nickname"] == "anna"
    assert changed["updated_at"] > 1
    assert pushed == [("User", changed)]


def test_changes_are_refused(client, auth, ann):
    bob = auth.user("bob")

    def change(changes, by=ann):
        return client.put(f"/api/users/{ann}", json=changes, headers=auth.headers(by)).status_code

    assert client.put(f"/api/users/{ann}", json={"nickname": "anna"}).status_code == 401
    assert change({"nickname": "anna"}, by=bob) == 403
    assert change({"nickname": ""}) == 400
    assert change({"password": "short"}) == 400
    assert change({"nickname": "bob"}) == 409
    assert client.get(f"/api/users/{ann}").json["nickname"] == "ann"


def test_a_new_password_is_the_only_one(client, auth):
    ann = register(client).json["id"]
    headers = auth.headers(ann)
    answer = client.put(f"/api/users/{ann}", json={"password": "battery staple"}, headers=headers)
    assert answer.status_code == 204
    assert client.get("/api/users/me", auth=("ann", "correct horse")).status_code == 401
    assert client.get("/api/users/me", auth=("ann", "battery staple")).status_code == 200


def test_the_password_check_answers_the_user(client, auth):
    user = register(client, password="pass:word with a colon").json  # noqa: S106
    assert client.get("/api/users/me", auth=("ann", "pass:word with a colon")).json == user


def test_the_password_check_does_not_tell_what_was_wrong(client):
    register(client)
    wrong_password = client.get("/api/users/me", auth=("ann", "wrong"))
    wrong_nickname = client.get("/api/users/me", auth=("bob", "wrong"))
    assert wrong_password.status_code == wrong_nickname.status_code == 401
    assert wrong_password.json["error"] == wrong_nickname.json["error"]
    assert wrong_password.headers["WWW-Authenticate"].startswith("Bearer ")


def test_one_comes_and_goes(client, auth, ann, pushed):
    headers = auth.headers(ann)
    assert client.put("/api/users/me", headers=headers).status_code == 204
    assert client.get(f"/api/users/{ann}").json["online"] is True
    assert client.delete("/api/users/me", headers=headers).status_code == 204
    assert client.get(f"/api/users/{ann}").json["online"] is False
    assert [model["online"] for _class, model in pushed] == [True, False]
