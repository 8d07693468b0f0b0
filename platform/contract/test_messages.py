"""Messages: post, edit, list page by page, and never twice."""

import secrets
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

FIELDS = {"id", "created_at", "updated_at", "source", "html", "user_id", "_links"}


def post_with_key(client, source: str, key: str):
    return client.post("/api/messages", json={"source": source}, headers={"Idempotency-Key": key})


def walk(client, path: str) -> list[list[dict]]:
    """Return all pages of a list of messages, following the links."""
    pages = []
    while path:
        answer = client.get(path)
        assert answer.status_code == 200, answer.text
        pages.append(answer.json()["messages"])
        path = answer.json().get("_links", {}).get("next")
    return pages


def position(message: dict) -> tuple[int, int]:
    return message["updated_at"], message["id"]


def test_posting_answers_the_message_and_where_it_is(ann):
    answer = ann.post("/api/messages", json={"source": "Hello, *world*"})

    assert answer.status_code == 201
    message = answer.json()
    assert set(message) == FIELDS
    assert message["source"] == "Hello, *world*"
    assert message["html"].strip() == "<p>Hello, <em>world</em></p>"
    assert message["user_id"] == ann.id
    assert message["created_at"] == message["updated_at"]
    assert abs(message["created_at"] - time.time()) < 5
    assert answer.headers["Location"] == message["_links"]["self"] == f"/api/messages/{message['id']}"
    assert ann.get(answer.headers["Location"]).json() == message


def test_links_name_routes_that_exist(ann):
    for model in (ann.say("hello"), ann.user(ann.id)):
        for name, path in model["_links"].items():
            answer = ann.get(path)
            assert answer.status_code == (405 if name == "tokens" else 200), path  # tokens are made, not read
    assert "POST" in ann.get("/api/tokens").headers["Allow"]


@pytest.mark.parametrize("source", [None, "", " \n\t ", "x" * 4001, 42, ["hello"]])
def test_a_message_has_1_to_4000_characters(ann, source):
    assert ann.post("/api/messages", json={"source": source}).status_code == 400


def test_a_body_without_a_source_is_refused(ann):
    assert ann.post("/api/messages", json={}).status_code == 400
    assert ann.post("/api/messages", json="hello").status_code == 400
    assert ann.post("/api/messages", data="source=hello").status_code == 400


def test_characters_are_counted_not_bytes(ann):
    assert ann.say("🐙" * 4000)["source"] == "🐙" * 4000


def test_posting_takes_a_token(anonymous):
    assert anonymous.post("/api/messages", json={"source": "hello"}).status_code == 401


def test_markdown_is_rendered_and_nothing_else(ann):
    html = ann.say("# Title\n\n- `code`\n\n<script>alert(1)</script>\n\n[x](javascript:alert(1)) <b onclick=a()>b</b>")[
        "html"
    ]
    assert "<h1>Title</h1>" in html
    assert "<code>code</code>" in html
    for forbidden in ("<script", "<b", 'href="javascript:'):
        assert forbidden not in html


def test_authors_edit_their_messages(ann, until):
    message = ann.say("first")
    until(lambda: time.time() >= message["updated_at"] + 1, 3, "the next second")
    assert ann.put(f"/api/messages/{message['id']}", json={"source": "*second*"}).status_code == 204

    edited = ann.read(message["id"])
    assert edited["source"] == "*second*"
    assert "<em>second</em>" in edited["html"]
    assert edited["created_at"] == message["created_at"]
    assert edited["updated_at"] > message["updated_at"]


def test_nobody_edits_somebody_elses_message(ann, bob, anonymous):
    message = ann.say("mine")
    path, change = f"/api/messages/{message['id']}", {"source": "yours"}
    assert bob.put(path, json=change).status_code == 403
    assert anonymous.put(path, json=change).status_code == 401
    assert ann.put(path, json={"source": " "}).status_code == 400
    assert ann.read(message["id"]) == message


def test_an_unknown_message_is_not_found(ann):
    for message_id in ("0", "2147483647", "99999999999999999999", "x"):
        assert ann.get(f"/api/messages/{message_id}").status_code == 404, message_id
        assert ann.put(f"/api/messages/{message_id}", json={"source": "x"}).status_code == 404, message_id


def test_anybody_reads_the_newest_messages(ann, anonymous):
    posted = [ann.say(f"number {number}")["id"] for number in range(5)]

    newest = anonymous.get("/api/messages?limit=3").json()["messages"]
    assert [message["id"] for message in newest] == posted[-3:]
    assert [position(message) for message in newest] == sorted(position(message) for message in newest)
    assert posted[-1] == anonymous.get("/api/messages").json()["messages"][-1]["id"]


def test_following_the_links_leads_from_the_newest_messages_back(ann, anonymous):
    posted = [ann.say(f"number {number}")["id"] for number in range(5)]

    answer = anonymous.get("/api/messages?limit=2").json()
    assert [message["id"] for message in answer["messages"]] == posted[3:]
    answer = anonymous.get(answer["_links"]["next"]).json()
    assert [message["id"] for message in answer["messages"]] == posted[1:3]


def test_catching_up_finds_every_message_once_although_many_share_a_second(ann, anonymous):
    with ThreadPoolExecutor(4) as threads:
        posted = list(threads.map(lambda number: ann.say(f"number {number}"), range(20)))
    since = min(message["updated_at"] for message in posted)

    pages = walk(anonymous, f"/api/messages?updated_since={since}&limit=3")
    found = [message for page in pages for message in page]
    assert all(len(page) == 3 for page in pages[:-1])
    assert [position(message) for message in found] == sorted({position(message) for message in found})
    assert {message["id"] for message in posted} <= {message["id"] for message in found}


def test_catching_up_finds_an_edited_message_again(ann, until):
    old, new = ann.say("old"), ann.say("new")
    until(lambda: time.time() >= new["updated_at"] + 1, 3, "the next second")
    ann.put(f"/api/messages/{old['id']}", json={"source": "edited"})
    (page,) = walk(ann, f"/api/messages?updated_since={ann.read(old['id'])['updated_at']}")

    assert "edited" in [message["source"] for message in page if message["id"] == old["id"]]
    assert new["id"] not in [message["id"] for message in page]


@pytest.mark.parametrize(
    "query",
    ["limit=0", "limit=501", "limit=x", "limit=", "updated_since=x", "updated_since=-1", "updated_since=", "cursor=x"],
)
def test_a_malformed_query_of_messages_is_refused(anonymous, query):
    assert anonymous.get(f"/api/messages?{query}").status_code == 400


def test_a_repeated_post_with_the_same_key_makes_one_message(ann):
    key = secrets.token_hex()
    first, repeat = (post_with_key(ann, "once", key) for _ in range(2))

    assert (first.status_code, repeat.status_code) == (201, 200)
    assert first.json() == repeat.json()


def test_of_concurrent_posts_with_the_same_key_one_makes_a_message(ann):
    key, since = secrets.token_hex(), int(time.time())
    with ThreadPoolExecutor(6) as threads:
        answers = list(threads.map(lambda _: post_with_key(ann, "once", key), range(6)))

    assert sorted(answer.status_code for answer in answers) == [200] * 5 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1
    stored = [message for page in walk(ann, f"/api/messages?updated_since={since}") for message in page]
    assert [message["source"] for message in stored if message["user_id"] == ann.id] == ["once"]


def test_a_key_with_another_body_is_refused(ann):
    key = secrets.token_hex()
    assert post_with_key(ann, "one", key).status_code == 201
    assert post_with_key(ann, "another", key).status_code == 422


def test_keys_belong_to_their_user(ann, bob):
    key = secrets.token_hex()
    assert post_with_key(ann, "hello", key).status_code == 201
    assert post_with_key(bob, "hi", key).status_code == 201
