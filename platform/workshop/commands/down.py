import shutil

import click

from workshop import lifecycle, paths, state, supervisor
from workshop.drivers import DRIVERS


@click.command("down", epilog="Example: ./workshop down --wipe")
@click.option("--wipe", is_flag=True, help="Remove .run/ as well: databases, logs, builds, secrets.")
def command(wipe: bool) -> None:
    """End everything that runs; data is kept unless --wipe is given."""
    with state.locked("down"):
        was_up = paths.STATE.exists() or supervisor.is_running()
        for lost in lifecycle.tear_down():
            was_up = True
            click.echo(f"ended: {lost}, which nothing supervised any more")
        if wipe:
            for driver in DRIVERS.values():
                driver.wipe()
            try:
                shutil.rmtree(paths.RUN)
            except OSError:
                if not paths.RUN.is_mount():  # in the virtual machine, it is: then it stays, and is empty
                    raise
    click.echo("Everything is down." if was_up else "Nothing was up.")
