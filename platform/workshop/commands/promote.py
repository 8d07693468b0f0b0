import click

from workshop import evolution, rollout, state


@click.command("promote", epilog="Example: ./workshop promote monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Have all instances of SERVICE run the canary's version, with nobody noticing."""
    with state.locked(f"promote {name}"):
        up = state.load()
        rollout.promote(evolution.current(up), up, name, click.echo)
