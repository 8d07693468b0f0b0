import re
import time

import pytest

from common import services
from common.tests.helpers import Answer
from parley.socket_server import socketio as server

POST = ("POST", "/internal/messages")


@pytest.fixture
def tab(app):
    """A connected page."""
    tab = server.test_client(app)
    yield tab
    if tab.is_connected():
        tab.disconnect()


@pytest.fixture
def posted(others):
    """Messages stores what it is sent, under the id 7."""
    others.answers[" ".join(POST)] = Answer(200, {"id": 7})


def call(tab, event, *args):
    return tab.emit(event, *args, callback=True)


def names(tab):
    return [event["name"] for event in tab.get_received()]


def connections(others):
    """Return what users was told about connections: (method, user id, connection)."""
    calls = [
        (method, re.fullmatch(r"/internal/users/(\d+)/connections/(.+)", path)) for method, path, _ in others.calls
    ]
    return [(method, int(match[1]), match[2]) for method, match in calls if match]


def test_a_ping_counts_this_connection_as_its_users(tab, auth, ann, others):
    for _ in range(2):
        assert call(tab, "ping_user", auth.token(ann)) == {"id": ann}
    first, second = connections(others)
    assert first == second
    assert first[:2] == ("PUT", ann)
    assert names(tab) == []


def test_each_connection_is_counted_for_itself(app, tab, auth, ann, others):
    other = server.test_client(app)
    for page in (tab, other):
        call(page, "ping_user", auth.token(ann))
    assert len({connection for _method, _user_id, connection in connections(others)}) == 2


def test_a_message_is_posted_with_the_token_and_the_key(tab, auth, ann, others, posted):
    token = auth.token(ann)
    assert call(tab, "post_message", {"source": "hi", "more": "ignored"}, token) == {"id": 7}
    assert call(tab, "post_message", {"source": "ho"}, token, "k1") == {"id": 7}
    without, with_key = others.called(*POST)
    assert without["json"] == {"source": "hi", "idempotency_key": None}
    assert with_key["json"] == {"source": "ho", "idempotency_key": "k1"}
    assert without["headers"]["Authorization"] == with_key["headers"]["Authorization"] == f"Bearer {token}"


def test_each_event_has_a_request_id_of_its_own_that_is_passed_on(tab, auth, ann, others, posted):
    for _ in range(2):
        call(tab, "post_message", {"source": "hi"}, auth.token(ann))
    ids = [options["headers"]["X-Request-ID"] for options in others.called(*POST)]
    assert len(set(ids)) == 2
    assert all(re.fullmatch("[0-9a-f]{32}", request_id) for request_id in ids)


def test_only_a_message_with_a_key_is_sent_once_more_when_the_connection_broke_off(tab, auth, ann, others):
    others.broken = {"messages"}
    assert call(tab, "post_message", {"source": "hi"}, auth.token(ann))["status"] == 503
    assert len(others.called(*POST)) == 1
    assert call(tab, "post_message", {"source": "hi"}, auth.token(ann), "k1")["status"] == 503
    assert len(others.called(*POST)) == 1 + 2


@pytest.mark.parametrize("token", [None, "", "x", 5, {}, [], float("nan"), b"x"])
def test_a_refused_token_is_told_to_its_client_only(app, tab, others, token):
    other = server.test_client(app)
    assert call(tab, "ping_user", token)["status"] == 401
    assert call(tab, "post_message", {"source": "hi"}, token)["status"] == 401
    assert names(tab) == ["expired_token"] * 2
    assert names(other) == []
    assert others.calls == []


def test_a_token_that_only_messages_knows_to_be_revoked_is_told_to_its_client_too(tab, auth, ann, others):
    others.answers[" ".join(POST)] = Answer(401, {"error": "The token was revoked. Please sign in again."})
    acknowledgement = call(tab, "post_message", {"source": "hi"}, auth.token(ann))
    assert acknowledgement == {"error": "The token was revoked. Please sign in again.", "status": 401}
    assert names(tab) == ["expired_token"]


def test_a_revoked_token_is_refused(tab, auth, ann, others):
    others.revocations.append({"jti": None, "user_id": ann, "issued_until": time.time() + 10})
    assert call(tab, "ping_user", auth.token(ann))["status"] == 401
    assert connections(others) == []


@pytest.mark.parametrize("body", [None, 5, "text", []])
def test_a_bad_message_is_acknowledged_with_an_error(tab, auth, ann, others, body):
    acknowledgement = call(tab, "post_message", body, auth.token(ann))
    assert acknowledgement["status"] == 400
    assert acknowledgement["error"]
    assert others.called(*POST) == []


@pytest.mark.parametrize(
    "odd",
    [float("nan"), float("inf"), b"bytes", [[]], {"a": b"x"}, 10**4000, None, True],
    ids=lambda odd: f"{odd!r:.20}",
)
def test_what_is_no_text_is_refused_here_and_not_sent_to_messages(tab, auth, ann, others, odd):
    assert call(tab, "post_message", {"source": odd}, auth.token(ann))["status"] == 400
    if odd is not None:
        assert call(tab, "post_message", {"source": "hi"}, auth.token(ann), odd)["status"] == 400
    assert others.called(*POST) == []


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}\r\nX: y", "{}\u0100", "{}=", "{}\0"])
def test_a_good_token_with_something_around_it_is_refused(tab, auth, ann, others, change):
    token = change.format(auth.token(ann))
    assert call(tab, "ping_user", token)["status"] == 401
    assert call(tab, "post_message", {"source": "hi"}, token)["status"] == 401
    assert call(tab, "ping_user", auth.token(ann).encode())["status"] == 401
    assert others.called(*POST) == []


@pytest.mark.parametrize("status", [400, 422, 503])
def test_what_messages_refuses_is_acknowledged_in_its_words(tab, auth, ann, others, status):
    others.answers[" ".join(POST)] = Answer(status, {"error": "Not like this."})
    acknowledgement = call(tab, "post_message", {"source": ""}, auth.token(ann), "k1")
    assert acknowledgement == {"error": "Not like this.", "status": status}
    assert names(tab) == []


def test_while_users_is_away_a_ping_is_refused_and_posting_goes_on(tab, auth, ann, others, posted):
    others.away = {"users"}
    acknowledgement = call(tab, "ping_user", auth.token(ann))
    assert acknowledgement["status"] == 503
    assert "the users service" in acknowledgement["error"]
    assert call(tab, "post_message", {"source": "hi"}, auth.token(ann)) == {"id": 7}
    tab.disconnect()


def test_while_messages_is_away_posting_is_refused_and_pings_go_on(tab, auth, ann, others):
    others.away = {"messages"}
    assert call(tab, "post_message", {"source": "hi"}, auth.token(ann))["status"] == 503
    assert call(tab, "ping_user", auth.token(ann)) == {"id": ann}


def test_missing_and_superfluous_arguments_do_no_harm(tab, auth, ann):
    assert call(tab, "ping_user")["status"] == 401
    assert call(tab, "post_message")["status"] == 401
    assert call(tab, "ping_user", auth.token(ann), 1, 2, 3) == {"id": ann}


def test_an_unexpected_error_is_acknowledged_too(tab, auth, ann, monkeypatch):
    monkeypatch.setattr("parley.events.presence", lambda *_: 1 / 0)
    assert call(tab, "ping_user", auth.token(ann))["status"] == 500


def test_closing_ends_the_connection(tab, auth, ann, bob, others):
    call(tab, "ping_user", auth.token(ann))
    call(tab, "ping_user", auth.token(bob))
    [(_put, _ann, connection)] = connections(others)[:1]
    closed = [(user_id, closed) for method, user_id, closed in connections(others) if method == "DELETE"]
    assert closed == [(ann, connection)]  # somebody else signed in on the same page
    tab.disconnect()
    assert connections(others)[-1] == ("DELETE", bob, connection)


def test_a_connection_that_has_shown_no_token_ends_without_a_word(tab, others):
    tab.disconnect()
    assert others.calls == []


def test_a_connection_that_closes_during_its_first_ping_does_not_count(tab, auth, ann, others, monkeypatch):
    call_service = services.call

    def close_while_counting(service, method, path, **options):
        if method == "PUT" and "/connections/" in path:
            tab.disconnect()
        return call_service(service, method, path, **options)

    monkeypatch.setattr("common.services.call", close_while_counting)
    tab.emit("ping_user", auth.token(ann))
    # Its end was reported before it counted, and again afterwards.
    assert [method for method, *_ in connections(others)] == ["DELETE", "PUT", "DELETE"]


@pytest.mark.parametrize("query", ["EIO=3&transport=polling", "EIO=3&transport=websocket", "transport=polling", ""])
def test_a_client_of_another_protocol_version_is_told_which_one_it_needs(app, query):
    answer = app.test_client().get(f"/socket.io/?{query}", headers={"X-Request-ID": "abc-1"})
    assert (answer.status_code, answer.json["request_id"]) == (400, "abc-1")
    assert "EIO=4" in answer.json["error"]
