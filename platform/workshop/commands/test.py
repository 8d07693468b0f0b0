import subprocess
import sys

import click

from workshop import paths

# What is run, one pytest after the other: each folder of tests is independent of the others.
STAGE0 = (["stage0-monolith/tests"],)
STAGE1 = (["stage1-strangler/monolith/tests"], ["stage1-strangler/bridge/tests"])
STAGE2 = tuple(
    [f"stage2-microservices/{folder}/tests"] for folder in ("common", "ui", "tokens", "users", "messages", "socketio")
)
ON_STAGE1 = ("--stage", "stage1")
ON_STAGE2 = ("--stage", "stage2")
ON_POSTGRES = ("--db", "postgres")
PARTS = {
    "unit": (*STAGE0, *STAGE1, *STAGE2, ["platform/tests/unit"]),
    "stage0": STAGE0,
    "stage1": STAGE1,
    "stage2": STAGE2,
    "platform": (["platform/tests"], ["platform/tests/test_faults.py", "platform/stage2", *ON_STAGE2]),
    "contract": (["platform/contract"], ["platform/contract", *ON_STAGE1], ["platform/contract", *ON_STAGE2]),
}
ALL = (
    *STAGE0,
    *STAGE1,
    *STAGE2,
    # Another version is rolled out in stage 2, below; here only that of a service with workers.
    ["platform/tests", "platform/contract", "-k", "not test_rollout or its_rollback or bad_input"],
    [
        "platform/tests/test_faults.py",
        "platform/tests/test_rollout.py",
        "platform/stage2",
        "platform/contract",
        *ON_STAGE2,
    ],
    ["platform/contract", *ON_STAGE1],
    # Of the faults, those that the database sees.
    [
        "platform/tests/test_faults.py",
        "platform/stage2/test_stores.py",
        "platform/contract",
        *ON_STAGE2,
        *ON_POSTGRES,
        *("-k", "not etcd and not redis and not haproxy and not manager"),
    ],
    # The monolith on PostgreSQL: what reaches the database; attacks and browsers do not see the difference.
    ["platform/contract", *ON_POSTGRES, "-k", "not attacks and not test_page"],
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
    contract  the API of the running application, stage by stage
    """
    what, options = (words[0], words[1:]) if words and not words[0].startswith("-") else (None, words)
    if what and what not in PARTS:
        raise click.UsageError(f"There is no part {what!r}: there are {', '.join(PARTS)}.")
    if what not in WITHOUT_BROWSER:
        provisioned = subprocess.run([paths.REPOSITORY / "platform" / "provision.sh", "--test"])
        if provisioned.returncode:
            context.exit(provisioned.returncode)
    pytest = [sys.executable, "-m", "pytest", f"--durations={SLOWEST}", *options]
    runs = [subprocess.run([*pytest, *tests], cwd=paths.REPOSITORY) for tests in (PARTS[what] if what else ALL)]
    context.exit(max(run.returncode for run in runs))
