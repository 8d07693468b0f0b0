import os

import click

from workshop import paths
from workshop.errors import WorkshopError

LINES = 40


@click.command("logs", epilog="Example: ./workshop logs monolith -f")
@click.argument("name", metavar="[SERVICE]", required=False, default="")
@click.option("-f", "--follow", is_flag=True, help="Go on showing new lines until interrupted.")
def command(name: str, follow: bool) -> None:
    """Show the last lines of the logs: of a service, an instance, a worker, haproxy, balancer, etcd, redis, or all."""
    files = sorted(paths.LOGS.glob("*.log"), key=lambda file: file.stat().st_mtime)
    chosen = [file for file in files if not name or file.stem == name or file.stem.split("_")[0] == name]
    if not chosen:
        known = sorted({file.stem.split("_")[0] for file in files})
        raise WorkshopError(f"There is no log of {name!r}: there are {', '.join(known)}." if known else "No logs yet.")
    os.execvp("tail", ["tail", "-v", "-n", str(LINES), *(["-F"] if follow else []), *map(str, chosen)])
