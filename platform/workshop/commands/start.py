import click

from workshop import evolution, operations, state


@click.command("start", epilog="Example: ./workshop start monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Start what `stop` has ended."""
    with state.locked(f"start {name}"):
        up = state.load()
        operations.start(evolution.current(up), up, name)
    click.echo(f"{name} is up.")
