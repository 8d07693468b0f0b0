"""Users: register, look up, change, come and go."""

import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import pytest
from contract.conftest import MANY
from sqlalchemy import text

PASSWORD = "correct horse"  # noqa: S105
FIELDS = {"id", "created_at", "updated_at", "last_seen_at", "nickname", "online", "_links"}


def test_registering_answers_the_user_and_where_it_is(anonymous, random_nickname):
    nickname = random_nickname()
    answer = anonymous.post("/api/users", json={"nickname": nickname, "password": PASSWORD})

    assert answer.status_code == 201
    user = answer.json()
    assert set(user) == FIELDS
    assert user["nickname"] == nickname
    assert user["online"] is False
    assert abs(user["created_at"] - time.time()) < 5
    assert answer.headers["Location"] == user["_links"]["self"] == f"/api/users/{user['id']}"
    assert anonymous.get(answer.headers["Location"]).json() == user


def test_unknown_fields_are_ignored(anonymous, random_nickname):
    body = {"nickname": random_nickname(), "password": PASSWORD, "id": 1, "online": True, "is_admin": True}
    answer = anonymous.post("/api/users", json=body)

    assert answer.status_code == 201
    assert set(answer.json()) == FIELDS
    assert answer.json()["online"] is False


def test_nicknames_and_passwords_may_be_in_any_script(anonymous, random_nickname):
    anonymous.nickname, anonymous.password = f"Zoë 张{random_nickname()}", "pässwörd ☃"
    body = {"nickname": anonymous.nickname, "password": anonymous.password}
    assert anonymous.post("/api/users", json=body).status_code == 201
    assert anonymous.get("/api/users/me", auth=anonymous.credentials).json()["nickname"] == anonymous.nickname


BAD_NICKNAMES = ["", "n" * 33, "two\nlines", "nul\0", "\u202eright to left", "half \ud83c", 7, None, ["ann"]]
INVISIBLE = [
    "ann\ufe0f",
    "ann\u034f",
    "\u2800" * 3,
    "ann\u2800",
    "\u3164",
    "\uffa0",
    "\u0301",
    "a\u200bb",
    "\U0001d159",
]


@pytest.mark.parametrize("nickname", [*BAD_NICKNAMES, *INVISIBLE, "co:lon", "co\uff1alon", " ann", "ann ", " "])
def test_a_nickname_has_1_to_32_visible_characters_no_colon_and_no_space_at_its_ends(anonymous, nickname):
    assert anonymous.post("/api/users", json={"nickname": nickname, "password": PASSWORD}).status_code == 400


def test_nicknames_and_passwords_may_be_as_long_as_they_may_be(anonymous, random_nickname):
    anonymous.nickname, anonymous.password = f"{random_nickname():🐙<32}", "p" * 128
    body = {"nickname": anonymous.nickname, "password": anonymous.password}
    assert anonymous.post("/api/users", json=body).status_code == 201
    anonymous.sign_in()


@pytest.mark.parametrize("password", ["", "7 chars", "p" * 129, 12345678, None])
def test_a_password_has_8_to_128_characters(anonymous, random_nickname, password):
    assert anonymous.post("/api/users", json={"nickname": random_nickname(), "password": password}).status_code == 400


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"null", b'"ann"', b"\xff"])
def test_a_body_that_is_no_json_object_is_refused(anonymous, body):
    answer = anonymous.post("/api/users", data=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_a_taken_nickname_is_refused(ann, anonymous):
    answer = anonymous.post("/api/users", json={"nickname": ann.nickname, "password": PASSWORD})
    assert answer.status_code == 409


def test_of_racing_registrations_one_wins(make_client, random_nickname, differences):
    body = {"nickname": random_nickname(), "password": PASSWORD}
    clients = [make_client() for _ in range(8)]
    start = threading.Barrier(len(clients))

    def register(client):
        start.wait()
        return client.post("/api/users", json=body)

    with ThreadPoolExecutor(len(clients)) as threads:
        answers = list(threads.map(register, clients))
    assert sorted(answer.status_code for answer in answers) == [201] + [409] * 7
    several = differences["instances"][differences["services"]["/api/users"]] > 1
    assert len({answer.headers["X-Served-By"] for answer in answers}) > 1 or not several


def test_of_racing_repeats_of_one_registration_one_is_carried_out(make_client, random_nickname):
    body, key = {"nickname": random_nickname(), "password": "correct horse"}, {"Idempotency-Key": random_nickname()}
    clients = [make_client() for _ in range(8)]
    with ThreadPoolExecutor(len(clients)) as threads:
        answers = list(threads.map(lambda client: client.post("/api/users", json=body, headers=key), clients))
    assert Counter(answer.status_code for answer in answers) == {201: 1, 200: 7}
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_of_racing_registrations_in_nfc_and_nfd_one_wins(make_client, random_nickname):
    end, start = random_nickname(), threading.Barrier(2)
    spellings = [f"Zo\u00eb {end}", f"ZOE\u0308 {end}"]

    def register(nickname):
        client = make_client()
        start.wait()
        return client.post("/api/users", json={"nickname": nickname, "password": PASSWORD}).status_code

    with ThreadPoolExecutor(2) as threads:
        assert sorted(threads.map(register, spellings)) == [201, 409]


@pytest.mark.parametrize("spelling", ["Zoe\u0308", "ZO\u00cb", "\uff3aoe\u0308"])
def test_a_nickname_that_looks_like_a_taken_one_is_refused_and_signs_in_as_well(make_client, random_nickname, spelling):
    client, end = make_client(), random_nickname()
    body = {"nickname": f"Zo\u00eb {end}", "password": PASSWORD}
    assert client.post("/api/users", json=body).status_code == 201
    assert client.post("/api/users", json={**body, "nickname": f"{spelling} {end}"}).status_code == 409
    signed_in = client.get("/api/users/me", auth=(f"{spelling} {end}".encode(), PASSWORD.encode()))
    assert signed_in.json()["nickname"] == f"Zo\u00eb {end}"


def test_users_whom_an_older_version_stored_get_a_number_where_they_look_alike(
    running_stage, differences, ann, make_client, random_nickname
):
    end = random_nickname()
    values = [
        {"nickname": f"{name} {end}", "second": second} for second, name in enumerate(["Zoe\u0308", "ZO\u00cb"], 1)
    ]
    insert = """
        INSERT INTO users (created_at, updated_at, last_seen_at, nickname, password_hash, online)
        VALUES (:second, :second, :second, :nickname, '', :second = 0)
    """
    with running_stage.database(differences["services"]["/api/users"]) as database:
        with database.begin() as connection:
            connection.execute(text(insert), values)
        assert make_client().register().id  # the next registration brings them over
        with database.begin() as connection:
            find = text("SELECT nickname, nickname_key FROM users WHERE nickname LIKE :end ORDER BY created_at")
            rows = connection.execute(find, {"end": f"%{end}%"}).all()
            connection.execute(text("DELETE FROM users WHERE nickname LIKE :end"), {"end": f"%{end}%"})
    assert rows == [(f"Zoe\u0308 {end}", f"zo\u00eb {end}"), (f"ZO\u00cb {end}-2", f"zo\u00eb {end}-2")]


def test_of_racing_changes_to_one_nickname_one_wins(ann, bob, random_nickname):
    change = {"nickname": random_nickname()}
    with ThreadPoolExecutor(2) as threads:
        answers = threads.map(lambda user: user.put(f"/api/users/{user.id}", json=change).status_code, (ann, bob))
    assert sorted(answers) == [204, 409]


def test_an_unknown_user_is_not_found(anonymous):
    for user_id in ("0", "2147483647", "99999999999999999999", "x", "-1"):
        assert anonymous.get(f"/api/users/{user_id}").status_code == 404, user_id


def test_users_are_listed_by_time_of_change(anonymous, ann, bob, until):
    until(lambda: time.time() >= bob.user(bob.id)["updated_at"] + 1, 3, "the next second")
    ann.put("/api/users/me")  # registered first, changed last
    wanted = f"/api/users?ids={ann.id},{bob.id},{bob.id}"
    assert [user["id"] for user in anonymous.get(wanted).json()["users"]] == [bob.id, ann.id]

    users = anonymous.get("/api/users").json()["users"]
    assert {ann.id, bob.id} <= {user["id"] for user in users}
    order = [(user["updated_at"], user["nickname"]) for user in users]
    assert order == sorted(order)


def test_users_are_filtered_by_time_of_change(anonymous, ann):
    changed = ann.user(ann.id)["updated_at"]

    def found(since: int) -> bool:
        return ann.id in {user["id"] for user in anonymous.get(f"/api/users?updated_since={since}").json()["users"]}

    assert found(changed)
    assert not found(changed + 1)


def test_users_that_were_changed_in_the_same_second_are_listed_by_nickname(make_client, anonymous, random_nickname):
    users = [make_client().register() for _ in range(3)]
    found = anonymous.get(f"/api/users?ids={','.join(str(user.id) for user in users)}").json()["users"]
    assert [u["nickname"] for u in found] == [n for _, n in sorted((u["updated_at"], u["nickname"]) for u in found)]


def test_users_are_found_by_their_ids_and_unknown_ids_are_left_out(anonymous, ann):
    many = ",".join(["2147483647"] * 499)
    assert [user["id"] for user in anonymous.get(f"/api/users?ids={ann.id},{many}").json()["users"]] == [ann.id]
    assert anonymous.get(f"/api/users?ids={ann.id},{many},1").status_code == 400
    assert anonymous.get(f"/api/users?ids={ann.id}&online=1").json()["users"] == []


def position(user: dict) -> tuple[int, str]:
    return user["updated_at"], user["nickname"]


@pytest.mark.parametrize(("limit", "size"), [(None, 40_000), (500, 200_000)])
def test_with_20000_users_an_answer_stays_small(anonymous, many, limit, size):
    for query in ("", f"updated_since={many.second}&", "online=0&"):
        answer = anonymous.get(f"/api/users?{query}{f'limit={limit}' if limit else ''}")
        assert len(answer.json()["users"]) == (limit or 100)
        assert len(answer.content) < size


def test_following_the_links_finds_each_of_20000_users_once_while_others_register(make_client, anonymous, many):
    new = []
    path = f"/api/users?updated_since={many.second}&limit=500"
    register = lambda: len(new) < 5 and new.append(make_client().register())  # noqa: E731
    found = [user for page in anonymous.walk(path, before_each_page=register) for user in page]

    assert [position(user) for user in found] == sorted({position(user) for user in found})
    assert sum(user["updated_at"] == many.second for user in found) == MANY
    assert {user.id for user in new} <= {user["id"] for user in found}


def test_without_a_time_the_newest_users_are_listed_and_the_links_lead_back(ann, bob, anonymous, many):
    newest, older = anonymous.walk(f"/api/users?ids={ann.id},{bob.id}&limit=1")
    assert sorted([*newest, *older], key=position) == [*older, *newest]

    first = anonymous.get("/api/users").json()
    second = anonymous.get(first["_links"]["next"]).json()
    listed = [position(user) for user in [*second["users"], *first["users"]]]
    assert len(set(listed)) == 200
    assert listed == sorted(listed)


def test_the_next_page_meets_the_conditions_of_the_first(anonymous, ann, bob, many):
    for user in (ann, bob):
        user.put("/api/users/me")
    online = [user for page in anonymous.walk("/api/users?online=1&limit=1") for user in page]
    assert {ann.id, bob.id} <= {user["id"] for user in online}
    assert all(user["online"] for user in online)


@pytest.mark.parametrize(
    "query",
    [
        *("online=2", "online=yes", "updated_since=x", "updated_since=-1", "ids=1,x", "ids=", "updated_since=1e9"),
        *("limit=0", "limit=501", "limit=x", "limit=", "cursor=", "cursor=x", "cursor=YWZ0ZXIuMS4A"),
    ],
)
def test_a_malformed_query_of_users_is_refused(anonymous, query):
    assert anonymous.get(f"/api/users?{query}").status_code == 400


def test_the_password_check_answers_the_user(ann):
    answer = ann.get("/api/users/me", auth=ann.credentials)
    assert answer.status_code == 200
    assert answer.json()["id"] == ann.id


def test_the_password_check_does_not_tell_which_of_the_two_was_wrong(ann, random_nickname):
    wrong_password = ann.get("/api/users/me", auth=(ann.nickname, "wrong password"))
    wrong_nickname = ann.get("/api/users/me", auth=(random_nickname(), ann.password))
    assert wrong_password.status_code == wrong_nickname.status_code == 401
    assert wrong_password.json()["error"] == wrong_nickname.json()["error"]


def test_the_password_check_takes_no_token(ann, anonymous):
    assert ann.get("/api/users/me").status_code == 401
    assert anonymous.get("/api/users/me").status_code == 401


def test_users_change_their_nickname(ann, random_nickname):
    new = random_nickname()
    assert ann.put(f"/api/users/{ann.id}", json={"nickname": new}).status_code == 204
    assert ann.user(ann.id)["nickname"] == new
    ann.nickname = new
    ann.sign_in()


def test_a_change_of_nothing_that_is_known_changes_nothing(ann):
    before = ann.user(ann.id)
    for body in ({}, {"id": 1, "created_at": 1, "online": True, "is_admin": True}):
        assert ann.put(f"/api/users/{ann.id}", json=body).status_code == 204
    assert {**ann.user(ann.id), "last_seen_at": 0} == {**before, "last_seen_at": 0}


def test_a_nickname_can_not_be_changed_to_a_taken_or_bad_one(ann, bob):
    assert ann.put(f"/api/users/{ann.id}", json={"nickname": bob.nickname}).status_code == 409
    assert ann.put(f"/api/users/{ann.id}", json={"nickname": ""}).status_code == 400
    assert ann.put(f"/api/users/{ann.id}", json={"password": "short"}).status_code == 400
    assert ann.user(ann.id)["nickname"] == ann.nickname


def test_nobody_changes_somebody_else(ann, bob, anonymous):
    change = {"nickname": "anything"}
    assert ann.put(f"/api/users/{bob.id}", json=change).status_code == 403
    assert anonymous.put(f"/api/users/{bob.id}", json=change).status_code == 401
    assert ann.put("/api/users/2147483647", json=change).status_code == 404
    assert bob.user(bob.id)["nickname"] == bob.nickname


def test_a_good_token_counts_as_being_seen(ann, anonymous, until):
    before = anonymous.user(ann.id)
    until(lambda: time.time() >= before["last_seen_at"] + 1, 3, "the next second")
    assert anonymous.user(ann.id)["last_seen_at"] == before["last_seen_at"]
    assert ann.get("/api/messages?limit=1").status_code == 200
    after = until(
        lambda: (user := anonymous.user(ann.id))["last_seen_at"] > before["last_seen_at"] and user, 2, "ann was seen"
    )
    assert after["updated_at"] == before["updated_at"]


def test_users_come_and_go(ann, anonymous):
    def listed(online: int) -> bool:
        return ann.id in {user["id"] for user in anonymous.get(f"/api/users?online={online}").json()["users"]}

    assert listed(online=0)
    assert ann.put("/api/users/me").status_code == 204
    assert anonymous.user(ann.id)["online"] is True
    assert listed(online=1)
    assert not listed(online=0)

    assert ann.delete("/api/users/me").status_code == 204
    assert anonymous.user(ann.id)["online"] is False
    assert listed(online=0)


def test_coming_and_going_takes_a_token(anonymous):
    assert anonymous.put("/api/users/me").status_code == 401
    assert anonymous.delete("/api/users/me").status_code == 401
