import os
import subprocess
import sys

import click

from workshop import paths

PARTS = {
    "unit": ["stage0-monolith/tests", "platform/tests/unit"],
    "stage0": ["stage0-monolith/tests"],
    "platform": ["platform/tests"],
    "contract": ["platform/contract"],
}
SLOWEST = 15  # tests whose times are printed


@click.command("test", epilog="Example: ./workshop test unit")
@click.argument("what", type=click.Choice([*PARTS]), required=False)
@click.argument("options", nargs=-1, type=click.UNPROCESSED)
def command(what: str | None, options: tuple[str, ...]) -> None:
    """Run the test suite, or a part of it; OPTIONS after -- go to pytest.

    \b
    unit      fast, no servers but Redis        stage0     the monolith's own tests
    platform  real HAProxy, etcd and Redis      contract   the API of the running application
    """
    if what not in ("unit", "stage0"):
        subprocess.run([paths.REPOSITORY / "platform" / "provision.sh", "--test"], check=True)
    os.chdir(paths.REPOSITORY)
    arguments = ["-m", "pytest", f"--durations={SLOWEST}", *PARTS.get(what, []), *options]
    os.execv(sys.executable, [sys.executable, *arguments])
