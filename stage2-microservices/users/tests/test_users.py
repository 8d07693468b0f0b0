import threading

import pytest
from sqlalchemy import func, select, text

from common.database import db, write_transaction
from parley.api import users
from parley.models.user import User, fill_keys


def register(client, nickname="ann", password="correct horse", **more):  # noqa: S107
    return client.post("/api/users", json={"nickname": nickname, "password": password, **more})


def test_a_registration_can_be_repeated_with_its_key(client, pushed):
    headers, body = {"Idempotency-Key": "k1"}, {"nickname": "ann", "password": "correct horse"}
    first = client.post("/api/users", json=body, headers=headers)
    repeat = client.post("/api/users", json=body, headers=headers)
    assert (first.status_code, repeat.status_code) == (201, 200)
    assert repeat.json == first.json
    assert len(pushed) == 1
    other_password = client.post("/api/users", json={**body, "password": "battery staple"}, headers=headers)
    assert other_password.status_code == 422
    assert client.post("/api/users", json=body, headers={"Idempotency-Key": "k2"}).status_code == 409
    assert client.post("/api/users", json=body).status_code == 409
    assert client.post("/api/users", json={**body, "nickname": "bob"}, headers=headers).status_code == 201
    assert client.post("/api/users", json=body, headers={"Idempotency-Key": "k" * 129}).status_code == 400


def test_a_registration_that_was_stored_just_before_its_repeat_is_answered(client, monkeypatch):
    headers, body = {"Idempotency-Key": "k1"}, {"nickname": "ann", "password": "correct horse"}
    registered, find_repeat = [], users.find_repeat

    def register_meanwhile(*arguments):
        found = find_repeat(*arguments)
        if not registered:
            registered.append(None)
            registered[:] = [client.post("/api/users", json=body, headers=headers).json]
        return found

    monkeypatch.setattr(users, "find_repeat", register_meanwhile)
    answer = client.post("/api/users", json=body, headers=headers)
    assert (answer.status_code, answer.json) == (200, registered[0])


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


LOOK_ALIKES = [
    ("Zo\u00eb", "Zoe\u0308"),  # composed, and with a combining mark: NFC and NFD
    ("ann", "ANN"),
    ("Stra\u00dfe", "STRASSE"),
    ("fine", "\ufb01ne"),  # a ligature
    ("ann", "\uff41nn"),  # a wide letter
    ("two words", "two\u00a0\u3000words"),
    ("\u0915\u094d\u0937", "\u0915\u094d\u200d\u0937"),  # with an invisible joiner, which Devanagari knows
]
INVISIBLE = [
    *(
        "ann\ufe0f",
        "ann\u034f",
        "\u2800\u2800\u2800",
        "ann\u2800",
        "\u3164",
        "\uffa0",
        "\u115f",
        "\u17b4",
        "\u200b",
        "\ufeff",
    ),
    *(
        "a\u200db",
        "\u00ada",
        "\u180e",
        "\ufffc",
        "\U0001d159",
        "\U00016fe4",
        "\U000e0041",
        "\u0301",
        "\u0301ann",
        "\u00a0",
    ),
]


@pytest.mark.parametrize(("nickname", "other"), LOOK_ALIKES)
def test_a_nickname_that_looks_like_a_taken_one_is_409_and_signs_in_as_well(client, auth, nickname, other):
    assert register(client, nickname).status_code == 201
    assert register(client, other).status_code == 409
    assert client.get("/api/users/me", auth=(other, "correct horse")).json["nickname"] == nickname


@pytest.mark.parametrize("nickname", INVISIBLE)
def test_a_nickname_with_something_invisible_is_400(client, nickname):
    assert register(client, nickname).status_code == 400


def test_a_nickname_is_stored_in_normal_form(client):
    assert register(client, "Zoe\u0308").json["nickname"] == "Zo\u00eb"


def test_limits_count_all_spellings_of_a_nickname_together(client):
    nickname = "ann" * 3
    spellings = [nickname[:n].upper() + nickname[n:] for n in range(10)]
    statuses = [client.get("/api/users/me", auth=(spelling, "guess")).status_code for spelling in spellings]
    assert statuses == [401] * 10
    assert client.get("/api/users/me", auth=("Ann" * 3, "guess")).status_code == 429


def test_users_of_a_version_without_keys_get_them_oldest_first_and_younger_look_alikes_a_number(
    app, client, auth, caplog
):
    names = ["ann", "Ann", "ann\ufe0f", "ann-2", "\u2800\u2800", "Zoe\u0308", "Zo\u00eb"]
    ids = [auth.user(name) for name in names]
    assert register(client, "bob").status_code == 201
    with app.app_context():
        users = [db.session.get(User, user_id) for user_id in ids]
        now = [user.nickname for user in users]
        assert all(user.nickname_key for user in users)
    assert now == ["ann", "Ann-3", "ann-4", "ann-2", "user-2", "Zoe\u0308", "Zo\u00eb-2"]
    assert f"User {ids[1]} is now called Ann-3" in caplog.text
    assert register(client, "ANN").status_code == 409


def test_many_users_of_a_version_without_keys_get_them_in_several_transactions(app, auth):
    with app.app_context():
        with write_transaction() as session:
            values = {"created_at": 1, "updated_at": 1, "last_seen_at": 1, "password_hash": "x"}
            session.add_all([User(nickname=f"user {number}", **values) for number in range(1001)])
        fill_keys()
        assert db.session.scalar(select(func.count()).where(User.nickname_key.is_(None))) == 0


def test_a_user_of_a_version_without_keys_signs_in(client, auth, monkeypatch):
    monkeypatch.setattr("parley.api.users.matches", lambda _hash, given: given == "right")
    auth.user("Ann")
    assert client.get("/api/users/me", auth=("Ann", "right")).status_code == 200


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
