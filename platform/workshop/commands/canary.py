import time

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from workshop import evolution, rollout, state, supervisor
from workshop.counters import Counters

INTERVAL = 0.5  # seconds between two looks into the log


@click.command("canary", epilog="Example: ./workshop canary monolith --weight 20")
@click.argument("name", metavar="SERVICE")
@click.option(
    "--weight",
    "percent",
    type=click.IntRange(1, 99),
    default=10,
    show_default=True,
    help="How many percent of the requests it gets.",
)
@click.option("--to", "version", metavar="vN", help="A version that has been built; default: the code as it is now.")
def command(name: str, percent: int, version: str | None) -> None:
    """Try out SERVICE's code as it is now with one instance, and compare how the versions do.

    On a terminal, the comparison is shown until `promote` or `abort` is given in another one; Ctrl-C ends the showing,
    not the canary. Given again, the command shows it again.
    """
    with state.locked(f"canary {name}"):
        up = state.load()
        rollout.canary(evolution.current(up), up, name, version, percent, click.echo)
        version = state.load().canaries[name]
    console, counters = Console(), Counters(supervisor.log_file("haproxy"), name, version)
    if console.is_terminal:
        show_until_decided(console, counters)
    else:
        counters.update()
        console.print(table(counters))
    if state.load().canaries.get(name) == version:
        click.echo(f"`./workshop promote {name}` deploys it, `./workshop abort {name}` removes it.")


def show_until_decided(console: Console, counters: Counters) -> None:
    try:
        with Live(table(counters), console=console, auto_refresh=False) as live:
            while state.load().canaries.get(counters.service) == counters.canary:
                counters.update()
                live.update(table(counters), refresh=True)
                time.sleep(INTERVAL)
    except KeyboardInterrupt:
        pass  # the way to end it


def table(counters: Counters) -> Table:
    shown = Table(title=f"{counters.service}, since {counters.canary} got its first request", title_justify="left")
    shown.add_column("version")
    for heading in ("requests", "5xx", "p50", "p99"):
        shown.add_column(heading, justify="right")
    for version, counter in sorted(counters.versions.items()):
        times = [counter.percentile(percent) for percent in (50, 99)]
        failed = f"[red]{counter.failed}[/]" if counter.failed else "0"
        shown.add_row(version, str(counter.requests), failed, *("–" if t is None else f"{t} ms" for t in times))
    return shown
