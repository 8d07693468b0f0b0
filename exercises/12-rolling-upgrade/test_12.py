"""Rolls of the learner's on the running messages service: to a version that is no good, under load, interrupted."""

from pathlib import Path

import pytest
from fleet import Fleet

from workshop.errors import WorkshopError
from workshop.paths import REPOSITORY
from workshop.verdict import Hop, Wrong, expect
from workshop.waiting import wait_until

SERVICE = "messages"
CODE = "parley/__init__.py"
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
