"""What the platform's tests and the contract share: the options, and the fixtures that give a workshop."""

import contextlib
import signal

import pytest
from tests.engine import engine
from tests.workshops import DBS, DIFFERENCES, Workshop, at_full_strength, copy_of_the_repository, make_workshop, until

from workshop.registry import APIS


def pytest_addoption(parser) -> None:
    parser.addoption("--stage", default="stage0", choices=DIFFERENCES, help="what the contract is tested against")
    parser.addoption("--driver", default="process", choices=list(DBS), help="what everything is run as")
    parser.addoption("--db", choices=["sqlite", "postgres"], help="where the stage keeps its data")
    parser.addoption("--registry", choices=APIS, help="the API of etcd that the stage uses")
    parser.addoption("--evolved", action="store_true", help="the stage is one that stage 0 has become while it ran")


def pytest_configure(config) -> None:
    Workshop.driver, Workshop.registry_api = config.option.driver, config.option.registry
    config.option.db = config.option.db or DBS[config.option.driver]
    # Tests that were started in the background ignore Ctrl-C, and under nohup SIGHUP. So would the commands that they
    # interrupt.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session", autouse=True)
def docker_engine():
    """What runs the containers, if there are to be any."""
    with engine() if Workshop.driver == "docker" else contextlib.nullcontext():
        yield


@pytest.fixture
def workshop():
    """A workshop in which nothing is up."""
    made = make_workshop()
    yield made
    made.destroy()


@pytest.fixture(scope="module")
def workshop_of_module():
    """The same for all tests of a module."""
    made = make_workshop()
    yield made
    made.destroy()


@pytest.fixture
def copied_workshop():
    with copy_of_the_repository() as made:
        yield made


@pytest.fixture(scope="session")
def running_stage(pytestconfig):
    """A stage that is up for the whole test run; `stage` gives it in its usual shape."""
    made = make_workshop()
    made.stage, made.db = pytestconfig.getoption("stage"), pytestconfig.getoption("db")
    if pytestconfig.getoption("evolved"):
        made.run("up", "stage0", "--db", made.db)
        made.run("evolve", made.stage, "--yes")
    else:
        made.up()
    yield made
    made.destroy()


@pytest.fixture
def stage(running_stage):
    """The running stage at full strength, whatever the last test did to it."""
    return at_full_strength(running_stage)


@pytest.fixture(scope="module")
def url(running_stage):
    """The address of the running stage, for tests that only talk to it; at full strength when the module begins."""
    return at_full_strength(running_stage).url


FIGURES = pytest.StashKey[list[str]]()


@pytest.fixture
def print_figure(pytestconfig):
    """Have a measured figure printed at the end of the run, so that it can be followed over time."""
    return pytestconfig.stash.setdefault(FIGURES, []).append


def pytest_terminal_summary(terminalreporter, config) -> None:
    terminalreporter.section("figures")
    for figure in config.stash.get(FIGURES, []):
        terminalreporter.line(figure)


@pytest.fixture(name="until", scope="session")
def until_fixture():
    return until
