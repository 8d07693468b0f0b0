import dataclasses
import json

import click
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from workshop import bench, stage
from workshop.commands.probe import parse
from workshop.subject import READ

LONGEST = 60  # seconds per figure: three stages are measured for a quarter of an hour then

NOTES = f"""\
The ms are those of one client alone, who sends one request after the other. Reading is {READ.method} {READ.path},
signed in. Hops: how often a request passes the load balancer until it is answered. Services: their instances and
workers. Platform: load balancer, registry, message queue, supervisor, and a sidecar for each instance. Memory is PSS:
what processes share counts in equal parts. Lines: those that do something, without tests and migrations. The client is
a Python program on the same cores: its own time is in each figure, so the ratios look a little smaller than they are,
and the requests per second are fewer than they could be."""


@click.command("bench", epilog="Example: ./workshop bench stage0 stage2")
@click.argument("names", metavar="[STAGE...]", nargs=-1)
@click.option(
    "--for", "seconds", default="4s", show_default=True, callback=parse, help="How long to measure each figure."
)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def command(names: tuple[str, ...], seconds: int, as_json: bool) -> None:
    """Do the same work on several stages, or on all, and show what each costs, wins and loses.

    They are brought up beside what runs, and taken down again; for all, it takes about two minutes.
    """
    if seconds > LONGEST:
        raise click.BadParameter(f"{LONGEST} seconds for each figure are the most", param_hint="--for")
    names = tuple(dict.fromkeys(names)) or tuple(stage.stages())  # each once
    report = bench.run([stage.load(name) for name in names], seconds, lambda text: click.echo(text, err=True))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
        return
    console = Console(markup=False, highlight=False)
    console.print(table(report), "", sentences(report), "", NOTES.replace("\n", " "), sep="\n")


def table(report: bench.Report) -> Table:
    """Return what was measured; beside each stage but the first, how it compares with that one."""
    first, *_ = report.instances
    count = sum(report.instances[first].values())
    # Narrow, so that three stages fit into the 80 columns of a small terminal.
    shown = Table(box=SIMPLE_HEAD, show_edge=False, pad_edge=False, collapse_padding=True, title_justify="left")
    shown.title = f"The same work; instances of each stage: {count}"
    shown.add_column("")
    shown.add_column("unit")
    for name in report.instances:
        shown.add_column(name, justify="right")
        if name != first:
            shown.add_column(f"÷ {first}", justify="right")
    for row in report.rows:
        cells = []
        for name, value in row.values.items():
            cells.append(f"{value:,.{1 if row.unit == 'ms' else 0}f}")
            if name != first:
                cells.append(f"{value / row.values[first]:.2f}")
        shown.add_row(row.name, row.unit, *cells)
    return shown


def sentences(report: bench.Report) -> Table:
    """Return of each stage how many instances it had, what it wins, and what it loses."""
    shown = Table.grid(padding=(0, 2, 0, 0))
    for name, instances in report.instances.items():
        shown.add_row(name, "with", bench.listed(instances))
        for verb, of_stage in (("wins", report.wins), ("loses", report.loses)):
            if of_stage[name]:
                shown.add_row("", verb, of_stage[name])
    return shown
