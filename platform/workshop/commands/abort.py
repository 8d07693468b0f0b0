import click

from workshop import evolution, rollout, state


@click.command("abort", epilog="Example: ./workshop abort monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Drain and stop the canary of SERVICE; the other instances go on."""
    with state.locked(f"abort {name}"):
        up = state.load()
        rollout.abort(evolution.current(up), up, name, click.echo)
