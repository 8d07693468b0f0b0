"""The way between the stages, as it is declared: what is there after each step, and who answers what."""

import dataclasses
from pathlib import Path

import pytest

from workshop import builds, evolution, stage
from workshop.errors import WorkshopError
from workshop.stage import Service
from workshop.state import Up

WAYS = [evolution.between(name) for name in list(stage.stages())[:-1]]
each_way = pytest.mark.parametrize("way", WAYS, ids=lambda way: f"{way.before.name}-{way.after.name}")
UP = Up("stage0", "process", "sqlite", {}, {}, {"monolith": 1, "worker": 1, "beat": 1}, {})


@each_way
def test_a_way_leads_from_one_stage_to_the_next(way):
    for done, wanted in ((0, way.before), (len(way.steps), way.after)):
        reached = way.at(done)
        assert reached.workers == wanted.workers
        assert reached.services.keys() == wanted.services.keys()
        for name, service in wanted.services.items():  # from another folder, perhaps, but the same code
            assert builds.digest(reached.services[name]) == builds.digest(service), name
            assert reached.services[name].routes == service.routes


@each_way
def test_in_the_end_each_service_answers_what_it_declares(way):
    declared = {prefix: service.name for service in way.after.services.values() for prefix in service.routes}

    reached = way.routes_at(len(way.steps))
    assert {prefix: name for prefixes, name in reached.items() for prefix in prefixes.split()} == declared


@each_way
def test_whoever_answers_a_path_is_there_before_and_after_each_step(way):
    for number in range(len(way.steps) + 1):
        owners = set(way.routes_at(number).values())
        assert owners <= way.at(number).services.keys()
    for number, step in enumerate(way.steps):
        for owner in way.routes_at(number).values():
            assert owner not in step.start


@each_way
def test_every_step_says_why(way):
    for step in way.steps:
        assert step.title
        assert step.why.endswith(".")


@each_way
def test_what_moves_at_once_is_one_route(way):
    for done in range(len(way.steps) + 1):
        prefixes = " ".join(way.routes_at(done)).split()
        assert len(prefixes) == len(set(prefixes))
    for step in way.steps:
        assert not step.rows or len(step.routes) == 1


def test_the_last_stage_is_the_end_of_the_way():
    with pytest.raises(WorkshopError, match="stage2 is the end of the way"):
        evolution.between("stage2")


def test_on_the_way_there_is_what_the_steps_have_added():
    assert set(evolution.current(UP).services) == {"monolith"}
    assert set(evolution.current(dataclasses.replace(UP, steps=1)).services) == {"monolith", "ui", "tokens"}


def test_what_stage_toml_has_gained_since_the_stage_was_brought_up_is_named():
    up = dataclasses.replace(UP, counts={"monolith": 1})

    with pytest.raises(WorkshopError, match=r"before its stage\.toml had worker, beat: `./workshop down`, then"):
        evolution.current(up)


def test_of_a_step_that_has_begun_both_ends_are_there():
    retiring = dataclasses.replace(UP, stage="stage1", steps=3, has_begun=True)

    assert {"monolith", "users", "messages"} <= evolution.current(retiring).services.keys()
    assert {"worker", "beat"} <= evolution.current(retiring).workers.keys()


def test_how_far_it_is_can_be_said():
    assert evolution.progress(dataclasses.replace(UP, steps=2)) == "2 of 5 steps to stage1"
    begun = dataclasses.replace(UP, has_begun=True)
    assert evolution.progress(begun) == "0 of 5 steps to stage1, and a further one has begun"


def test_an_optional_service_comes_along_if_it_was_asked_for():
    up = dataclasses.replace(UP, steps=1, counts={"monolith": 1, "stats": 1})

    assert "stats" in evolution.current(up).services
    assert evolution.of(up).routes_at(1)["/api/stats"] == "stats"


# Services that have joined


def with_joined(name: str, route: str) -> Up:
    service = Service(name, Path("/nowhere"), ["program"], [route], shared={"common": Path("/common")})
    return dataclasses.replace(UP, joined={name: service.as_json()}, counts=UP.counts | {name: 1})


def test_a_service_that_has_joined_is_part_of_what_is_up():
    up = with_joined("words", "/api/words")
    assert evolution.current(up).services["words"] == Service.from_json(up.joined["words"])
    assert evolution.of(up).before.services.keys() == {"monolith"}  # the way from stage to stage is without it
    evolution.ensure_joined_can_stay(up, evolution.of(up))


@pytest.mark.parametrize(("name", "route"), [("tokens", "/mine"), ("words", "/api/tokens"), ("worker", "/mine")])
def test_a_service_that_has_joined_under_a_name_or_a_route_of_the_next_stage_has_to_leave_first(name, route):
    up = with_joined(name, route)
    with pytest.raises(WorkshopError, match=f"Run `./workshop leave {name}` first"):
        evolution.ensure_joined_can_stay(up, evolution.of(up))
