"""The image of the whole workshop: built from a clean clone, and used as README.md shows it."""

import subprocess
import time

import pytest
import requests
from tests.engine import LONGEST_BUILD, docker

from workshop.ports import DEFAULTS, HOST, free_port

IMAGE = "workshop-test"
EXERCISE = "14-partial-failure"

pytestmark = pytest.mark.timeout(1200)  # seconds: a build with other programs beside it


@pytest.fixture(scope="module")
def seconds(base, clone):
    """How long the build of the image took."""
    options = ("--network=host", f"--build-arg=BASE={base}", "--file=platform/docker/workshop.Dockerfile")
    started = time.monotonic()
    built = subprocess.run(
        ["docker", "build", *options, f"--tag={IMAGE}", "."],
        cwd=clone, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip
    assert built.returncode == 0, built.stdout[-2000:]
    yield time.monotonic() - started
    docker("image", "rm", IMAGE)


@pytest.fixture(scope="module")
def published():
    """The ports of this machine that the pages are published on."""
    return {page: free_port() for page in DEFAULTS}


@pytest.fixture(scope="module")
def execute(seconds, published):
    """Run a command in a container of the image, which has no privileges, and return what the command printed."""
    pages = [f"--publish={HOST}:{published[page]}:{port}" for page, port in DEFAULTS.items()]
    confined = ("--cap-drop=ALL", "--security-opt=no-new-privileges")
    docker("network", "create", IMAGE)
    container = docker("run", "--detach", "--interactive", "--tty", f"--network={IMAGE}", *confined, *pages, IMAGE)

    def run(*words: str, expect: int = 0) -> str:
        result = subprocess.run(["docker", "exec", container.strip(), *words], capture_output=True, text=True)
        assert result.returncode == expect, f"{words}: {result.stdout}{result.stderr}"
        return result.stdout

    yield run
    docker("rm", "--force", container.strip())
    docker("network", "rm", IMAGE)


def test_a_clean_clone_is_built_in_minutes(seconds, print_figure):
    print_figure(f"image of the workshop from a clean clone: {seconds:.0f} s")
    assert seconds < LONGEST_BUILD


def test_stage_2_in_the_container_serves_its_pages_on_the_host(execute, published, until, print_figure):
    started = time.monotonic()
    assert f"http://127.0.0.1:{DEFAULTS['chat']}/" in execute("./workshop", "up", "stage2")
    print_figure(f"image of the workshop, up stage2: {time.monotonic() - started:.0f} s")
    chat, statistics, tour = (f"http://{HOST}:{published[page]}/" for page in ("chat", "statistics", "tour"))
    assert "<title>Parley</title>" in requests.get(chat, timeout=5).text
    assert "Statistics Report for HAProxy" in requests.get(statistics, timeout=5).text
    assert requests.get(chat, headers={"Host": "evil.example"}, timeout=5).status_code == 421
    assert "lost, doubled     │ 0, 0" in execute("./workshop", "probe", "--for", "3s")
    assert "Ready." in execute("./workshop", "doctor")

    execute("bash", "-c", "./workshop tour --serve >/dev/null 2>&1 &")

    def answers() -> bool:
        try:
            return "<h1" in requests.get(tour, timeout=5).text
        except requests.ConnectionError:
            return False

    until(answers, 20, "the tour's page")


def test_an_exercise_is_checked_in_the_container(execute):
    number = EXERCISE[:2]
    execute("./workshop", "up", "stage2")
    execute("./workshop", "exercise", "start", number)
    assert "NOT DONE YET" in execute("./workshop", "exercise", "check", number, expect=1)
    execute("bash", "-c", f"cp exercises/{EXERCISE}/solution/* work/{EXERCISE}/")
    assert execute("./workshop", "exercise", "check", number).startswith(f"PASSED {number} ")


def test_nothing_in_the_container_runs_as_root(execute):
    users = set(execute("ps", "-e", "-o", "user=").split())
    assert users == {"learner"}


def test_the_image_has_a_git_repository_without_the_clones_own_history(execute):
    assert execute("git", "status", "--short") == ""
    assert execute("git", "log", "--format=%s") == "Add the workshop\n"
    assert execute("git", "config", "--get-regexp", "remote", expect=1) == ""
