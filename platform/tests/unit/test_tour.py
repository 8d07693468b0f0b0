"""The tour: its table, what a terminal shows of it, and its page."""

import re

import lxml.html
import pytest
from click.testing import CliRunner

from workshop import cli, exercises, lesson, paths, stage, tour
from workshop.commands import tour as command

PARTS = tour.parts()
STATIONS = [station for part in PARTS for station in part.stations]
STEPS = list(stage.stages())[1:]
each_station = pytest.mark.parametrize("station", STATIONS, ids=lambda station: str(station.number))


def run(*arguments):
    return CliRunner().invoke(command.command, [str(argument) for argument in arguments])


# The table


def test_every_exercise_is_built_on_the_way_in_the_order_of_their_numbers():
    numbers = [exercise.number for station in STATIONS for exercise in station.exercises]

    assert list(dict.fromkeys(numbers)) == [exercise.number for exercise in exercises.all_of_them()]


def test_every_topic_is_visited_once_on_the_way_to_each_stage():
    visited = [(part["step"], sorted(part["topics"])) for part in tour.TABLE["parts"] if "step" in part]

    assert visited == [(step, sorted(lesson.TOPICS)) for step in STEPS]


def test_each_stage_has_its_drawing():
    assert [part.drawing for part in PARTS if part.drawing] == list(stage.stages())
    assert all(part.alt.endswith(".") for part in PARTS if part.drawing)


@each_station
def test_a_station_says_why_and_what_it_costs_and_has_code_to_look_at(station):
    assert station.why.endswith(".") and station.cost.endswith(".")
    assert bool(station.files) != bool(station.chapter)
    assert all((paths.REPOSITORY / path).is_file() for path in station.files)
    launcher, name, *_ = station.look.split()
    assert launcher == "./workshop" and name in cli.COMMANDS


def test_only_the_last_station_builds_nothing():
    assert [station for station in STATIONS if not station.exercises] == STATIONS[-1:]


def test_the_figures_of_the_price_are_those_that_the_platforms_readme_explains():
    readme = (paths.REPOSITORY / "platform" / "README.md").read_text()
    section = readme.split("\n## What it costs\n")[1].split("\n## ")[0]
    figures = re.findall(r"\d[\d.,]*\d", STATIONS[-1].why + STATIONS[-1].cost)

    assert len(figures) >= 10
    assert [figure for figure in figures if figure not in section] == []


# In a terminal


def test_all_stations_are_listed_with_their_exercises():
    listed = run().output

    for station in STATIONS:
        numbers = ", ".join(exercise.number for exercise in station.exercises)
        assert re.search(rf"(?m)^ *{station.number} +{re.escape(station.title)} +{numbers} *$", listed)


def test_a_station_shows_why_the_cost_the_files_the_diff_the_exercise_and_how_to_go_on():
    number = next(station.number for station in STATIONS if station.look.endswith("diff stage0 stage1 tokens"))
    shown = run(number).output

    parts = [
        f"{number} {STATIONS[number - 1].title}\n",
        "\nWhy: ",
        "\nWhat it costs: ",
        "\nmoved, not a line changed\n  parley/ → common/: auth.py, keys.py\n",
        "\nLook:      ./workshop diff stage0 stage1 tokens\n",
        "\nExercise:  ./workshop exercise start 08   Tokens: issue, check, revoke, 30 minutes\n",
        f"\nGo on:     ./workshop tour {number + 1}   {STATIONS[number].title}\n",
    ]
    places = [shown.index(part) for part in parts]
    assert places == sorted(places)
    assert "\x1b" not in shown


def test_a_station_of_the_platform_names_files_to_read():
    assert "\nto read\n  platform/workshop/sidecar.py\n" in run(2).output


def test_the_last_station_leads_nowhere():
    assert run(len(STATIONS)).output.endswith("\nThis was the tour.\n")


@pytest.mark.parametrize(
    "arguments, sentence",
    [
        (["0"], f"There is no station '0': `./workshop tour` lists 1 to {len(STATIONS)}."),
        ([len(STATIONS) + 1], f"There is no station '{len(STATIONS) + 1}': "),
        (["tokens"], "There is no station 'tokens': "),
        (["--html", "/proc/tour.html"], "/proc/tour.html cannot be written"),
        (["--html", "/"], "/ cannot be written: name a file in a folder that exists and is yours."),
    ],
)
def test_bad_input_gets_one_sentence(arguments, sentence):
    result = run(*arguments)

    assert result.exit_code == 1
    assert result.output.startswith(f"Error: {sentence}")
    assert result.output.count("\n") == 1


def test_a_station_and_a_page_at_once_are_a_usage_error(tmp_path):
    result = run(1, "--html", tmp_path / "tour.html")

    assert result.exit_code == 2
    assert not (tmp_path / "tour.html").exists()
    assert run(1, "--serve").exit_code == 2


def test_a_port_without_a_page_to_serve_is_a_usage_error():
    assert "--port is for --serve." in run("--port", "8083").output


# The page


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    file = tmp_path_factory.mktemp("page") / "tour.html"
    assert run("--html", file).output == f"{file} is written: open it in a browser.\n"
    return lxml.html.parse(str(file)).getroot()


def test_the_page_loads_nothing_and_runs_nothing(page):
    assert not page.xpath("//script | //link | //iframe | //@style")
    assert all(address.startswith("#") for address in page.xpath("//@href"))
    assert not re.search(r"url\(|@import", page.findtext(".//style"))
    assert [image.get("src").split(",")[0] for image in page.iter("img")] == ["data:image/svg+xml;base64"] * 3
    assert [image.get("alt") for image in page.iter("img")] == [part.alt for part in PARTS if part.drawing]


def test_the_page_begins_with_links_to_all_stations(page):
    links = [(link.get("href"), link.text) for link in page.iterfind(".//nav//a")]

    assert links == [(f"#station-{station.number}", station.title) for station in STATIONS]


@each_station
def test_the_page_has_a_stations_text_and_all_its_code_folded(page, station):
    section = page.get_element_by_id(f"station-{station.number}")
    folded = section.findall("details")
    changed, new = (station.chapter.of_kind(kind) if station.chapter else [] for kind in ("changed", "new"))

    assert [p.text_content() for p in section.findall("p")] == [f"Why {station.why}", f"What it costs {station.cost}"]
    commands = [station.look, *(f"./workshop exercise start {exercise.number}" for exercise in station.exercises)]
    assert [code.text_content() for code in section.iterfind("dl//code")] == commands
    assert not section.findall("table") and not page.xpath("//details/@open")
    assert [
        tuple(len(one.xpath(f".//td[@class='{mark}']")) for mark in ("removed", "added"))
        for one in folded[: len(changed)]
    ] == [(change.removed, change.added) for change in changed]
    assert [[code.text_content() for code in one.iter("code")] for one in folded[len(changed) :]] == [
        *(change.after for change in new),
        *station.texts().values(),
    ]
