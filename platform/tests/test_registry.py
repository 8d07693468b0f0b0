"""The registry, against a real etcd."""

import socket
import time

import pytest

from workshop import registry
from workshop.registry import Backend, NotRegistered, Registry, RegistryUnavailable, Upstream

TINY = Backend("tiny", ["/tiny"], upstreams={"tiny_v1_a": Upstream("127.0.0.1", 21001)})


def test_a_registered_instance_is_in_the_snapshot(service_registry):
    service_registry.register(TINY, "tiny_v1_a")

    assert service_registry.snapshot().services == {"tiny": TINY}
    assert service_registry.snapshot().table() == {"/tiny": "tiny"}


def test_a_deregistered_instance_is_gone_and_its_service_stays(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.deregister("tiny", "tiny_v1_a")
    service_registry.deregister("tiny", "tiny_v1_a")  # no harm in saying it twice

    assert service_registry.snapshot().services["tiny"].upstreams == {}
    assert service_registry.snapshot().table() == {"/tiny": "tiny"}


def test_an_instance_that_is_not_refreshed_expires(service_registry, until, monkeypatch):
    monkeypatch.setattr(registry, "TTL", 1)
    service_registry.register(TINY, "tiny_v1_a")
    until(lambda: not service_registry.snapshot().services["tiny"].upstreams, 5, "the key has expired")

    with pytest.raises(NotRegistered):
        service_registry.refresh("tiny", "tiny_v1_a")


def test_a_refresh_does_not_wake_those_who_watch(service_registry, monkeypatch):
    monkeypatch.setattr(registry, "WATCH_TIMEOUT", 1)
    service_registry.register(TINY, "tiny_v1_a")
    index = service_registry.snapshot().index
    service_registry.refresh("tiny", "tiny_v1_a")

    started = time.monotonic()
    service_registry.wait(index)
    assert time.monotonic() - started > 0.9


def test_a_write_wakes_those_who_watch(service_registry):
    index = service_registry.snapshot().index
    service_registry.register(TINY, "tiny_v1_a")

    started = time.monotonic()
    service_registry.wait(index)
    assert time.monotonic() - started < 1


def test_a_route_wins_over_a_location_and_over_nothing_that_does_not_exist(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.announce(Backend("other", ["/other"]))
    service_registry.set_route("/tiny", "other")
    service_registry.set_route("/other", "nobody")

    assert service_registry.snapshot().routes == {"/tiny": "other", "/other": "nobody"}
    assert service_registry.snapshot().table() == {"/tiny": "other", "/other": "other"}
    service_registry.remove_route("/tiny")
    assert service_registry.snapshot().table() == {"/tiny": "tiny", "/other": "other"}


def test_the_prefixes_of_a_route_move_at_once(service_registry):
    service_registry.announce(Backend("other", []))
    index = service_registry.snapshot().index
    service_registry.set_route("/tiny /internal/tiny", "other")

    assert service_registry.snapshot().index == index + 1
    assert service_registry.snapshot().table() == {"/tiny": "other", "/internal/tiny": "other"}


def test_a_service_that_is_forgotten_is_known_no_more(service_registry):
    service_registry.register(TINY, "tiny_v1_a")
    service_registry.forget("tiny")
    service_registry.forget("tiny")  # no harm in saying it twice

    assert service_registry.snapshot().services == {}


def test_the_longest_prefix_of_whole_segments_owns_a_path():
    table = {"/": "ui", "/api": "old", "/api/users": "users"}
    owners = {path: registry.owner(table, path) for path in ("/", "/api/users/1", "/api/usersx", "/apix")}

    assert owners == {"/": "ui", "/api/users/1": "users", "/api/usersx": "old", "/apix": "ui"}
    assert registry.owner({"/api": "old"}, "/") is None


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:21002\n    server evil 10.0.0.1:80"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:21002 weight 1 check disabled"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:99999"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.256:80"),
        ("/services/tiny/upstream/tiny_v1_b", "127.0.0.1:21002 weight 1000"),
        ("/services/tiny/upstream/two words", "127.0.0.1:21002"),
        ("/services/tiny/backend/balance", "roundrobin\n    option forwardfor"),
        ("/services/tiny/backend/sticky", "/x } { always_true"),
        ("/services/tiny/location", '/tiny" /evil'),
        ("/services/ti ny/location", "/evil"),
        ("/services/tiny/unknown", "value"),
        ("/elsewhere", "value"),
        ("/services/no_route/location", "/evil"),
        ("/services/public/location", "/evil"),
        ("/services/tiny/upstream/FRONTEND", "127.0.0.1:21002"),
    ],
)
def test_a_hostile_value_does_not_get_in(service_registry, key, value):
    service_registry.etcd.write(key, value)
    service_registry.register(TINY, "tiny_v1_a")

    snapshot = service_registry.snapshot()
    assert snapshot.services == {"tiny": TINY}
    assert snapshot.routes == {}


def test_a_confirmation_counts_for_one_address_only(service_registry):
    service_registry.confirm_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")

    assert service_registry.is_drained("tiny", "tiny_v1_a", "127.0.0.1:21001")
    assert not service_registry.is_drained("tiny", "tiny_v1_a", "127.0.0.1:21002")


def test_a_registry_that_is_away_is_said_to_be():
    with pytest.raises(RegistryUnavailable):
        Registry("127.0.0.1:1").snapshot()


def test_a_registry_that_says_nothing_is_not_waited_for_long():
    with socket.create_server(("127.0.0.1", 0)) as silent:
        started = time.monotonic()
        with pytest.raises(RegistryUnavailable):
            Registry(f"127.0.0.1:{silent.getsockname()[1]}").snapshot()
    assert time.monotonic() - started < registry.TIMEOUT + 1
