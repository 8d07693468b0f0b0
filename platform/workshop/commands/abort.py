import click

from workshop import rollout, stage, state


@click.command("abort", epilog="Example: ./workshop abort monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Drain and stop the canary of SERVICE; the other instances go on."""
    with state.locked(f"abort {name}"):
        up = state.load()
        rollout.abort(stage.load(up.stage, up.counts), up, name, click.echo)
