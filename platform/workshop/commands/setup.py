import click


@click.command("setup", epilog="Example: ./workshop setup")
@click.option("--bundle", metavar="FILE", help="Install from what `./workshop bundle` has made: no network is needed.")
def command(bundle: str | None) -> None:
    """Install what is missing (the launcher has done so by now); safe to repeat."""
    click.echo("Everything is installed. Next: ./workshop up stage0")
