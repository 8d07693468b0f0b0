import click

from workshop import routing, state


@click.command("route", epilog="Example: ./workshop route /api/tokens tokens")
@click.argument("prefix")
@click.argument("service")
def command(prefix: str, service: str) -> None:
    """Have SERVICE answer the paths that begin with PREFIX, at once; the same command leads back."""
    with state.locked(f"route {prefix} {service}"):
        routing.route(state.load(), prefix, service, click.echo)
