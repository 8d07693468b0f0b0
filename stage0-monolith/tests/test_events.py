import pytest
import socketio

from parley.socket_server import socketio as server


@pytest.fixture
def app(monkeypatch, request):
    """The application without a message queue: Flask-SocketIO's test client wants to see all packets itself."""
    monkeypatch.setattr("parley.push.MessageQueue", lambda _url: socketio.Manager())
    return request.getfixturevalue("plain_app")


@pytest.fixture
def tab(app):
    """A connected page."""
    tab = server.test_client(app)
    yield tab
    if tab.is_connected():
        tab.disconnect()


def call(tab, event, *args):
    return tab.emit(event, *args, callback=True)


def names(tab):
    return [event["name"] for event in tab.get_received()]


def test_a_ping_makes_the_user_online_for_all(app, client, tab, auth, ann):
    other = server.test_client(app)
    assert call(tab, "ping_user", auth.token(ann)) == {"id": ann}
    [event] = other.get_received()
    assert event["name"] == "updated_model"
    assert event["args"] == [{"class": "User", "model": client.get(f"/api/users/{ann}").json}]
    assert event["args"][0]["model"]["online"] is True
    assert call(tab, "ping_user", auth.token(ann)) == {"id": ann}
    assert names(other) == []


def test_a_message_is_posted_and_pushed_to_all(app, client, tab, auth, ann):
    other = server.test_client(app)
    acknowledgement = call(tab, "post_message", {"source": "hi"}, auth.token(ann))
    message = client.get(f"/api/messages/{acknowledgement['id']}").json
    assert other.get_received()[0]["args"] == [{"class": "Message", "model": message}]


def test_a_repeated_key_is_acknowledged_with_the_first_message(tab, auth, ann):
    first = call(tab, "post_message", {"source": "hi"}, auth.token(ann), "k1")
    assert call(tab, "post_message", {"source": "hi"}, auth.token(ann), "k1") == first
    assert call(tab, "post_message", {"source": "ho"}, auth.token(ann), "k1")["status"] == 422


@pytest.mark.parametrize("token", [None, "", "x", 5, {}, []])
def test_a_refused_token_is_told_to_its_client_only(app, tab, token):
    other = server.test_client(app)
    assert call(tab, "ping_user", token)["status"] == 401
    assert call(tab, "post_message", {"source": "hi"}, token)["status"] == 401
    assert names(tab) == ["expired_token"] * 2
    assert names(other) == []


@pytest.mark.parametrize("body", [None, 5, "text", [], {}, {"source": ""}, {"source": 5}])
def test_a_bad_message_is_acknowledged_with_an_error(tab, auth, ann, body):
    acknowledgement = call(tab, "post_message", body, auth.token(ann))
    assert acknowledgement["status"] == 400
    assert acknowledgement["error"]


def test_missing_and_superfluous_arguments_do_no_harm(tab, auth, ann):
    assert call(tab, "ping_user")["status"] == 401
    assert call(tab, "post_message")["status"] == 401
    assert call(tab, "ping_user", auth.token(ann), 1, 2, 3) == {"id": ann}


def test_an_unexpected_error_is_acknowledged_too(tab, auth, ann, monkeypatch):
    monkeypatch.setattr("parley.presence.ping", lambda *_: 1 / 0)
    assert call(tab, "ping_user", auth.token(ann))["status"] == 500


def test_closing_ends_the_connection(tab, auth, ann, monkeypatch):
    closed = []
    monkeypatch.setattr("parley.presence.close", lambda user_id, _connection: closed.append(user_id))
    call(tab, "ping_user", auth.token(ann))
    bob = auth.user("bob")
    call(tab, "ping_user", auth.token(bob))
    assert closed == [ann]  # somebody else signed in on the same page
    tab.disconnect()
    assert closed == [ann, bob]


def test_a_connection_that_closes_during_its_first_ping_does_not_count(tab, auth, ann, monkeypatch):
    closed = []
    monkeypatch.setattr("parley.presence.ping", lambda *_: tab.disconnect())
    monkeypatch.setattr("parley.presence.close", lambda user_id, _connection: closed.append(user_id))
    tab.emit("ping_user", auth.token(ann))
    assert closed[-1] == ann
    assert len(closed) == 2  # once too early, and once after the ping was counted


@pytest.mark.parametrize("query", ["EIO=3&transport=polling", "EIO=3&transport=websocket", "transport=polling", ""])
def test_a_client_of_another_protocol_version_is_told_which_one_it_needs(app, query):
    answer = app.test_client().get(f"/socket.io/?{query}", headers={"X-Request-ID": "abc-1"})
    assert (answer.status_code, answer.json["request_id"]) == (400, "abc-1")
    assert "EIO=4" in answer.json["error"]
