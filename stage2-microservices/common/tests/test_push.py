import threading
import time
from types import SimpleNamespace

import pytest
from redis.exceptions import RedisError

from common.push import CHANNEL, MessageQueue, push_model
from common.redis_client import connect


@pytest.fixture
def received(redis_server):
    """What another process gets from the message queue."""
    queue, messages = MessageQueue(redis_server.url), []

    def listen():
        for message in queue._listen():
            if message == "the end":
                return
            messages.append(message)

    listener = threading.Thread(target=listen)
    listener.start()
    yield messages
    publish_until(redis_server, "the end", lambda: not listener.is_alive())
    queue.redis.close()


def publish_until(redis_server, message, is_done):
    """Publish a message now and then until it has arrived: nobody knows when a listener listens."""
    deadline = time.monotonic() + 5
    with connect(redis_server.url) as client:
        while not is_done():
            assert time.monotonic() < deadline
            try:
                client.publish(CHANNEL, message)
            except RedisError:
                pass  # it has just been started
            time.sleep(0.02)


def test_pushes_resume_after_a_restart_of_redis(redis_server, received):
    publish_until(redis_server, "before", lambda: "before" in received)
    redis_server.stop()
    redis_server.start()
    publish_until(redis_server, "after", lambda: "after" in received)


def test_redis_that_goes_away_for_long_is_logged_when_it_goes_and_when_it_is_back(
    redis_server, received, caplog, monkeypatch
):
    waits = []
    monkeypatch.setattr("common.push.time", SimpleNamespace(sleep=lambda _: (waits.append(1), time.sleep(0.02))))
    publish_until(redis_server, "before", lambda: "before" in received)
    redis_server.stop()
    deadline = time.monotonic() + 5
    while len(waits) < 10:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    redis_server.start()
    publish_until(redis_server, "after", lambda: "after" in received)
    logged = [record.getMessage() for record in caplog.records if "message queue" in record.getMessage()]
    assert [line.split(".")[0] for line in logged] == ["The message queue is away", "The message queue is back"]


def test_a_push_without_redis_is_lost_quickly_and_logged(caplog):
    queue = MessageQueue("redis://127.0.0.1:1/0")
    started = time.monotonic()
    queue._publish({"method": "emit"})
    assert time.monotonic() - started < 1
    assert "Not pushed" in caplog.text


def test_a_model_is_pushed_with_its_class(context, pushed):
    class Cat:
        def to_dict(self):
            return {"id": 1}

    push_model(Cat())
    assert pushed == [("Cat", {"id": 1})]
