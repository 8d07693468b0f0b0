import click

from workshop import operations, stage, state


@click.command("start", epilog="Example: ./workshop start monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Start what `stop` has ended."""
    with state.locked(f"start {name}"):
        up = state.load()
        operations.start(stage.load(up.stage, up.counts), up, name)
    click.echo(f"{name} is up.")
