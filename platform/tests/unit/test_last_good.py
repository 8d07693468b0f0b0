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


def snapshot(index: int, *deregistered: str, **upstreams) -> Snapshot:
    tiny = Backend("tiny", ["/tiny"], upstreams=upstreams)
    return Snapshot({"tiny": tiny}, {}, index, {("tiny", name) for name in deregistered})


def rotation(services) -> set[str]:
    return {name for service in services.values() for name in service.upstreams}


def test_an_instance_whose_key_has_expired_leaves_rotation_at_once(last_good):
    assert rotation(last_good.complete(snapshot(2, a=A))) == {"a"}


def test_in_doubt_an_instance_whose_key_has_expired_stays_for_one_ttl(last_good, clock):
    last_good.doubt()
    assert rotation(last_good.complete(snapshot(2, a=A, b=B))) == {"a", "b"}  # the keys are there, and expire now
    assert rotation(last_good.complete(snapshot(3, a=A))) == {"a", "b"}
    assert rotation(last_good.complete(snapshot(4))) == {"a", "b"}
    clock.now += TTL - 1
    assert rotation(last_good.complete(snapshot(5, a=A))) == {"a", "b"}
    clock.now += 1
    assert rotation(last_good.complete(snapshot(5, a=A))) == {"a"}


def test_in_doubt_an_instance_that_deregisters_leaves_rotation_at_once(last_good):
    last_good.doubt()
    last_good.complete(snapshot(2, a=A, b=B))

    assert rotation(last_good.complete(snapshot(3, "b", a=A))) == {"a"}
    assert rotation(last_good.complete(snapshot(4, "a", "b"))) == set()


def test_in_doubt_an_instance_that_registers_again_gets_its_new_address(last_good):
    last_good.doubt()
    last_good.complete(snapshot(2))

    assert last_good.complete(snapshot(3, b=A))["tiny"].upstreams == {"a": A, "b": A}


def test_in_doubt_a_service_that_is_forgotten_with_its_instances_leaves_at_once(last_good):
    last_good.doubt()

    assert last_good.complete(Snapshot({}, {}, 2, {("tiny", "a"), ("tiny", "b")})) == {}


class Frozen(Exception):
    """Ends the endless loop of the watcher."""


@pytest.mark.parametrize(
    ("monotonic", "wall", "is_in_doubt"),
    [(2, 2, False), (12, 12, True), (60, 60, True), (0.1, 60, True), (0.1, -3600, False)],
    ids=["at rest", "etcd frozen", "the stage frozen", "the machine suspended", "the clock set back"],
)
def test_the_manager_doubts_after_a_silence_by_one_of_the_clocks(
    tmp_path, clock, monkeypatch, monotonic, wall, is_in_doubt
):
    monkeypatch.setattr(balancer.time, "time", lambda: clock.wall)
    monkeypatch.setattr(balancer.paths, "INSTANCES", tmp_path / "instances")
    clock.wall, waits = 1e9, []

    class Registry:
        def snapshot(self, ours) -> Snapshot:
            return snapshot(1, a=A)

        def wait(self, index: int) -> None:
            if len(waits) == 2:
                raise Frozen
            # The first answer begins a doubt in any case: let it end, by steps at rest.
            waits.append(index)
            clock.now, clock.wall = (clock.now + monotonic, clock.wall + wall) if len(waits) == 2 else steps()

    def steps() -> tuple[float, float]:
        manager.last_good.doubt_ends = 0.0
        return clock.now + 2, clock.wall + 2

    (tmp_path / "haproxy.cfg").touch()
    manager = balancer.Balancer(Registry(), None, {}, tmp_path)
    with pytest.raises(Frozen):
        manager.watch()

    assert (manager.last_good.doubt_ends > clock.now) is is_in_doubt


def test_a_wiped_registry_is_noticed_by_its_index(last_good):
    last_good.complete(snapshot(50, a=A, b=B))

    assert rotation(last_good.complete(Snapshot({}, {}, 1))) == {"a", "b"}


def test_a_service_that_is_half_registered_again_stays_as_it_was(last_good):
    last_good.doubt()
    half = Snapshot({"tiny": Backend("tiny")}, {}, 2)  # its instances, and its routes, are still being written

    assert last_good.complete(half)["tiny"].locations == ["/tiny"]
    assert rotation(last_good.complete(half)) == {"a", "b"}


def test_a_manager_that_starts_again_remembers(last_good, clock):
    again = LastGood(last_good.file)
    again.doubt()  # at its first look at the registry

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
