"""What the bench counts, and how it shows what it has found."""

import dataclasses
import io
import json
import subprocess
from itertools import pairwise

import pytest
from click.testing import CliRunner
from rich.console import Console

from workshop import bench, builds, commands, processes, stage
from workshop.bench import Report, Row
from workshop.commands.bench import sentences, table
from workshop.waiting import wait_until

STAGES = [stage.load(name) for name in ("stage0", "stage1", "stage2")]
SMALL_TERMINAL = 80  # columns
REPORT = Report(
    instances={"stage0": {"monolith": 2}, "stage1": {"monolith": 1, "ui": 1}, "stage2": {"ui": 1, "users": 1}},
    rows=[
        Row("posting over Socket.IO, p50", "ms", {"stage0": 3.14, "stage1": 3.456, "stage2": 12.34}),
        Row("posting over HTTP, 4 clients", "per s", {"stage0": 2000, "stage1": 1000, "stage2": 12345.6}),
        Row("processes with the platform", "", {"stage0": 23, "stage1": 23, "stage2": 21}),
    ],
    wins={"stage0": "It has [one] part.", "stage1": "", "stage2": "It has several."},
    loses={"stage0": "It has one size.", "stage1": "", "stage2": "It has arrows."},
)


def stage_of(name: str, **instances: int) -> stage.Stage:
    services = {
        service: stage.Service(service, folder=None, command=[], routes=[], instances=count)
        for service, count in instances.items()
    }
    return stage.Stage(name, name, {}, services, {})


def shown(part) -> list[str]:
    """Return the lines that a terminal shows, each with single blanks."""
    console = Console(file=io.StringIO(), width=SMALL_TERMINAL, markup=False, highlight=False)
    console.print(part)
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines()]


# What is brought up


def test_the_first_service_of_a_stage_gets_the_instances_that_the_stage_lacks():
    stages = [stage_of("one", all=1), stage_of("few", rest=1, part=1), stage_of("many", a=2, b=1, c=2)]

    assert bench.equal_shares(stages) == [{"all": 5}, {"rest": 4, "part": 1}, {"a": 2, "b": 1, "c": 2}]


def test_in_stages_0_and_1_that_is_the_monolith():
    stage0, stage1, stage2 = bench.equal_shares(STAGES)

    assert stage0 == {"monolith": 5}
    assert stage1 == {"monolith": 3, "ui": 1, "tokens": 1}
    assert set(stage2.values()) == {1}


def test_who_interrupts_while_a_stage_comes_up_finds_those_before_it_taken_down(monkeypatch):
    up = []

    class Subject:
        def __init__(self, stage, instances):
            self.name, self.instances = stage.name, instances

        def __enter__(self):
            if len(up) == 2:
                raise KeyboardInterrupt
            up.append(self.name)
            return self

        def __exit__(self, *_):
            up.remove(self.name)

    monkeypatch.setattr(bench, "Subject", Subject)
    said = []
    with pytest.raises(KeyboardInterrupt):
        bench.run(STAGES, 1, said.append)

    assert [line.split()[2] for line in said] == ["stage0", "stage1", "stage2"]
    assert up == []


# What is counted


def test_blank_lines_comments_and_docstrings_are_no_lines(tmp_path):
    file = tmp_path / "program.py"
    file.write_text('''"""What
it does."""

# why
LIST = [
    1,  # one
]


def run():
    """Run."""
    return """
    a text
    """
''')

    assert bench.code_lines(file) == 7


def test_what_services_share_counts_once_and_neither_tests_nor_migrations_count(tmp_path):
    for place, lines in (
        ("one/parley.py", 1),
        ("other/parley.py", 2),
        ("common/auth.py", 4),
        ("one/tests/test_it.py", 8),
        ("one/migrations/versions/0001.py", 16),
        ("one/style.css", 32),
    ):
        (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / place).write_text("x = 1\n" * lines)
    shared = {"common": tmp_path / "common"}
    services = {name: stage.Service(name, tmp_path / name, ["run"], ["/"], shared=shared) for name in ("one", "other")}

    assert bench.lines_of_python(stage.Stage("test", "A test", {}, services, {})) == 1 + 2 + 4


def test_in_stage_1_the_bridge_and_the_optional_service_do_not_count():
    stage1 = STAGES[1]
    folders = {file.relative_to(stage.folder("stage1")).parts[0] for file in python(bench.sources(stage1))}

    assert folders == {"monolith", "ui", "tokens", "common"}
    bridge = stage.read("bridge", stage.folder("stage1") / "bridge").services["monolith"]
    assert python(builds.contents(bridge).values()) - bench.sources(stage1)  # there is something that could be counted


def python(files) -> set:
    return {file for file in files if file.suffix == ".py"}


def test_of_a_platforms_processes_only_those_of_services_are_told_which(tmp_path):
    mark = {"PATH": "/usr/bin:/bin", processes.MARK: str(tmp_path)}
    started = [subprocess.Popen(["sleep", "60"], env=env) for env in (mark, mark | {"SERVICE": "tokens"})]
    try:
        # One whose program has only just been loaded shows no environment for a moment.
        assert wait_until(lambda: len(processes.of(tmp_path)) == len(started), 5)
        found = processes.of(tmp_path)
        assert {process.pid for process in found} == {process.pid for process in started}
        assert [process.pid for process in processes.of_services(found)] == [started[1].pid]
    finally:
        for process in started:
            process.kill()
            process.wait()
    assert processes.of_services(found) == []  # nor one that has ended meanwhile


# What is shown


def test_each_stage_but_the_first_is_compared_with_the_first():
    lines = shown(table(REPORT))

    assert "unit stage0 stage1 ÷ stage0 stage2 ÷ stage0" in lines
    assert "posting over Socket.IO, p50 ms 3.1 3.5 1.10 12.3 3.93" in lines
    assert "posting over HTTP, 4 clients per s 2,000 1,000 0.50 12,346 6.17" in lines
    assert "processes with the platform 23 23 1.00 21 0.91" in lines


def test_one_stage_is_compared_with_none():
    row = Row("posting over HTTP, 4 clients", "per s", {"stage2": 582})
    lines = shown(table(Report({"stage2": {"ui": 1}}, [row], {"stage2": ""}, {"stage2": ""})))

    assert lines[0] == "The same work; instances of each stage: 1"
    assert lines[1] == "unit stage2"
    assert lines[-1] == "posting over HTTP, 4 clients per s 582"


def test_beside_the_figures_stands_what_a_stage_wins_and_loses_if_it_says_so():
    assert shown(sentences(REPORT)) == [
        "stage0 with monolith=2",
        "wins It has [one] part.",
        "loses It has one size.",
        "stage1 with monolith=1 ui=1",
        "stage2 with ui=1 users=1",
        "wins It has several.",
        "loses It has arrows.",
    ]


def test_people_and_programs_get_the_figures_and_the_sentences(monkeypatch):
    monkeypatch.setattr(bench, "run", lambda stages, seconds, say: REPORT)
    monkeypatch.setenv("COLUMNS", str(SMALL_TERMINAL))
    printed = CliRunner().invoke(commands.bench.command).output
    report = json.loads(CliRunner().invoke(commands.bench.command, ["--json"]).output)

    assert max(map(len, printed.splitlines())) <= SMALL_TERMINAL
    for earlier, later in pairwise(("÷ stage0", "with the platform", "It has [one] part.", "Hops: how often")):
        assert 0 < printed.index(earlier) < printed.index(later)
    assert report == dataclasses.asdict(REPORT)
