import threading
import time

import pytest

from parley.database import write_transaction
from parley.models.message import DAY, IdempotencyKey, Message
from parley.paging import MAX_ANSWER


@pytest.fixture
def post(client, auth, ann, queued):
    """Return a function that posts as Ann."""
    headers = auth.headers(ann)

    def post(source, key=None):
        more = {"Idempotency-Key": key} if key else {}
        return client.post("/api/messages", json={"source": source}, headers={**headers, **more})

    return post


@pytest.fixture
def insert(app, ann):
    """Return a function that inserts messages that changed at these times."""

    def insert(*times):
        with app.app_context(), write_transaction() as session:
            for at in times:
                session.add(Message(created_at=at, updated_at=at, source="x", html="x", user_id=ann))

    return insert


def pages(client, url):
    """Follow the links; return one list of ids per page."""
    found = []
    while url:
        answer = client.get(url).json
        found.append([message["id"] for message in answer["messages"]])
        url = answer["_links"].get("next")
    return found


def test_posting_answers_the_rendered_message_and_pushes_it(client, post, ann, pushed):
    answer = post("hello *you*")
    assert answer.status_code == 201
    assert answer.json["html"] == "<p>hello <em>you</em></p>\n"
    assert answer.json["user_id"] == ann
    assert answer.headers["Location"] == answer.json["_links"]["self"]
    assert client.get(answer.headers["Location"]).json == answer.json
    assert client.get(answer.json["_links"]["user"]).json["id"] == ann
    assert pushed == [("Message", answer.json)]


@pytest.mark.parametrize("source", [None, 5, "", " \n\t", "x" * 4001, "a\0b", "\ud800"])
def test_a_bad_message_is_400(post, source):
    assert post(source).status_code == 400


@pytest.mark.parametrize("source", ["a|" * 400 + "\n" + "-|" * 400 + "\n" + "x\n" * 1100, ">" * 4000])
def test_markdown_that_is_too_complex_is_400_and_says_what_to_do(client, auth, ann, post, source):
    refused = post(source)
    assert refused.status_code == 400
    assert "Use fewer" in refused.json["error"]
    url = post("hi").json["_links"]["self"]
    assert client.put(url, json={"source": source}, headers=auth.headers(ann)).json["error"] == refused.json["error"]
    assert client.get(url).json["source"] == "hi"


def test_a_message_has_up_to_4000_characters(post):
    assert post("🙂" * 4000).status_code == 201


def test_posting_needs_a_token(client):
    assert client.post("/api/messages", json={"source": "hi"}).status_code == 401


def test_only_a_message_with_links_is_queued(post, queued):
    post("no link")
    message = post("see https://example.com/").json
    assert queued == [message["id"]]


def test_a_repeated_key_answers_the_first_message(client, post, pushed):
    first, second = post("hi", key="k1"), post("hi", key="k1")
    assert (first.status_code, second.status_code) == (201, 200)
    assert first.json == second.json
    assert len(pushed) == len(client.get("/api/messages").json["messages"]) == 1


def test_a_key_used_at_once_from_eight_clients_makes_one_message(app, auth, ann, pushed, queued):
    headers = {**auth.headers(ann), "Idempotency-Key": "k1"}
    statuses = []

    def post():
        statuses.append(app.test_client().post("/api/messages", json={"source": "hi"}, headers=headers).status_code)

    threads = [threading.Thread(target=post) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(statuses) == [200] * 7 + [201]
    assert len(pushed) == 1


def test_a_key_with_another_body_is_422(post):
    post("hi", key="k1")
    assert post("ho", key="k1").status_code == 422


def test_a_key_is_its_users_own(client, auth, post):
    post("hi", key="k1")
    bob = {**auth.headers(auth.user("bob")), "Idempotency-Key": "k1"}
    assert client.post("/api/messages", json={"source": "ho"}, headers=bob).status_code == 201


def test_a_key_lasts_a_day(app, post):
    post("hi", key="k1")
    with app.app_context(), write_transaction() as session:
        session.query(IdempotencyKey).one().created_at -= DAY + 1
    assert post("ho", key="k1").status_code == 201


@pytest.mark.parametrize("key", ["x" * 129, "k\xe9y"])
def test_a_bad_key_is_400(post, key):
    assert post("hi", key=key).status_code == 400


def test_the_author_edits_a_message(client, auth, ann, post, pushed, queued):
    message = post("hi").json
    answer = client.put(message["_links"]["self"], json={"source": "https://a.example/"}, headers=auth.headers(ann))
    assert (answer.status_code, answer.text) == (204, "")
    edited = client.get(message["_links"]["self"]).json
    assert edited["source"] == "https://a.example/"
    assert 'href="https://a.example/"' in edited["html"]
    assert edited["created_at"] == message["created_at"]
    assert pushed[-1] == ("Message", edited)
    assert queued == [message["id"]]


def test_edits_are_refused(client, auth, ann, post):
    url = post("hi").json["_links"]["self"]
    assert client.put(url, json={"source": "ho"}).status_code == 401
    assert client.put(url, json={"source": "ho"}, headers=auth.headers(auth.user("bob"))).status_code == 403
    assert client.put(url, json={"source": " "}, headers=auth.headers(ann)).status_code == 400
    assert client.put("/api/messages/4711", json={"source": "ho"}, headers=auth.headers(ann)).status_code == 404
    assert client.get(url).json["source"] == "hi"


@pytest.mark.parametrize("message_id", [4711, 2**31, 2**70])
def test_an_unknown_message_is_404(client, message_id):
    assert client.get(f"/api/messages/{message_id}").status_code == 404


def test_the_newest_messages_are_listed_oldest_first(client, insert):
    now = int(time.time())
    insert(now - 10, now - 30, now - 20, now - DAY - 10)
    assert pages(client, "/api/messages") == [[2, 3, 1]]
    assert pages(client, "/api/messages?limit=2") == [[3, 1], [2]]


def test_messages_are_listed_since_a_time(client, insert):
    now = int(time.time())
    insert(now - 10, now - 30, now - 20, now - DAY - 10)
    assert pages(client, f"/api/messages?updated_since={now - 20}") == [[3, 1]]
    assert pages(client, "/api/messages?updated_since=0&limit=2") == [[2, 3], [1]]
    assert pages(client, f"/api/messages?updated_since={now + 10}") == [[]]


@pytest.mark.parametrize("query", ["limit=500", "limit=500&updated_since=0", "limit=2"])
def test_an_answer_has_a_limited_size_and_the_next_one_goes_on(app, client, ann, query):
    now = int(time.time())
    with app.app_context(), write_transaction() as session:
        for text in ["😀" * 4000] * 30 + ["x" * (2 * MAX_ANSWER)]:  # the last: stored before HTML had a limit
            session.add(Message(created_at=now, updated_at=now, source=text, html=text, user_id=ann))
    found = pages(client, f"/api/messages?{query}")
    assert sorted(message_id for page in found for message_id in page) == list(range(1, 32))
    assert [31] in found
    assert max(map(len, found)) == (2 if query == "limit=2" else MAX_ANSWER // (2 * 12 * 4000))


@pytest.mark.parametrize("query", ["limit=7", "limit=7&updated_since=0"])
def test_paging_has_no_gap_and_no_repeat_when_all_share_a_second(client, insert, query):
    insert(*[int(time.time())] * 50)
    found = [message_id for page in pages(client, f"/api/messages?{query}") for message_id in page]
    assert sorted(found) == list(range(1, 51))


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=501",
        "limit=x",
        "limit=",
        "updated_since=x",
        "updated_since=-1",
        "updated_since=" + "9" * 30,
        "cursor=",
        "cursor=x",
        "cursor=%C3%A4",
        "cursor=YWZ0ZXIuMS54",
    ],
)
def test_a_malformed_query_is_400(client, query):
    assert client.get(f"/api/messages?{query}").status_code == 400
