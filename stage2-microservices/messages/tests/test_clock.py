"""A clock that is set back by an hour, in the process under test."""

import datetime

import pytest
import time_machine

from parley import links, tasks

BEFORE = datetime.datetime(2030, 1, 1, 12, tzinfo=datetime.UTC)
HOUR = 3600


@pytest.fixture(autouse=True)
def clock():
    """The clock at noon; `clock.shift(-HOUR)` sets it back."""
    with time_machine.travel(BEFORE) as clock:
        yield clock


@pytest.fixture(autouse=True)
def queued(queued):
    """Nothing is fetched."""


@pytest.fixture
def headers(auth, ann, clock):
    """Ann signs in before the clock is set back."""
    return auth.headers(ann)


def post(client, headers, source, **more):
    return client.post("/api/messages", json={"source": source}, headers={**headers, **more})


def test_messages_go_on_in_their_order_and_are_caught_up_on(client, headers, clock):
    first = post(client, headers, "first").json
    clock.shift(-HOUR)
    second = post(client, headers, "second").json
    assert client.put(first["_links"]["self"], json={"source": "edited"}, headers=headers).status_code == 204

    caught_up = client.get(f"/api/messages?updated_since={first['updated_at']}").json["messages"]
    assert [message["source"] for message in caught_up] == ["edited", "second"]
    assert second["created_at"] >= first["created_at"]
    pages, path = [], "/api/messages?limit=1"
    while path:
        page = client.get(path).json
        pages += [message["source"] for message in page["messages"]]
        path = page["_links"].get("next")
    assert pages == ["second", "edited"]


def test_an_idempotency_key_is_still_known(app, client, headers, clock):
    key = {"Idempotency-Key": "k1"}
    first = post(client, headers, "once", **key)
    clock.shift(-HOUR)
    repeat = post(client, headers, "once", **key)
    assert (first.status_code, repeat.status_code) == (201, 200)
    assert repeat.json["id"] == first.json["id"]
    with app.app_context():
        tasks.sweep_expired()
    assert post(client, headers, "once", **key).status_code == 200


@pytest.mark.parametrize("begun", [False, True])
def test_links_do_not_wait_an_hour_for_a_worker(app, client, headers, clock, begun):
    with app.app_context():
        message = post(client, headers, "https://example.invalid/").json["id"]
        if begun:
            assert links.claim(message)
        clock.shift(-HOUR)
        assert links.find_due() == [message]
        assert links.claim(message)
        assert links.find_due() == []
        assert not links.claim(message)
        clock.shift(links.LEASE)
        assert links.find_due() == [message]


def test_a_preview_that_comes_after_it_is_newer_than_the_message(app, client, headers, clock, pushed):
    with app.app_context():
        message = post(client, headers, "https://example.invalid/").json
        clock.shift(-HOUR)
        lease = links.claim(message["id"])
        assert links.finish(message["id"], lease, message["source"], "<p>with preview</p>")
        assert pushed[-1][1]["html"] == "<p>with preview</p>"
        assert pushed[-1][1]["updated_at"] >= message["updated_at"]
