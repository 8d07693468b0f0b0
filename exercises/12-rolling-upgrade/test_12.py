"""Rolls of the learner's on the running messages service: to a version that is no good, under load, interrupted."""

import os
import subprocess
import time
from dataclasses import dataclass
from pathlib import Path

import pytest
from fleet import Fleet

from workshop.errors import WorkshopError
from workshop.paths import REPOSITORY
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

SERVICE = "messages"
CODE = "parley/__init__.py"
SLOW_START = 3  # looks at a simulated instance until it is UP, for a roll that looks instead of waiting
SHOW = "cat work/12-rolling-upgrade/roll.py"
SOON = 5  # seconds: longer than any request takes, for which a drain waits
ANOTHER = "\n# Another version, made by the check of exercise 12.\n"
CRASHES = "\nraise RuntimeError('this version crashes at its start')\n"


class GuardedFleet(Fleet):
    """A fleet that lets nothing happen which somebody would notice."""

    def begin(self, version: str) -> None:
        """Expect a roll to this version."""
        self.version, self.failed = version, set()
        self.most = len(self.instances()) + 1

    def start(self, version: str) -> str:
        ours = self.instances()
        expect(
            len(ours) < self.most,
            "It starts one more before the last one has taken an old one's place: a roll needs room for one, not for "
            "as many as there are.",
            **self.seen(f"one at a time, at most {self.most} instances"),
        )
        return super().start(version)

    def wait_until_served(self, instance: str) -> None:
        try:
            super().wait_until_served(instance)
        except WorkshopError:
            self.failed.add(instance)
            raise

    def stop(self, instance: str) -> None:
        serving = {i.id for i in self.instances() if i.state == "UP"}
        if instance in serving and len(serving) <= self.wanted:
            raise Wrong(self.too_early(instance), **self.seen(f"{self.wanted} in rotation besides the one that goes"))
        super().stop(instance)

    def too_early(self, instance: str) -> str:
        """Say why an instance may not be stopped now."""
        new = [i.id for i in self.instances() if i.version == self.version and i.state != "UP"]
        if failed := self.failed & set(new):
            return f"It goes on after {failed.pop()} did not come up, and stops {instance}, which serves."
        if new:
            return f"It stops {instance} although {new[0]}, which is to take its place, is not served yet."
        return f"It stops {instance} before another one has been started in its place."

    def seen(self, expected: str) -> dict:
        """Return what a verdict says of the moment: which instances there are."""
        ours = [f"{i.id} {i.state}" for i in self.instances()]
        return {
            "hop": Hop.BALANCER,
            "seen": ", ".join(ours),
            "expected": expected,
            "show": "./workshop status --watch      # in another terminal, during the roll",
        }


@pytest.fixture
def fleet(stage):
    made = GuardedFleet(SERVICE)
    made.before = made.up.versions[SERVICE]
    yield made
    if [(i.version, i.state) for i in made.instances()] != [(made.before, "UP")] * made.wanted:
        stage.run("upgrade", SERVICE, "--to", made.before)
        stage.run("scale", f"{SERVICE}={made.wanted}")


def build(stage, folder: Path, lines: str) -> str:
    """Build messages with these lines at the end of its application; return the version."""
    code = folder / "code.py"
    code.write_text((REPOSITORY / "stage2-microservices" / SERVICE / CODE).read_text() + lines)
    return stage.built(SERVICE, {CODE: code})


def roll(learner, fleet: GuardedFleet, version: str) -> None:
    fleet.begin(version)
    learner.load("roll.py").roll(fleet, version)


def expect_whole(fleet: GuardedFleet, version: str, sentence: str) -> None:
    def is_whole() -> bool:
        return sorted((i.version, i.state) for i in fleet.instances()) == [(version, "UP")] * fleet.wanted

    whole = wait_until(is_whole, SOON)  # the last one to leave may still be draining
    expect(whole, sentence, **fleet.seen(f"{fleet.wanted} × {version}, all UP"))


def test_leaves_alone_what_is_as_it_is_to_be(learner, fleet):
    before = [i.id for i in fleet.instances()]
    roll(learner, fleet, fleet.before)
    expect(
        [i.id for i in fleet.instances()] == before,
        f"All instances are {fleet.before} already, and it replaces some.",
        **fleet.seen("nothing is started, nothing is stopped"),
    )


@pytest.mark.timeout(45)
def test_a_version_that_does_not_come_up_ends_the_roll_and_is_removed(stage, learner, fleet, tmp_path):
    before = [i.id for i in fleet.instances()]
    sick = build(stage, tmp_path, CRASHES)
    try:
        roll(learner, fleet, sick)
    except WorkshopError:
        has_failed = True
    else:
        has_failed = False
    left = [i.id for i in fleet.instances() if i.version == sick]
    expect(
        not left,
        f"It leaves the sick one there: the supervisor starts {', '.join(left)} again and again.",
        **fleet.seen("it is removed"),
    )
    expect(
        [i.id for i in fleet.instances()] == before,
        "The new version did not come up, and those that served before are not all there.",
        **fleet.seen(", ".join(before)),
    )
    expect(
        has_failed,
        "The new version did not come up, and the roll ends as if all were well: nobody learns of it.",
        **fleet.seen("the WorkshopError of wait_until_served goes on to whoever called the roll"),
    )


@pytest.mark.timeout(90)
def test_rolls_under_load_and_back_again_after_an_interruption(stage, learner, fleet, tmp_path):
    good = build(stage, tmp_path, ANOTHER)
    with stage.load() as probe:
        roll(learner, fleet, good)
        expect_whole(fleet, good, f"After the roll, not all instances are {good}.")
        # As if a roll back had been interrupted after its first step: one of the old version is there already.
        Fleet.wait_until_served(fleet, Fleet.start(fleet, fleet.before))
        roll(learner, fleet, fleet.before)
        expect_whole(
            fleet,
            fleet.before,
            "After a roll that had been interrupted, there are not as many as wanted: it has to go by what it finds, "
            "not by what it does.",
        )
    failed = probe.ledger.failed() + probe.ledger.cut_off()
    expect(
        not failed,
        f"{len(failed)} of {len(probe.ledger.answers)} requests failed during the roll.",
        hop=Hop.SERVICE,
        seen="; ".join(f"{a.method} {a.failure} ({a.instance})" for a in failed[:3]),
        expected="no request fails",
        show="./workshop logs haproxy",
        log=stage.log("haproxy"),
    )


@dataclass
class SimulatedInstance:
    """What a roll knows of an instance."""

    id: str
    version: str
    state: str = "UP"
    looks: int = 0  # at it, while it is starting


class SimulatedFleet:
    """A fleet in memory: what a real one does only sometimes, it does each time."""

    def __init__(self, wanted: int, *instances: SimulatedInstance, fails: dict[int, BaseException] | None = None):
        """Begin with these instances. `fails` says which start (the first is 1) ends with which exception."""
        self.service, self.wanted, self.fails = SERVICE, wanted, fails or {}
        self.ours, self.before = list(instances), len(instances)
        self.starts, self.failed = 0, ""
        self.least = len(self.serving())  # in rotation, at any time

    def serving(self) -> list[str]:
        return [one.id for one in self.ours if one.state == "UP"]

    def instances(self) -> list[SimulatedInstance]:
        for one in self.ours:
            one.looks += 1
            if one.state == "STARTING" and self.starts not in self.fails and one.looks > SLOW_START:
                one.state = "UP"
        return list(self.ours)

    def start(self, version: str) -> str:
        self.starts += 1
        expect(
            not self.failed,
            f"It starts another instance after {self.failed} did not come up. A version that does not come up ends the "
            "roll: remove that instance, and let the exception go on.",
            **self.seen("no further start"),
        )
        expect(
            self.starts <= self.wanted,
            f"It does not go by fleet.wanted: it starts instance number {self.starts}.",
            **self.seen(f"{self.wanted} × {version}, all UP"),
        )
        self.ours.append(SimulatedInstance(f"{version}-{self.before + self.starts}", version, "STARTING"))
        return self.ours[-1].id

    def wait_until_served(self, instance: str) -> None:
        (one,) = (one for one in self.ours if one.id == instance)
        if self.starts in self.fails:
            self.failed = instance
            raise self.fails[self.starts]
        one.state = "UP"

    def stop(self, instance: str) -> None:
        serving = self.serving()
        if instance in serving and len(serving) <= self.least and not self.failed:  # afterwards the test itself says it
            if len(serving) < len(self.ours):
                sentence = (
                    f"It stops {instance}, which serves, to make room, and keeps an instance that does not serve. Stop "
                    "the instances first that are not UP."
                )
            else:
                sentence = f"It stops {instance} before another one serves in its place. Start the other one first."
            raise Wrong(sentence, **self.seen(f"{self.least} in rotation besides the one that goes"))
        self.ours = [one for one in self.ours if one.id != instance]

    def states(self) -> list[tuple[str, str]]:
        return sorted((one.version, one.state) for one in self.ours)

    def seen(self, expected: str) -> dict:
        """Return what a verdict says of the moment: which instances there are."""
        there = ", ".join(f"{one.id} {one.state}" for one in self.ours)
        return {"hop": Hop.CODE, "seen": there, "expected": expected, "show": SHOW}


@pytest.fixture
def simulated_roll(learner, monkeypatch):
    """Return a function that has the learner's code roll a simulated fleet to v2, and returns what it has raised."""

    def refuse(*_arguments, **_options):
        raise Wrong(
            "It runs a command of the workshop instead of the fleet's steps: the exercise is to write what that "
            "command does.",
            hop=Hop.CODE,
            seen="a command was started",
            expected="fleet.start, fleet.wait_until_served and fleet.stop",
            show=SHOW,
        )

    def roll(fleet: SimulatedFleet) -> BaseException | None:
        module = learner.load("roll.py")
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", refuse)
            patch.setattr(os, "system", refuse)
            patch.setattr(time, "sleep", lambda _seconds: None)
            try:
                module.roll(fleet, "v2")
            except (WorkshopError, KeyboardInterrupt) as error:
                return error
        return None

    return roll


def olds(count: int) -> list[SimulatedInstance]:
    return [SimulatedInstance(f"v1-{number}", "v1") for number in range(1, count + 1)]


def test_uses_the_fleet_and_starts_as_many_as_wanted(simulated_roll):
    fleet = SimulatedFleet(2, *olds(2))
    error = simulated_roll(fleet)
    expect(
        not error,
        "It gives up on an instance that takes longer to start: only fleet.wait_until_served knows how long that may "
        "take.",
        **fleet.seen("it waits with fleet.wait_until_served"),
    )
    expect(
        fleet.states() == [("v2", "UP")] * 2,
        "It does not go by fleet.wanted: of this service, two instances are wanted.",
        **fleet.seen("2 × v2, all UP"),
    )


def test_replaces_a_new_instance_that_is_not_up(simulated_roll):
    fleet = SimulatedFleet(3, SimulatedInstance("v2-1", "v2", "DOWN"), *olds(2))
    simulated_roll(fleet)
    expect(
        fleet.states() == [("v2", "UP")] * 3,
        "It counts an instance as done that is not UP: after the roll, one fewer serves than is wanted.",
        **fleet.seen("3 × v2, all UP"),
    )


def test_starts_what_is_missing(simulated_roll):
    fleet = SimulatedFleet(3, SimulatedInstance("v2-1", "v2"), *olds(1))
    simulated_roll(fleet)
    expect(
        fleet.states() == [("v2", "UP")] * 3,
        "It ends when no old instance is left, although fewer serve than are wanted. Go on until as many as "
        "fleet.wanted serve.",
        **fleet.seen("3 × v2, all UP"),
    )


def test_keeps_those_that_serve_when_another_one_does_not(simulated_roll):
    fleet = SimulatedFleet(3, *olds(3), SimulatedInstance("v2-4", "v2", "DOWN"))
    simulated_roll(fleet)
    expect(
        fleet.states() == [("v2", "UP")] * 3,
        "It leaves an instance that does not serve, or one of another version, after an interrupted roll.",
        **fleet.seen("3 × v2, all UP"),
    )


def test_an_interrupt_leaves_no_instance_that_does_not_serve(simulated_roll):
    fleet = SimulatedFleet(3, *olds(3), fails={1: KeyboardInterrupt()})
    error = simulated_roll(fleet)
    expect(
        fleet.states() == [("v1", "UP")] * 3,
        "Ctrl-C while a new instance starts leaves it there: clean up after any exception, also one that is no "
        "Exception.",
        **fleet.seen("3 × v1, all UP"),
    )
    expect(
        isinstance(error, KeyboardInterrupt),
        "Ctrl-C ends the roll, and `roll` returns as if all were well.",
        **fleet.seen("the KeyboardInterrupt goes on to the caller of `roll`"),
    )


def test_a_later_instance_that_does_not_come_up_is_the_only_one_removed(simulated_roll):
    fleet = SimulatedFleet(3, *olds(3), fails={2: WorkshopError("It ended at its start.")})
    simulated_roll(fleet)
    expect(
        fleet.states() == [("v1", "UP")] * 2 + [("v2", "UP")],
        "It also removes new instances that serve, because a later one did not come up: fewer are in rotation than "
        "before.",
        **fleet.seen("2 × v1 and 1 × v2, all UP"),
    )
