import io

import pytest
from sqlalchemy.exc import OperationalError

from common.errors import after_commit
from common.refusals import Declined, Taken, Unavailable


@pytest.fixture
def failing(app):
    """Return a function that makes /fails raise an exception."""

    def fail_with(error):
        @app.get("/fails")
        def fails():
            raise error

        return app.test_client().get("/fails", headers={"X-Request-ID": "abc-1"})

    return fail_with


def test_an_unknown_path_is_404_in_json(client):
    answer = client.get("/nothing", headers={"X-Request-ID": "abc-1"})
    assert answer.status_code == 404
    assert answer.json == {"error": "There is nothing at this address.", "request_id": "abc-1"}


def test_a_wrong_method_is_405_and_names_the_right_ones(client):
    answer = client.delete("/things")
    assert answer.status_code == 405
    assert "POST" in answer.headers["Allow"]
    assert set(answer.json) == {"error", "request_id"}


def test_a_body_that_is_too_large_is_413(client):
    assert client.post("/things", json={"name": "x" * 70_000}).status_code == 413


def test_a_refused_body_is_read_to_its_end_so_that_closing_the_connection_does_not_destroy_the_answer(client):
    body = io.BytesIO(b" " * 100_000)
    sent = {"input_stream": body, "content_length": 100_000, "environ_overrides": {"wsgi.input_terminated": True}}
    assert client.post("/things", content_type="application/json", **sent).status_code == 413
    assert body.tell() == 100_000


def test_a_body_without_a_length_that_is_too_large_is_413_too(client):
    body = b'{"name": "cup"}'
    for size, status in ((65_535, 201), (65_537, 413)):
        chunked = {"input_stream": io.BytesIO(body.ljust(size)), "environ_overrides": {"wsgi.input_terminated": True}}
        answer = client.post("/things", content_type="application/json", **chunked)
        assert answer.status_code == status


@pytest.mark.parametrize("body", ["", "{", "[]", "3", '"text"', "[" * 30_000])
def test_a_body_that_is_no_object_is_400(client, body):
    answer = client.post("/things", data=body, content_type="application/json")
    assert answer.status_code == 400
    assert "JSON object" in answer.json["error"]


def test_a_body_that_does_not_say_it_is_json_is_400(client):
    assert client.post("/things", data='{"name": "cup"}').status_code == 400


def test_a_refusal_has_its_status_and_its_sentence(failing):
    answer = failing(Taken("Somebody was faster."))
    assert (answer.status_code, answer.json["error"]) == (409, "Somebody was faster.")


def test_what_another_service_refuses_is_refused_in_its_words(failing):
    answer = failing(Declined("Too many attempts.", 429, "17"))
    assert (answer.status_code, answer.json["error"]) == (429, "Too many attempts.")
    assert answer.headers["Retry-After"] == "17"


def test_a_service_that_does_not_answer_is_503_and_named(failing):
    answer = failing(Unavailable("tokens"))
    assert answer.status_code == 503
    assert "the tokens service, which does not answer" in answer.json["error"]


def test_a_busy_database_is_503(failing):
    assert failing(OperationalError("BEGIN", {}, Exception("locked"))).status_code == 503


def test_an_unexpected_error_is_500_and_tells_nothing(failing, caplog):
    answer = failing(RuntimeError("the secret is swordfish"))
    assert answer.status_code == 500
    assert "swordfish" not in answer.text
    assert answer.json["request_id"] == "abc-1"
    assert "swordfish" in caplog.text


def test_what_fails_after_a_commit_is_logged_and_raises_nothing(app, caplog):
    @after_commit
    def tell(whom):
        raise RuntimeError(f"swordfish for {whom}")

    with app.app_context():
        tell("ann")
    assert "After the commit, tell failed: Something went wrong" in caplog.text
    assert "swordfish for ann" in caplog.text  # nobody expected it: with its traceback
