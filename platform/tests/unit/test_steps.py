"""What the tests of the exercises' READMEs read in them, and how they compare it with what is printed."""

import re

import pytest

from exercises import steps
from workshop import exercises

README = """
## Steps

1. `./workshop up stage0`, which is not `./workshop up`, and `other.py`.

   ```
   $ ./workshop exercise \\
         start 01
   01 Run it
     edit   who.py
   $ kill %2       # a comment
   ```

   ```python
   written = "by hand"
   ```

   It says in the end:

   ```
   PASSED
   ```

## Look at

`./workshop down`
"""
STEPS = [
    steps.Step("./workshop up stage0", ""),
    steps.Step("./workshop exercise start 01", "01 Run it\n  edit   who.py\n"),
    steps.Step("kill %2       # a comment", ""),
    steps.Step(None, "PASSED\n"),
]


def test_steps_are_read_in_their_order(tmp_path):
    readme = tmp_path / "README.md"
    readme.write_text(README)
    assert steps.of(readme) == STEPS


@pytest.mark.parametrize("exercise", exercises.all_of_them(), ids=lambda exercise: exercise.number)
def test_the_steps_of_each_exercise_lead_from_nothing_to_its_check(exercise):
    typed = [step.command for step in steps.of(exercise.folder / "README.md") if step.command]
    for command in ("up " + exercise.needs, f"exercise start {exercise.number}", f"exercise check {exercise.number}"):
        assert f"./workshop {command}" in typed
    assert any(step.shown.startswith("PASSED") for step in steps.of(exercise.folder / "README.md"))


@pytest.mark.parametrize("exercise", exercises.all_of_them(), ids=lambda exercise: exercise.number)
def test_a_command_in_a_block_of_the_steps_has_a_prompt(exercise):
    for step in steps.of(exercise.folder / "README.md"):
        assert not re.search(r"(?m)^\s*(\./workshop|\.venv/|curl |cd |export )", step.shown)


PRINTED = """
2026-11-28 14:21:51,341 INFO monolith_v1_6d3c b980c9d2-1c1b-4f7e-8a11-0d3e5f6a7b8c: GET /api 200 1.2 ms
{"id":7,"failed": 0,"created_at":1795544108.9, "more":[1,2]}
  sent   728, 0, 0    to 127.0.0.1:29000
"""
HELD = (
    "2026-01-01 00:00:00,000 INFO monolith_v1_abcd b980c9d2-…: GET /api 200 0.9 ms",
    '{"id":123,"failed": 0,"created_at":1795544100.12345, …}',
    "sent 9, 0, 0 to 127.0.0.1:80",
    "…\n{…}\nsent",
)
NOT_HELD = (
    "2026-01-01 00:00:00,000 INFO messages_v1_abcd",
    "INFO monolith_v2_abcd",
    "GET /api 503 0.9 ms",
    '{"id":7,"failed": 3}',
    '"failed": 0,"more"',
    "{…}\nGET",
)


@pytest.mark.parametrize("shown", HELD)
def test_what_is_shown_is_found_with_other_ids_numbers_and_times(shown):
    assert steps.holds(PRINTED, shown)


@pytest.mark.parametrize("shown", NOT_HELD)
def test_what_is_not_so_is_not_found(shown):
    assert not steps.holds(PRINTED, shown)
