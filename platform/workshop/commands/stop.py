import click

from workshop import evolution, operations, state


@click.command("stop", epilog="Example: ./workshop stop monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """End all instances of SERVICE, and its workers, until `start`."""
    with state.locked(f"stop {name}"):
        up = state.load()
        operations.stop(evolution.current(up), name)
    click.echo(f"{name} is stopped: `./workshop start {name}` starts it.")
