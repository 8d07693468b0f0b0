import click


@click.command("setup", epilog="Example: ./workshop setup")
def command() -> None:
    """Install what is missing (the launcher has done so by now); safe to repeat."""
    click.echo("Everything is installed. Next: ./workshop up stage0")
