import re

import click

from workshop import evolution, operations, stage, state, status
from workshop.errors import WorkshopError

MOST = 20  # instances of a service: more than two cores can use


@click.command("scale", epilog="Example: ./workshop scale monolith=3 worker=2")
@click.argument("wanted", metavar="SERVICE=N...", nargs=-1, required=True)
def command(wanted: tuple[str, ...]) -> None:
    """Have N instances of each SERVICE; requests go on being answered meanwhile."""
    with state.locked("scale"):
        up = state.load()
        current = evolution.current(up)
        counts = dict(parse(current, word) for word in wanted)
        if len(counts) < len(wanted):
            raise click.UsageError("Name each SERVICE once.")
        operations.scale(current, up, counts, click.echo)


def parse(current: stage.Stage, word: str) -> tuple[str, int]:
    """Read `SERVICE=N`."""
    name, _, count = word.partition("=")
    if not re.fullmatch("-?[0-9]+", count):
        raise click.UsageError(f"{word!r} is not of the form SERVICE=N, such as monolith=3.")
    status.ensure_ours(current, name)
    current.program(name)
    if not 1 <= int(count) <= MOST:
        raise WorkshopError(
            f"{name} can have 1 to {MOST} instances, not {count}: to have none, use `./workshop stop {name}`."
        )
    return name, int(count)
