import types

import pytest

from parley import socket_server
from parley.socket_server import AFTER_TOKEN, BEFORE_TOKEN, EventPacket, Session, TokenBucket, receive_message, trust


@pytest.fixture
def clock(monkeypatch):
    """The clock of the buckets, which the test sets."""
    clock = types.SimpleNamespace(now=0.0)
    monkeypatch.setattr(socket_server, "time", types.SimpleNamespace(monotonic=lambda: clock.now))
    return clock


def taken(bucket):
    return sum(bucket.take() for _ in range(1000))


def test_a_bucket_gives_its_burst_and_then_its_rate(clock):
    bucket = TokenBucket(burst=10, rate=2)
    assert taken(bucket) == 10
    clock.now += 3
    assert taken(bucket) == 6
    clock.now += 3600
    assert taken(bucket) == 10


def test_a_connection_may_send_more_once_it_has_shown_a_token_and_showing_it_again_fills_no_bucket(app, clock):
    server = socket_server.socketio.server
    session = server.eio.sockets["engine-1"] = Session(server.eio, "engine-1")
    sid = server.manager.pre_connect("engine-1", "/")
    assert taken(session.bucket) == BEFORE_TOKEN[0]
    trust(sid)
    assert taken(session.bucket) == AFTER_TOKEN[0]
    trust(sid)
    assert taken(session.bucket) == 0


@pytest.mark.parametrize(
    "packet", ['2{"a":1}', "2[]", "2[1]", "2[[]]", "2null", '2["connect"]', '54-["x"]', "2" + "[" * 9999]
)
def test_a_malformed_packet_ends_its_session_and_raises_nothing(app, packet):
    server = socket_server.socketio.server
    session = server.eio.sockets["engine-1"] = Session(server.eio, "engine-1")
    receive_message(server, "engine-1", packet)
    assert session.closed
    receive_message(server, "engine-1", packet)  # that was under way at the same time
    assert "engine-1" not in server.eio.sockets


def test_an_event_may_have_attachments():
    assert EventPacket(encoded_packet='51-["ping_user",{"_placeholder":true,"num":0}]').attachment_count == 1
