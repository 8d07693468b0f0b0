"""An exercise for the tests of the harness: a function, and a service that joins."""

import sys

import pytest

from workshop.verdict import Hop, expect


@pytest.mark.timeout(3)
def test_it_adds(learner):
    two = learner.load("adding.py").add_one(1)
    expect(two == 2, "1 and 1 are 2.", hop=Hop.CODE, seen=str(two), expected="2", show="cat work/99-adding/adding.py")


def test_it_serves(learner, stage):
    assert len(stage.instances("monolith")) == 2
    with stage.joined("adding", [sys.executable, "adding.py"], learner.folder, ["/api/adding"]):
        answer = stage.user().get("/api/adding")
    expect(answer.text == "two", "It does not say two.", hop=Hop.SERVICE, seen=answer.text, expected="two", show="curl")
