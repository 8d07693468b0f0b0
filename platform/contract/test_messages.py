"""Messages: post, edit, list page by page, and never twice."""

import secrets
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from types import SimpleNamespace

import pytest
from sqlalchemy import text

FIELDS = {"id", "created_at", "updated_at", "source", "html", "user_id", "_links"}


def post_with_key(client, source: str, key: str):
    return client.post("/api/messages", json={"source": source}, headers={"Idempotency-Key": key})


@pytest.fixture
def crowd(ann, store):
    """The ids of 3,000 messages that share a second, an hour ago; put there as copies of one that was posted."""
    message = ann.say("crowd")
    values = {"id": message["id"], "second": message["updated_at"] - 3600, "count": 3000}
    insert = """
        WITH RECURSIVE number(n) AS (VALUES (1) UNION ALL SELECT n + 1 FROM number WHERE n < :count)
        INSERT INTO messages (created_at, updated_at, source, html, user_id)
        SELECT :second, :second, source, html, user_id FROM number, messages WHERE id = :id
    """
    with store.begin() as connection:
        connection.execute(text(insert), values)
        ids = connection.scalars(text("SELECT id FROM messages WHERE updated_at = :second ORDER BY id"), values).all()
    yield SimpleNamespace(second=values["second"], ids=ids)
    with store.begin() as connection:
        connection.execute(text("DELETE FROM messages WHERE updated_at = :second"), values)


def position(message: dict) -> tuple[int, int]:
    return message["updated_at"], message["id"]


def is_of(crowd, page: list[dict]) -> bool:
    """Tell whether a page has messages of the crowd only: larger ones, of other tests, fill a page before `limit`."""
    return {message["updated_at"] for message in page} == {crowd.second}


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


@pytest.mark.parametrize("source", [None, "", " \n\t ", "x" * 4001, 42, ["hello"], "nul \0", "half \ud83c"])
def test_a_message_has_1_to_4000_characters_that_can_be_stored(ann, source):
    assert ann.post("/api/messages", json={"source": source}).status_code == 400
    message = ann.say("fine")
    assert ann.put(message["_links"]["self"], json={"source": source}).status_code == 400
    assert ann.read(message["id"]) == message


def test_unknown_fields_are_ignored(ann, bob):
    body = {"source": "hello", "id": 1, "user_id": bob.id, "created_at": 1, "html": "<script>"}
    message = ann.post("/api/messages", json=body).json()
    assert message["user_id"] == ann.id
    assert message["html"].strip() == "<p>hello</p>"
    assert message["created_at"] > 1


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


@pytest.mark.parametrize(
    "source",
    [
        "a|" * 400 + "\n" + "-|" * 400 + "\n" + "x\n" * 1100,
        ">" * 1000 + "x\n" * 1400,
        "[a]: /b (" + '"' * 1500 + ")\n\n" + "[a]" * 800,
        "*a _b " * 330 + "_ *" * 330,
    ],
    ids=["a table", "quotes in quotes", "a definition with many uses", "emphasis in emphasis"],
)
def test_markdown_that_would_become_too_much_html_is_refused(ann, listen, source):
    source = source[:4000]
    refused = ann.post("/api/messages", json={"source": source})
    assert refused.status_code == 400
    assert "Use fewer" in refused.json()["error"]
    assert listen().call("post_message", {"source": source}, ann.token)["error"] == refused.json()["error"]
    message = ann.say("fine")
    assert ann.put(message["_links"]["self"], json={"source": source}).status_code == 400
    assert ann.read(message["id"]) == message


@pytest.fixture
def large(ann):
    """The ids of twelve messages, each with 48 KB of source and 48 KB of HTML in JSON; short again in the end."""
    messages = [ann.say("🐙" * 4000) for _ in range(12)]
    yield [message["id"] for message in messages]
    for message in messages:
        ann.put(message["_links"]["self"], json={"source": "short again"})


def test_an_answer_has_a_limited_size(ann, large):
    since = ann.read(large[0])["updated_at"]
    for path in (f"/api/messages?updated_since={since}&limit=500", "/api/messages?limit=500"):
        answer = ann.get(path)
        assert len(answer.content) < 600 * 1024  # 512 KB of messages, and what separates them
        assert "next" in answer.json()["_links"]
    listed = [message["id"] for page in ann.walk(f"/api/messages?updated_since={since}&limit=500") for message in page]
    assert [message_id for message_id in listed if message_id in large] == large


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

    pages = anonymous.walk(f"/api/messages?updated_since={since}&limit=3")
    found = [message for page in pages for message in page]
    assert all(len(page) == 3 for page in pages[:-1])
    assert [position(message) for message in found] == sorted({position(message) for message in found})
    assert {message["id"] for message in posted} <= {message["id"] for message in found}


@pytest.mark.parametrize("limit", [100, 500])
def test_catching_up_finds_each_of_3000_messages_of_one_second_once_while_others_come_in(ann, anonymous, crowd, limit):
    new = []
    path = f"/api/messages?updated_since={crowd.second}&limit={limit}"
    pages = anonymous.walk(path, before_each_page=lambda: new.append(ann.say("meanwhile")["id"]))

    found = [message for page in pages for message in page]
    assert [position(message) for message in found] == sorted({position(message) for message in found})
    assert [message["id"] for message in found if message["updated_at"] == crowd.second] == crowd.ids
    assert set(new) <= {message["id"] for message in found}
    assert {len(page) for page in pages[:-1] if is_of(crowd, page)} == {limit}


def test_going_back_finds_each_of_3000_messages_of_one_second_once_while_others_come_in(ann, anonymous, crowd):
    pages = anonymous.walk("/api/messages?limit=499", before_each_page=lambda: ann.say("meanwhile"))

    found = [message for page in reversed(pages) for message in page]
    assert [position(message) for message in found] == sorted({position(message) for message in found})
    assert [message["id"] for message in found if message["updated_at"] == crowd.second] == crowd.ids
    assert {len(page) for page in pages[:-1] if is_of(crowd, page)} == {499}


def test_a_page_has_100_messages_unless_another_number_is_asked_for(anonymous, crowd):
    for path in ("/api/messages", f"/api/messages?updated_since={crowd.second}"):
        assert len(anonymous.get(path).json()["messages"]) == 100


def test_a_cursor_goes_before_the_time(anonymous, crowd):
    first = anonymous.get(f"/api/messages?updated_since={crowd.second}&limit=2").json()
    second = anonymous.get(f"{first['_links']['next']}&updated_since=0").json()
    assert [message["id"] for message in first["messages"] + second["messages"]] == crowd.ids[:4]


def test_only_messages_of_the_last_day_are_listed(ann, anonymous, store):
    old, young = ann.say("old"), ann.say("young")
    for message, hours in ((old, 25), (young, 23)):
        values = {"id": message["id"], "changed": message["updated_at"] - hours * 3600}
        with store.begin() as connection:
            connection.execute(text("UPDATE messages SET updated_at = :changed WHERE id = :id"), values)

    def listed() -> set[int]:
        return {message["id"] for page in anonymous.walk("/api/messages?updated_since=0&limit=500") for message in page}

    assert young["id"] in listed()
    assert old["id"] not in listed()
    assert anonymous.read(old["id"])["source"] == "old"
    ann.put(old["_links"]["self"], json={"source": "edited"})
    assert old["id"] in listed()


def test_catching_up_finds_an_edited_message_again(ann, until):
    old, new = ann.say("old"), ann.say("new")
    until(lambda: time.time() >= new["updated_at"] + 1, 3, "the next second")
    ann.put(f"/api/messages/{old['id']}", json={"source": "edited"})
    (page,) = ann.walk(f"/api/messages?updated_since={ann.read(old['id'])['updated_at']}")

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


def test_of_eight_posts_at_once_with_the_same_key_one_makes_a_message_and_one_push(ann, make_client, listen, settle):
    listener, key, since = listen(), secrets.token_hex(), int(time.time())
    clients = [make_client() for _ in range(8)]
    start = threading.Barrier(len(clients))

    def post(client):
        client.http.headers["Authorization"] = f"Bearer {ann.token}"
        start.wait()
        return post_with_key(client, "once", key)

    with ThreadPoolExecutor(len(clients)) as threads:
        answers = list(threads.map(post, clients))

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    first = answers[0].json()
    assert all(answer.json() == first for answer in answers)
    assert len({answer.headers["X-Served-By"] for answer in answers}) > 1
    stored = [message for page in ann.walk(f"/api/messages?updated_since={since}") for message in page]
    assert [message for message in stored if message["user_id"] == ann.id] == [first]
    settle(listener, ann)
    assert listener.heard("Message", first["id"]) == [first]


def test_a_repeat_answers_the_first_message_as_it_is_by_now(ann):
    key = secrets.token_hex()
    first = post_with_key(ann, "once", key).json()
    ann.put(first["_links"]["self"], json={"source": "edited"})
    assert post_with_key(ann, "once", key).json() == ann.read(first["id"])


@pytest.mark.parametrize("key", ["", "k" * 129, "käse".encode(), b"tab\there"])
def test_a_key_has_1_to_128_printable_ascii_characters(ann, key):
    assert post_with_key(ann, "hello", key).status_code == 400
    assert post_with_key(ann, "hello", secrets.token_hex(64)).status_code == 201


def test_a_key_with_another_body_is_refused(ann):
    key = secrets.token_hex()
    assert post_with_key(ann, "one", key).status_code == 201
    assert post_with_key(ann, "another", key).status_code == 422


def test_keys_belong_to_their_user(ann, bob):
    key = secrets.token_hex()
    assert post_with_key(ann, "hello", key).status_code == 201
    assert post_with_key(bob, "hi", key).status_code == 201
