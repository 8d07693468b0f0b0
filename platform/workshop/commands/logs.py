import contextlib
import time
from pathlib import Path

import click

from workshop import evolution, paths, state, status
from workshop.errors import WorkshopError

LINES = 40  # shown of each log
POLL = 0.3  # seconds between two looks for new lines


@click.command("logs", epilog="Example: ./workshop logs monolith -f")
@click.argument("name", metavar="[SERVICE]", required=False, default="")
@click.option("-f", "--follow", is_flag=True, help="Go on showing new lines, of new instances too, until interrupted.")
def command(name: str, follow: bool) -> None:
    """Show the last lines of a log: service, instance, worker, haproxy, balancer, etcd, redis, postgres; or of all."""
    if not files(name):
        if paths.STATE.exists():
            status.ensure_ours(evolution.current(state.load()), name)
        known = sorted({file.stem.split("_")[0] for file in files("")})
        raise WorkshopError(f"There is no log of {name!r}: there are {', '.join(known)}." if known else "No logs yet.")
    shown = {file: show(file, 0, LINES) for file in files(name)}
    try:
        while follow:
            time.sleep(POLL)
            with contextlib.suppress(FileNotFoundError):  # `down --wipe` or the next `up` is just removing them
                for file in files(name):
                    shown[file] = show(file, shown.get(file, 0))
    except KeyboardInterrupt:
        pass  # the way to end it


def files(name: str) -> list[Path]:
    """Return the logs of a service, instance or worker, or all, the one that was written last at the end."""
    logs = sorted(paths.LOGS.glob("*.log"), key=lambda file: file.stat().st_mtime)
    return [file for file in logs if not name or name in (file.stem, file.stem.split("_")[0])]


def show(file: Path, start: int, most: int | None = None) -> int:
    """Print a log from a position on, or only the last lines of that; return the position where it ends now."""
    with open(file, encoding="utf-8", errors="replace") as log:
        if start > file.stat().st_size:
            start = 0  # the supervisor has begun a new file: this one had become too long
        log.seek(start)
        for line in log.readlines()[-most if most else 0 :]:
            click.echo(f"{file.stem} | {line.rstrip()}")
        return log.tell()
