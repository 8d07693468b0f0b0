import click

from workshop import evolution, joining, state


@click.command("leave", epilog="Example: ./workshop leave words")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Drain and remove SERVICE, which has joined, or its instance from a working tree."""
    with state.locked(f"leave {name}"):
        up = state.load()
        joining.leave(evolution.current(up), up, name, click.echo)
