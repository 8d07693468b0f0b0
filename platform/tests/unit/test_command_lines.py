"""Whatever a text tells the reader to type is what the command line takes; nothing is run here."""

import re
from pathlib import Path

import pytest
from tests.command_lines import CommandLine, in_code, in_text, problem

from workshop import exercises, paths

REPOSITORY = paths.REPOSITORY
# Each of them has to be there, so that a pattern that matches nothing is noticed.
TEXTS = (
    "README.md", "stage*/**/*.md", "platform/**/*.md", "exercises/*.md", "exercises/*/*.md",
    "slides/*.md", "slides/exercises/*.md", "slides/terminal/*.txt",
)  # fmt: skip
OTHERS = ("Vagrantfile", "workshop", "platform/provision.sh", "platform/workshop/**/*.toml", "stage*/**/*.toml")
CODE = ("platform/workshop/**/*.py", "exercises/*.py", "exercises/*/*.py")


def files(*patterns: str) -> list[Path]:
    found = {pattern: sorted(REPOSITORY.glob(pattern)) for pattern in patterns}
    assert all(found.values()), found
    return [file for several in found.values() for file in several]


def written_down() -> list[CommandLine]:
    return [command for file in files(*TEXTS, *OTHERS) for command in in_text(file)]


def assert_right(commands: list[CommandLine]) -> None:
    wrong = [(command, problem(command)) for command in commands]
    told = [f"{c.file.relative_to(REPOSITORY)}:{c.line}: {c}: {sentence}" for c, sentence in wrong if sentence]
    assert not told, "\n" + "\n".join(told)


def test_each_command_line_of_a_text_is_one_that_the_workshop_takes():
    commands = written_down()
    assert len(commands) > 200
    assert_right(commands)


def test_each_command_line_that_the_workshop_itself_prints_exists():
    commands = [command for file in files(*CODE) for command in in_code(file)]
    assert len(commands) > 100
    assert_right(commands)


def test_no_command_line_is_overlooked():
    for file in files(*TEXTS):
        mentioned = re.findall(r"(?<![\w./])\./workshop\b(?!/)", file.read_text())
        assert len(in_text(file)) == len(mentioned), file


def test_the_readme_names_each_command_a_learner_begins_with():
    shown = {command.words[0] for command in in_text(REPOSITORY / "README.md") if command.words}
    assert shown >= {"up", "scale", "kill", "probe", "upgrade", "canary", "evolve", "diff", "bench", "exercise", "down"}


@pytest.mark.parametrize("exercise", exercises.all_of_them(), ids=lambda exercise: exercise.number)
def test_an_exercise_names_its_own_number_and_stage(exercise):
    commands = in_text(exercise.folder / "README.md") + in_text(exercise.folder / "hints.md")
    whole = [command.words for command in commands if command.is_whole]
    assert ("exercise", "start", exercise.number) in whole
    assert ("exercise", "check", exercise.number) in whole
    assert {words[2] for words in whole if words[0] == "exercise"} == {exercise.number}
    assert {words[1] for words in whole if words[0] == "up"} == {exercise.needs}


MARKDOWN = """
Say `./workshop up stage0 --port 8000`, which is more than `./workshop up`, or `./workshop evolve
--back`. ./workshop doctor

```
$ ./workshop scale monolith=3      # or ./workshop kill monolith_v1_…
  cd / && ./workshop logs haproxy | grep 503; ./workshop exercise check 01
$ ./workshop upgrade \\
      monolith
users is stopped: `./workshop start users` starts it, and ./workshop stop users, too.
./workshop canary …
```
"""
FOUND = {
    2: ["./workshop up stage0 --port 8000", "./workshop up", "./workshop evolve --back"],
    3: ["./workshop doctor"],
    6: ["./workshop scale monolith=3", "./workshop kill monolith_v1_…"],
    7: ["./workshop logs haproxy", "./workshop exercise check 01"],
    8: ["./workshop upgrade monolith"],
    10: ["./workshop start users", "./workshop stop users"],
    11: ["./workshop canary"],
}


def test_command_lines_are_found_wherever_they_stand(tmp_path):
    file = tmp_path / "text.md"
    file.write_text(MARKDOWN)
    found = {}
    for command in in_text(file):
        found.setdefault(command.line, []).append(str(command))
        assert command.is_whole == (str(command) not in ("./workshop up", "./workshop canary"))
    assert found == FOUND


def test_command_lines_are_found_in_code(tmp_path):
    file = tmp_path / "program.py"
    file.write_text('say("Do `./workshop "\n    f"exercise reset {number}`.")\nuse = "./workshop down --wipe"\n')
    assert [str(command) for command in in_code(file)] == ["./workshop exercise reset {}", "./workshop down --wipe"]


WRONG = (
    "up stage7", "up", "down --wip", "dwon", "exercise check 17", "exercise chekc 01", "exercise", "scale monolith",
    "scale monolit=2", "kill monolit_v1_abcd", "stop haproxy", "logs monolit", "demo sacle", "diff stage0 stage1 usres",
    "canary monolith --weight 100", "probe --for 5h", "up stage0 --with stast", "test unti", "bench stage7",
    "route /api monolit", "exercises --timetable 2h", "kill stats --signal STPO", "evolve stage7", "tour 99",
)  # fmt: skip


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_command_line_is_told(tmp_path, words):
    assert problem(CommandLine(tmp_path, 1, tuple(words.split()), is_whole=True))


@pytest.mark.parametrize("words", ["dwon", "exercise chekc {}", "upgrade {} --ot", "upgrade --all"])
def test_a_wrong_name_in_a_mention_or_in_code_is_told(tmp_path, words):
    assert problem(CommandLine(tmp_path, 1, tuple(words.split()), is_whole=False))
