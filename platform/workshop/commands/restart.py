import click

from workshop import evolution, operations, state


@click.command("restart", epilog="Example: ./workshop restart monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Deploy SERVICE the old way: stop all, migrate, start. Its users notice; `probe` says how much."""
    with state.locked(f"restart {name}"):
        up = state.load()
        operations.restart(evolution.current(up), up, name, click.echo)
