import click

from workshop import builds, evolution, state


@click.command("build", epilog="Example: ./workshop build monolith")
@click.argument("name", metavar="SERVICE")
def command(name: str) -> None:
    """Make an immutable, numbered copy of SERVICE's code; nothing runs from it until it is deployed."""
    with state.locked(f"build {name}"):
        service = evolution.current(state.load()).service(name)
        known = builds.versions(name)
        version = builds.build(service)
    if version in known:
        click.echo(f"{name}: nothing has changed since {version}.")
    else:
        click.echo(f"{name}: this is {version}. `./workshop upgrade {name}` deploys it.")
