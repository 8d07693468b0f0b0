import json
import time

import click
from rich.console import Console
from rich.live import Live
from rich.table import Table

from workshop import evolution, state, supervisor
from workshop import status as system_status
from workshop.errors import WorkshopError

INTERVAL = 0.5  # seconds between two looks with --watch
COLOURS = {"UP": "green", "STARTING": "yellow", "DRAIN": "yellow", "DOWN": "red"}


@click.command("status", epilog="Example: ./workshop status --watch")
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
@click.option("--watch", is_flag=True, help="Show it until interrupted.")
def command(as_json: bool, watch: bool) -> None:
    """Show what runs, as the load balancer sees it."""
    if as_json:
        click.echo(json.dumps(report(), indent=2))
    elif watch:
        show_until_interrupted()
    else:
        Console().print(table(report()))


def report() -> dict:
    up = state.load()  # at each look: what is up may be on its way to the next stage
    if not supervisor.is_running() and (command := state.at_work()):
        raise WorkshopError(f"{command} is at work, and nothing runs yet that could be shown: try again in a moment.")
    return system_status.report(evolution.current(up), up)


def show_until_interrupted() -> None:
    try:
        with Live(table(report()), auto_refresh=False) as live:
            while True:
                time.sleep(INTERVAL)
                live.update(table(report()), refresh=True)
    except KeyboardInterrupt:
        pass  # the way to end it


def table(report: dict) -> Table:
    place = ", ".join(filter(None, [report["stage"], report.get("on_the_way")]))
    shown = Table(title=f"{place}: {report['url']}   statistics: {report['stats_url']}", title_justify="left")
    for heading in ("service", "routes", "instance", "address", "process", "state"):
        shown.add_column(heading, overflow="fold")
    for service in report["services"]:
        for instance in service["instances"]:
            origin = "" if service["origin"] == "stage" else f" ({service['origin']})"
            shown.add_row(
                service["name"] + origin,
                " ".join(service["routes"]) or "–",
                instance["id"] + (" (foreign)" if not instance["version"] and not origin else ""),
                instance["address"] or "–",
                str(instance["pid"] or "–"),
                coloured(instance["state"]),
            )
    for store in report["stores"]:
        shown.add_row(store["name"], "–", "–", store["address"], "–", coloured(store["state"]))
    return shown


def coloured(shown: str) -> str:
    return f"[{COLOURS[shown]}]{shown}[/]"
