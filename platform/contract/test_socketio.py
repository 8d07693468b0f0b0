"""Socket.IO: pushes across instances, messages in, presence."""

import secrets
import subprocess
import time
from pathlib import Path

import pytest

PING_LASTS = 60  # seconds
GRACE = 5  # seconds from the end of a user's last connection until the user is offline
SWEEP = 3  # seconds more until that has been noticed and pushed


IN_NODE = """
import { io } from "socket.io-client";
const [url, options] = [process.argv[1], JSON.parse(process.argv[2])];
for (let turn = 0; turn < 5; turn++) {
  const socket = io(url, { ...options, reconnection: false, forceNew: true });
  await new Promise((resolve, reject) => socket.on("connect", resolve).on("connect_error", reject));
  socket.close();
}
"""


@pytest.mark.parametrize("options", ['{"transports": ["websocket"]}', '{"withCredentials": true}'])
def test_a_client_in_node_connects_to_any_number_of_instances_in_the_ways_that_the_document_names(url, options):
    command = ["node", "--input-type=module", "--eval", IN_NODE, url, options]
    repository = Path(__file__).parents[2]  # where node_modules is
    subprocess.run(command, cwd=repository, check=True, timeout=30, capture_output=True)


@pytest.mark.parametrize("transport", ["polling", "websocket"])
def test_a_client_of_another_protocol_version_is_told_which_one_it_needs(anonymous, transport):
    answer = anonymous.get(f"/socket.io/?EIO=3&transport={transport}")
    assert answer.status_code == 400
    assert "EIO=4" in answer.json()["error"]


@pytest.mark.parametrize("transports", [["polling"], ["websocket"], ["polling", "websocket"]])
def test_pushes_arrive_over_every_transport(ann, listen, until, transports):
    listener = listen(transports=transports)
    message = ann.say("hello")
    assert until(lambda: listener.heard("Message", message["id"]), 2, "the push") == [message]


def test_a_message_is_pushed_to_the_clients_of_all_instances(ann, everywhere, until):
    listeners = everywhere()
    message = ann.say("hello, all")
    for listener in listeners:
        assert until(lambda x=listener: x.heard("Message", message["id"]), 2, "the push") == [message]


def test_a_message_posted_over_the_socket_is_acknowledged_and_pushed_to_all(ann, everywhere, until):
    listeners = everywhere()
    acknowledged = listeners[0].call("post_message", {"source": "*hi*"}, ann.token)
    message = ann.read(acknowledged["id"])
    assert set(acknowledged) == {"id"}
    assert message["user_id"] == ann.id
    for listener in listeners:
        assert until(lambda x=listener: x.heard("Message", message["id"]), 2, "the push") == [message]


def test_an_edited_message_is_pushed(ann, listen, until):
    message = ann.say("first")
    listener = listen()
    ann.put(f"/api/messages/{message['id']}", json={"source": "second"})
    (pushed,) = until(lambda: listener.heard("Message", message["id"]), 2, "the push")
    assert pushed == ann.read(message["id"])


def test_a_repeated_message_is_pushed_once(ann, listen, settle):
    listener, key = listen(), secrets.token_hex()
    first = listener.call("post_message", {"source": "once"}, ann.token, key)
    assert listener.call("post_message", {"source": "once"}, ann.token, key) == first
    repeat = ann.post("/api/messages", json={"source": "once"}, headers={"Idempotency-Key": key})
    assert repeat.status_code == 200
    assert repeat.json()["id"] == first["id"]
    assert listener.call("post_message", {"source": "other"}, ann.token, key)["status"] == 422

    settle(listener, ann)
    assert len(listener.heard("Message", first["id"])) == 1


@pytest.mark.parametrize("body", [None, {}, {"source": " "}, {"source": "x" * 4001}, {"source": 1}, "hello", []])
def test_a_bad_message_is_acknowledged_with_an_error(ann, listen, body):
    acknowledged = listen().call("post_message", body, ann.token)
    assert acknowledged["status"] == 400
    assert acknowledged["error"].endswith(".")


ODD = [float("nan"), float("inf"), -float("inf"), b"bytes", [[[[]]]], {"a": b"x"}, 10**4000, True, "\ud800"]


@pytest.mark.parametrize("odd", ODD, ids=lambda odd: f"{odd!r:.20}")
def test_what_is_no_text_is_refused_and_nobody_else_notices(ann, bob, listen, odd):
    """Socket.IO carries what JSON can't: three times of it opened the circuit to messages for everyone."""
    sender, other = listen(), listen()
    for _ in range(4):
        for arguments in (({"source": odd}, ann.token), ({"source": "hello"}, ann.token, odd)):
            answer = sender.call("post_message", *arguments)
            assert answer["status"] == 400
            assert answer["error"].endswith(".")
        assert sender.call("post_message", {"source": "hello"}, odd)["status"] == 401
    assert other.call("post_message", {"source": "hello"}, bob.token)["id"]


@pytest.mark.parametrize("change", ["{}\n", " {}", "{}\r\nX: y", "{}\u0100"])
def test_a_good_token_with_something_around_it_is_refused(ann, listen, change):
    token = change.format(ann.token)
    assert listen().call("post_message", {"source": "hello"}, token)["status"] == 401
    assert listen().call("ping_user", token)["status"] == 401


@pytest.mark.parametrize("token", ["", "no token", None, 5])
def test_a_refused_token_is_told_to_its_client_only(ann, listen, settle, until, token):
    listener, other = listen(), listen()
    assert listener.call("ping_user", token)["status"] == 401
    assert listener.call("post_message", {"source": "hello"}, token)["status"] == 401
    until(lambda: listener.refusals == 2, 2, "expired_token, twice")

    settle(other, ann)
    assert other.refusals == 0


@pytest.mark.parametrize("idempotency_key", ["", "k" * 129, "käse", 5])
def test_a_bad_idempotency_key_is_acknowledged_with_an_error(ann, listen, idempotency_key):
    assert listen().call("post_message", {"source": "hello"}, ann.token, idempotency_key)["status"] == 400


def test_a_revoked_token_is_refused_on_the_open_connections_of_all_instances(ann, everywhere, differences, until):
    listeners = everywhere()
    for listener in listeners:
        assert listener.call("ping_user", ann.token) == {"id": ann.id}
    ann.delete("/api/tokens")

    def refused() -> bool:
        return all(listener.call("ping_user", ann.token).get("status") == 401 for listener in listeners)

    until(refused, differences["revoked_within"], "every instance refuses the token")
    for listener in listeners:
        until(lambda x=listener: x.refusals, 2, "expired_token")


def test_users_are_pushed_when_they_register_and_change(make_client, listen, until, random_nickname):
    listener = listen()
    ann = make_client().register()
    (pushed,) = until(lambda: listener.heard("User", ann.id), 2, "the new user")
    assert pushed["nickname"] == ann.nickname

    ann.put(f"/api/users/{ann.id}", json={"nickname": random_nickname()})
    until(lambda: len(listener.heard("User", ann.id)) == 2, 2, "the changed user")
    assert listener.heard("User", ann.id)[-1]["nickname"] == ann.user(ann.id)["nickname"]


def test_the_first_ping_makes_a_user_online_for_all_and_the_next_ones_are_not_pushed(ann, everywhere, settle):
    listeners = everywhere()
    for listener in listeners:
        assert listener.call("ping_user", ann.token) == {"id": ann.id}
    assert ann.user(ann.id)["online"] is True
    for listener in listeners:
        settle(listener, ann)
        assert [user["online"] for user in listener.heard("User", ann.id)] == [True]


def test_leaving_makes_a_user_offline_at_once_until_the_next_ping(ann, listen, until):
    listener = listen()
    listener.call("ping_user", ann.token)
    assert ann.delete("/api/users/me").status_code == 204
    until(lambda: len(listener.heard("User", ann.id)) == 2, 2, "gone")
    listener.call("ping_user", ann.token)
    until(lambda: len(listener.heard("User", ann.id)) == 3, 2, "back")

    assert [user["online"] for user in listener.heard("User", ann.id)] == [True, False, True]


def test_a_user_is_offline_soon_after_the_last_connection_ended_and_not_before(make_client, listen, until):
    """Three people: one goes, one closes the first of two tabs at two instances, one reloads the page."""
    gone, two_tabs, reload = (make_client().register() for _ in range(3))
    observer = listen()

    def open_tab(user, not_at=None):
        tab = until(lambda: (tab := listen()).instance != not_at and tab, 10, "a connection to another instance")
        tab.call("ping_user", user.token)
        return tab

    first_tabs = [open_tab(user) for user in (two_tabs, reload, gone)]
    open_tab(two_tabs, not_at=first_tabs[0].instance)
    for tab in first_tabs:
        tab.close()
    closed = time.monotonic()
    open_tab(reload)

    until(lambda: len(observer.heard("User", gone.id)) == 2, GRACE + SWEEP, "came, went")
    assert time.monotonic() - closed > GRACE - 0.5
    assert [user["online"] for user in observer.heard("User", gone.id)] == [True, False]
    # Their tabs were closed earlier, so they would have gone earlier as well.
    for user in (two_tabs, reload):
        assert [u["online"] for u in observer.heard("User", user.id)] == [True]
        assert gone.user(user.id)["online"] is True


def test_a_kill_of_an_instance_makes_nobody_offline_whose_page_reconnects(stage, ann, listen, settle, until):
    tab = listen()
    observer = until(lambda: (other := listen()).instance != tab.instance and other, 10, "a connection elsewhere")
    tab.call("ping_user", ann.token)
    stage.run("kill", tab.instance)
    until(lambda: not tab.client.connected, 5, "the connection is gone")
    again = listen()
    assert again.call("ping_user", ann.token) == {"id": ann.id}

    settle(observer, ann)
    assert [user["online"] for user in observer.heard("User", ann.id)] == [True]
    message = ann.say("still here")
    assert until(lambda: again.heard("Message", message["id"]), 2, "the push") == [message]


def test_who_vanished_together_with_the_instance_goes_offline_when_the_last_ping_does_not_count_any_more(
    vanished, anonymous, until
):
    pinged_at, user_id = vanished
    rest = max(0, pinged_at + PING_LASTS + GRACE + SWEEP - time.time())
    until(lambda: not anonymous.user(user_id)["online"], rest, "nobody has told that they are gone, but they are")
    went_after = anonymous.user(user_id)["updated_at"] - pinged_at
    assert PING_LASTS + GRACE - 1 < went_after < PING_LASTS + GRACE + SWEEP
