import subprocess
import sys

import click

from workshop import paths

# What is run, one pytest after the other: each folder of tests is independent of the others.
PARTS = {
    "unit": (["stage0-monolith/tests"], ["platform/tests/unit"]),
    "stage0": (["stage0-monolith/tests"],),
    "platform": (["platform/tests"],),
    "contract": (["platform/contract"],),
}
ALL = (["stage0-monolith/tests"], ["platform/tests", "platform/contract"])
WITHOUT_BROWSER = ("unit", "stage0")
SLOWEST = 15  # tests whose times are printed


@click.command("test", epilog="Example: ./workshop test unit")
@click.argument("what", type=click.Choice([*PARTS]), required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
@click.pass_context
def command(context: click.Context, what: str | None, options: tuple[str, ...]) -> None:
    """Run the test suite, or a part of it; OPTIONS after -- go to pytest.

    \b
    unit      fast, no servers but Redis        stage0     the monolith's own tests
    platform  real HAProxy, etcd and Redis      contract   the API of the running application
    """
    if what not in WITHOUT_BROWSER:
        subprocess.run([paths.REPOSITORY / "platform" / "provision.sh", "--test"], check=True)
    pytest = [sys.executable, "-m", "pytest", f"--durations={SLOWEST}", *options]
    runs = [subprocess.run([*pytest, *tests], cwd=paths.REPOSITORY) for tests in (PARTS[what] if what else ALL)]
    context.exit(max(run.returncode for run in runs))
