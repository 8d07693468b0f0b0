import click

from workshop import evolution, rollout, state


@click.command("rollback", epilog="Example: ./workshop rollback monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Have SERVICE run the version before again, with nobody noticing; undo an upgrade that was interrupted."""
    with state.locked(f"rollback {name}"):
        up = state.load()
        rollout.rollback(evolution.current(up), up, name, click.echo)
