import contextlib
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator

import click
from pytest import ExitCode

from workshop import bundle, paths

# A run is one pytest, independent of the others. The runs of a round go side by side, the rounds one after the other.
STAGE0 = (["stage0-monolith/tests"],)
STAGE1 = (["stage1-strangler/monolith/tests"], ["stage1-strangler/bridge/tests"])
STAGE2 = tuple(
    [f"stage2-microservices/{folder}/tests"] for folder in ("common", "ui", "tokens", "users", "messages", "socketio")
)
UNIT = ["platform/tests/unit"]
CONTRACT, FAULTS, EVOLVE = "platform/contract", "platform/tests/test_faults.py", "platform/tests/test_evolve.py"
LOAD, FOREIGN_PAGES = "platform/tests/test_under_load.py", "platform/tests/test_foreign_pages.py"
ON_STAGE1, ON_STAGE2, ON_POSTGRES = ("--stage", "stage1"), ("--stage", "stage2"), ("--db", "postgres")
ON_V3 = ("--registry", "v3")  # etcd's v3 API; the platform's tests of the registry itself use both
IN_CONTAINERS = ("--driver", "docker")
EXTREMES = "evolve_is_killed or whatever_happens or fifty_flips"  # accidents in the middle of a step, and haste
LONG_PAUSES = "for_40_s or for_a_minute"  # the whole suite has a shorter pause of each kind
PAGE = "platform/contract/test_page.py"
EVOLVED = "--evolved"  # the stage is not brought up, stage 0 is, and becomes it
# What a database, or where the stage came from, could make another of: attacks and browsers do not see it.
WHAT_MAY_DIFFER = ("-k", "not attacks and not test_page and not fuzz")
NOT_IN_CONTAINERS = "attacks_links or attacks_passwords or claimed"  # where it is skipped
ROLLOUTS = "canary or migration_runs_once or crashes or bad_input"
SAME_IN_CONTAINERS = (
    "etcd or suspended or redis or manager or last_instance or with_its_key or expanding or probe_command or fuzz"
)
ROLLED_IN_CONTAINERS = "its_rollback or never_becomes_healthy"
EXERCISES, HARNESS = "platform/exercises/test_exercises.py", "platform/exercises/test_harness.py"
# Of each exercise, whether it begins and can be solved; all else is the part's.
THIRDS = tuple(
    [EXERCISES, "-k", f"({' or '.join(f'{n:02}-' for n in numbers)}) and (jump or starter or solution) and not busy"]
    for numbers in (range(1, 7), range(7, 12), range(12, 17))
)
READMES = "platform/exercises/test_readmes.py"
OF_THE_REGISTRY = "(04- or 05-) and not busy"  # exercises with the registry as their subject
BARE_DEBIAN, BUNDLE, PYTHONS, SETUP = SET_UP = [
    f"platform/tests/test_{name}.py" for name in ("bare_debian", "bundle", "pythons", "setup")
]
TESTING = "debian-testing"  # the next release, which is not promised
README, SLIDES = "platform/tests/test_readme.py", "platform/tests/test_slides.py"
COMMANDS = tuple(
    f"platform/tests/test_{name}.py"
    for name in ("lifecycle", "postgres", "damaged_database", "full_disk", "stats", "broadcast")
)
DEMOS, STORES = "platform/stage2/test_demos.py", "platform/stage2/test_stores.py"
ROLLOUT, CONTAINERS = "platform/tests/test_rollout.py", "platform/docker/test_containers.py"
ENGINE = [f"platform/docker/test_{name}.py" for name in ("engine", "workshop_image")]
DEV_CONTAINER = "platform/docker/test_devcontainer.py"  # begins as the image does, and takes four minutes
PARTS = {
    "unit": ((*STAGE0, *STAGE1), STAGE2[:3], STAGE2[3:], (UNIT,)),
    "stage0": (STAGE0,),
    "stage1": (STAGE1,),
    "stage2": (STAGE2[:3], STAGE2[3:]),
    "platform": ((["platform/tests", "-k", f"not {TESTING}"],), ([FAULTS, "platform/stage2", *ON_STAGE2],)),
    "docker": (
        ([*ENGINE, DEV_CONTAINER, *IN_CONTAINERS],),
        (
            [
                *(FAULTS, LOAD, ROLLOUT, "platform/stage2", CONTRACT, CONTAINERS, *ON_STAGE2, *IN_CONTAINERS),
                *("-k", "not suspended"),
            ],
        ),
        ([CONTAINERS, *COMMANDS, *IN_CONTAINERS],),
    ),
    "exercises": (([EXERCISES, HARNESS],), ([EXERCISES, *ON_V3, "-k", OF_THE_REGISTRY],)),
    "readmes": (([README],), ([READMES],), ([READMES, *ON_V3, "-k", OF_THE_REGISTRY],)),
    "slides": ((["platform/tests/unit/test_deck.py", "platform/tests/unit/test_drawings.py", SLIDES],),),
    "contract": (([CONTRACT],), ([CONTRACT, *ON_STAGE1],), ([CONTRACT, *ON_STAGE2],)),
    # What the whole suite leaves out, to be done within 40 minutes.
    "matrix": (
        ([EVOLVE, FAULTS, PAGE, "-k", f"{EXTREMES} or {LONG_PAUSES}"],),
        ([EVOLVE, *ON_POSTGRES, "-k", f"becomes or {EXTREMES}"],),
        ([CONTRACT, *ON_STAGE1, EVOLVED],),
        ([ROLLOUT, *ON_STAGE2],),
        ([EVOLVE, *IN_CONTAINERS, "-k", "becomes"],),
        ([CONTRACT, *ON_STAGE2, *IN_CONTAINERS, EVOLVED, "-k", "not suspended"],),
        (
            [FAULTS, ROLLOUT, CONTRACT, *IN_CONTAINERS, "-k", "not suspended"],
        ),  # the test stops processes, by their mark
        ([CONTRACT, *ON_POSTGRES],),
        ([FAULTS, *ON_STAGE2, *ON_V3],),
        ([FAULTS, FOREIGN_PAGES, *ON_V3, "-k", "etcd or registry"],),
        ([FAULTS, *ON_STAGE2, *ON_POSTGRES],),
        ([CONTRACT, *ON_STAGE2, *ON_POSTGRES],),
        ([BARE_DEBIAN, "-k", TESTING],),
    ),
}
ALL = (
    (*STAGE0, *STAGE1),
    STAGE2[:3],
    (*STAGE2[3:], UNIT),
    # What waits most of the time: for downloads; for keys and a browser; for an audience. The demonstrations are not
    # typed once more for the slides that show them.
    (
        [BARE_DEBIAN, "-k", f"not {TESTING}"],
        [README, SLIDES, "-k", "not (terminal and (upgrade or canary or partial or evolve))"],
        [DEMOS, *ON_STAGE2],
    ),
    ([BUNDLE, PYTHONS], [SETUP]),
    (
        [
            *("platform/tests", CONTRACT, *(f"--ignore={file}" for file in (*SET_UP, README, SLIDES, *UNIT))),
            *("-k", f"not ({EXTREMES} or {LONG_PAUSES}) and (not test_rollout or {ROLLOUTS})"),
        ],
    ),
    # Stage 2 is tested in containers. Of the faults and roll-outs, those in which these could make a difference.
    (
        [
            *(*ENGINE, FAULTS, LOAD, ROLLOUT, CONTRACT, CONTAINERS, *ON_STAGE2, *IN_CONTAINERS),
            *("-k", f"not ({SAME_IN_CONTAINERS}) and (not test_rollout or {ROLLED_IN_CONTAINERS})"),
        ],
    ),
    (["platform/stage2", *ON_STAGE2, f"--ignore={DEMOS}", f"--ignore={STORES}"],),
    ([FAULTS, *ON_V3, "-k", "lost_its_data"],),
    THIRDS,
    (
        [CONTRACT, *ON_STAGE1, EVOLVED, *WHAT_MAY_DIFFER],
        [STORES, CONTRACT, *ON_STAGE2, *ON_POSTGRES, EVOLVED, "-k", f"({WHAT_MAY_DIFFER[1]}) or {NOT_IN_CONTAINERS}"],
    ),
)
WITHOUT_BROWSER = ("unit", "stage0", "stage1", "stage2")
SLOWEST = 15  # tests whose times are printed


@click.command("test", epilog="Example: ./workshop test unit   or   ./workshop test platform -- -k registry")
@click.argument("words", metavar="[WHAT] [-- OPTIONS...]", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, words: tuple[str, ...]) -> None:
    """Run the test suite, or the part of it called WHAT; OPTIONS go to pytest.

    \b
    unit      fast, no servers but Redis: the tests of all stages, and the platform's
    stage0    the monolith's own tests          stage1    those of what is left of it, and of the bridge
    stage2    each service's own tests          platform  real HAProxy, etcd and Redis
    exercises each with its starter, its wrong answers and its solution, and what a check says of any other code
    readmes   each command that the README and the exercises' steps show, typed
    slides    each slide in a browser, and what its terminals show, typed
    contract  the API of the running application, stage by stage
    docker    containers: how they are confined, faults, roll-outs and the contract in them
    matrix    what the whole suite leaves out: more of stages, databases, etcd's APIs, faults; Debian testing (40 min)
    """
    what, options = (words[0], words[1:]) if words and not words[0].startswith("-") else (None, words)
    if what and what not in PARTS:
        raise click.UsageError(f"There is no part {what!r}: there are {', '.join(PARTS)}.")
    if what not in WITHOUT_BROWSER:
        provisioned = subprocess.run(["bash", bundle.PROVISION, "--test"])
        if provisioned.returncode:
            context.exit(provisioned.returncode)
    rounds = PARTS[what] if what else ALL
    statuses = []
    for runs in rounds:
        statuses += side_by_side(runs, options)
        if ExitCode.INTERRUPTED in statuses:
            break
    context.exit(worst(statuses, is_choice=bool(options)))


def side_by_side(runs: tuple[list[str], ...], options: tuple[str, ...]) -> list[int]:
    """Run them at the same time, and show what several print one after the other; return their exit statuses."""
    command = [sys.executable, "-m", "pytest", f"--durations={SLOWEST}"]
    with contextlib.ExitStack() as stack:
        files = [
            stack.enter_context(tempfile.TemporaryFile("w+", encoding="utf-8")) if len(runs) > 1 else None for _ in runs
        ]
        started = [
            subprocess.Popen([*command, *tests, *options], cwd=paths.REPOSITORY, stdout=file, stderr=file)
            for tests, file in zip(runs, files, strict=True)
        ]
        stack.enter_context(leaving_interrupts_to(started))
        for process, file in zip(started, files, strict=True):
            process.wait()
            if file:
                file.seek(0)
                click.echo(file.read())
        return [process.returncode for process in started]


@contextlib.contextmanager
def leaving_interrupts_to(started: list[subprocess.Popen]) -> Iterator[None]:
    """Have those who run the tests end in good order, and wait for it, instead of ending before them.

    A terminal sends Ctrl-C to them as well; the other signals come to us alone.
    """

    def pass_on(*_) -> None:
        for process in started:
            process.send_signal(signal.SIGINT)

    before = {number: signal.signal(number, pass_on) for number in (signal.SIGTERM, signal.SIGHUP)}
    before[signal.SIGINT] = signal.signal(signal.SIGINT, lambda *_: None)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def worst(statuses: list[int], is_choice: bool) -> int:
    """Return the worst exit status; a signal's is negative. Of a choice of tests, a run may have had none."""
    counted = [abs(status) for status in statuses if not (is_choice and status == ExitCode.NO_TESTS_COLLECTED)]
    return max(counted, default=ExitCode.NO_TESTS_COLLECTED)
