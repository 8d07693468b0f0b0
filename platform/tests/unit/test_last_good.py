"""What stays in rotation while the registry cannot be believed."""

import pytest

from workshop import balancer
from workshop.balancer import LastGood
from workshop.registry import TTL, Backend, Snapshot, Upstream

A, B = Upstream("127.0.0.1", 1), Upstream("127.0.0.1", 2)


@pytest.fixture
def clock(monkeypatch):
    class Clock:
        now = 1000.0

    monkeypatch.setattr(balancer.time, "monotonic", lambda: Clock.now)
    return Clock


@pytest.fixture
def last_good(tmp_path, clock):
    """With a and b in rotation, and the registry believed."""
    made = LastGood(tmp_path / "last_good.json")
    made.complete(snapshot(1, a=A, b=B))
    clock.now += TTL
    return made


def snapshot(index: int, **upstreams) -> Snapshot:
    return Snapshot({"tiny": Backend("tiny", ["/tiny"], upstreams=upstreams)}, {}, index)


def rotation(services) -> set[str]:
    return {name for service in services.values() for name in service.upstreams}


def test_an_instance_that_leaves_the_registry_leaves_rotation_at_once(last_good):
    assert rotation(last_good.complete(snapshot(2, a=A))) == {"a"}


def test_after_the_registry_was_away_an_absent_instance_stays_for_one_ttl(last_good, clock):
    last_good.registry_was_away = True
    assert rotation(last_good.complete(snapshot(2, a=A))) == {"a", "b"}
    clock.now += TTL - 1
    assert rotation(last_good.complete(snapshot(2, a=A))) == {"a", "b"}
    clock.now += 1
    assert rotation(last_good.complete(snapshot(2, a=A))) == {"a"}


def test_after_the_registry_was_away_an_instance_that_was_seen_again_is_believed_when_it_leaves(last_good):
    last_good.registry_was_away = True
    last_good.complete(snapshot(2, a=A, b=B))

    assert rotation(last_good.complete(snapshot(3, a=A))) == {"a"}


def test_a_wiped_registry_is_noticed_by_its_index(last_good):
    last_good.complete(snapshot(50, a=A, b=B))

    assert rotation(last_good.complete(Snapshot({}, {}, 1))) == {"a", "b"}


def test_a_service_that_is_half_registered_again_stays_as_it_was(last_good):
    last_good.registry_was_away = True
    half = Snapshot({"tiny": Backend("tiny")}, {}, 2)  # its instances, and its routes, are still being written

    assert last_good.complete(half)["tiny"].locations == ["/tiny"]
    assert rotation(last_good.complete(half)) == {"a", "b"}


def test_a_manager_that_starts_again_remembers(last_good, clock):
    again = LastGood(last_good.file)

    assert rotation(again.complete(Snapshot({}, {}, 1))) == {"a", "b"}
    clock.now += TTL
    assert again.complete(Snapshot({}, {}, 1)) == {}


def test_routes_that_a_wiped_registry_has_forgotten_are_kept_until_it_has_them_again(last_good):
    tiny = snapshot(50, a=A, b=B).services
    last_good.complete(Snapshot(tiny, {"/tiny": "tiny", "/old": "tiny"}, 50))
    last_good.complete(Snapshot(tiny, {"/tiny": "tiny"}, 51))  # one was removed
    assert last_good.lost_routes == {}

    last_good.complete(Snapshot({}, {}, 1))
    assert (last_good.routes, last_good.lost_routes) == ({"/tiny": "tiny"}, {"/tiny": "tiny"})
    last_good.complete(Snapshot({}, {"/tiny": "tiny"}, 2))
    assert (last_good.routes, last_good.lost_routes) == ({"/tiny": "tiny"}, {})
