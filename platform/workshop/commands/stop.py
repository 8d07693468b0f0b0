import click

from workshop import operations, stage, state


@click.command("stop", epilog="Example: ./workshop stop monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """End all instances of SERVICE, and its workers, until `start`."""
    with state.locked(f"stop {name}"):
        up = state.load()
        operations.stop(stage.load(up.stage, up.counts), name)
    click.echo(f"{name} is stopped: `./workshop start {name}` starts it.")
