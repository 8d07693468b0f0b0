import dataclasses
import json
import signal

import click
from rich.console import Console
from rich.table import Table

from workshop import bench, stage
from workshop.commands.probe import parse
from workshop.subject import INTERRUPTS, READ

LONGEST = 60  # seconds per figure: three stages are measured for a quarter of an hour then

NOTES = f"""\
The ms are those of one client alone, who sends one request after the other. Reading is {READ.method} {READ.path},
signed in. Hops: how often a request passes the load balancer until it is answered. Lines: those that do something,
without tests and migrations. The client is a Python program on the same cores: its own time is in each figure, so the
ratios look a little smaller than they are, and the requests per second are fewer than they could be."""


@click.command("bench", epilog="Example: ./workshop bench stage0 stage2")
@click.argument("names", metavar="[STAGE...]", nargs=-1)
@click.option(
    "--for", "seconds", default="4s", show_default=True, callback=parse, help="How long to measure each figure."
)
@click.option("--json", "as_json", is_flag=True, help="Print it for programs.")
def command(names: tuple[str, ...], seconds: int, as_json: bool) -> None:
    """Do the same work on several stages, or on all, and show what each costs.

    They are brought up beside what runs, and taken down again; it takes about a minute.
    """
    if seconds > LONGEST:
        raise click.BadParameter(f"{LONGEST} seconds for each figure are the most", param_hint="--for")
    names = tuple(dict.fromkeys(names)) or tuple(stage.stages())  # each once
    for interrupt in INTERRUPTS:  # all of them as the interrupt key: the stages are taken down
        signal.signal(interrupt, signal.default_int_handler)
    report = bench.run([stage.load(name) for name in names], seconds, lambda text: click.echo(text, err=True))
    if as_json:
        click.echo(json.dumps(dataclasses.asdict(report), indent=2))
        return
    console = Console()
    console.print(table(report))
    console.print(NOTES.replace("\n", " "), highlight=False)


def table(report: bench.Report) -> Table:
    first, *others = report.instances
    shares = "; ".join(f"{name}: {bench.listed(instances)}" for name, instances in report.instances.items())
    shown = Table(title=f"Equal numbers of processes that answer. {shares}", title_justify="left")
    shown.add_column("")
    for heading in ("unit", *report.instances, *(f"{name} ÷ {first}" for name in others)):
        shown.add_column(heading, justify="right")
    for row in report.rows:
        digits = 1 if row.unit == "ms" else 0
        values = [f"{value:.{digits}f}" for value in row.values.values()]
        ratios = [f"{row.values[name] / row.values[first]:.2f}" for name in others]
        shown.add_row(row.name, row.unit, *values, *ratios)
    return shown
