import pytest


@pytest.fixture
def post(client, auth, ann, queued):
    """Return a function that posts as socketio does for Ann, and returns status and body."""
    headers = auth.headers(ann)

    def post(**body):
        answer = client.post("/internal/messages", json=body, headers=headers)
        return answer.status_code, answer.json

    return post


def test_a_message_from_the_socket_is_stored_and_pushed_and_its_id_answered(client, post, ann, pushed, queued):
    status, body = post(source="https://a.example/", idempotency_key=None)
    assert (status, set(body)) == (200, {"id"})
    message = client.get(f"/api/messages/{body['id']}").json
    assert (message["user_id"], message["source"]) == (ann, "https://a.example/")
    assert pushed == [("Message", message)]
    assert queued == [message["id"]]


def test_a_repeated_key_answers_the_first_message(post, pushed):
    first = post(source="hi", idempotency_key="k1")
    assert first == post(source="hi", idempotency_key="k1")
    assert first != post(source="hi", idempotency_key="k2")
    assert len(pushed) == 2
    assert post(source="ho", idempotency_key="k1")[0] == 422


@pytest.mark.parametrize("source", [None, 5, "", " \n", {}, "x" * 4001, "\ud800"])
def test_a_bad_message_is_400(post, source):
    assert post(source=source)[0] == 400


@pytest.mark.parametrize("key", [5, "", [], {}, True, "x" * 129, "two\nlines", "é"])
def test_a_bad_key_is_400(post, key):
    assert post(source="hi", idempotency_key=key)[0] == 400


def test_posting_needs_a_token(client):
    assert client.post("/internal/messages", json={"source": "hi"}).status_code == 401
