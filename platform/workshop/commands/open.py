import webbrowser

import click

from workshop import state


@click.command("open", epilog="Example: ./workshop open")
def command() -> None:
    """Open the page in the browser of this machine, or print its address where there is none."""
    up = state.load()
    click.echo(up.url)
    webbrowser.open(up.url)
