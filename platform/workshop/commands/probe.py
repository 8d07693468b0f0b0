import re

import click
from rich.console import Console
from rich.table import Table

from workshop import state
from workshop.errors import WorkshopError
from workshop.probe import BACK_TIMEOUT, Ledger, Probe

UNITS = {"s": 1, "m": 60}
LONGEST = 50 * 60  # seconds: a token is valid for an hour
SHOWN_FAILURES = 10


def parse(context, parameter, text: str) -> int:
    """Read `30s` or `5m` as seconds."""
    found = re.fullmatch(r"([1-9][0-9]{0,3})([sm])", text)
    if not found or int(found[1]) * UNITS[found[2]] > LONGEST:
        raise click.BadParameter(f"{text!r} is not a duration such as 30s or 5m, of {LONGEST // 60} minutes at most")
    return int(found[1]) * UNITS[found[2]]


@click.command("probe", epilog="Example: ./workshop probe --for 1m, and meanwhile ./workshop kill monolith")
@click.option("--for", "seconds", default="30s", show_default=True, callback=parse, help="How long.")
@click.pass_context
def command(context: click.Context, seconds: int) -> None:
    """Put a steady load on what is up, and account for every request: exit 1 when one failed or was lost."""
    up = state.load()
    console = Console()
    with Probe(up.url) as probe:
        click.echo(f"{probe.load} to {up.url} for {seconds} s …")
        try:
            probe.run_for(seconds)
        except KeyboardInterrupt:
            pass  # enough for the person at the keyboard: the ledger says how long it was
    ledger = probe.ledger
    console.print(table(ledger))
    failures = ledger.failed() + ledger.cut_off()
    for answer in failures[:SHOWN_FAILURES]:
        console.print(f"at {answer.at:6.2f} s: {answer.method} {answer.failure}", markup=False, highlight=False)
    if not ledger.is_counted:
        raise WorkshopError(f"No answer for {BACK_TIMEOUT} s after the load: nobody can say what is lost.")
    context.exit(1 if failures or ledger.lost or ledger.doubled else 0)


def table(ledger: Ledger) -> Table:
    shown = Table(title="Ledger", title_justify="left", show_header=False)
    for method in ("GET", "POST"):
        median, most = ledger.percentile(method, 50), ledger.percentile(method, 99)
        shown.add_row(
            f"{method} sent, failed, cut off",
            f"{len(ledger.of(method))}, {len(ledger.failed(method))}, {len(ledger.cut_off(method))}",
            f"p50 {median:.0f} ms, p99 {most:.0f} ms",
        )  # fmt: skip
    shown.add_row("messages acknowledged", str(len(ledger.acknowledged)), "")
    if ledger.is_counted:
        shown.add_row("of these lost, doubled", f"{len(ledger.lost)}, {len(ledger.doubled)}", "")
    reached = len(ledger.pushed & set(ledger.acknowledged.values()))
    shown.add_row("of these pushed", str(reached), f"listeners reconnected {ledger.reconnects} times")
    shown.add_row(
        "longest silence",
        f"{1000 * ledger.longest_silence:.0f} ms",
        f"no good answer to anybody; of {ledger.duration:.0f} s",
    )
    served = {answer.instance for answer in ledger.answers if answer.instance}
    shown.add_row("served by", str(len(served)), " ".join(sorted(served)))
    return shown
